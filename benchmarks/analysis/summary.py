"""All conclusions as one plain object: what summary.json holds, and every table and picture shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.crossover import find_crossover
from benchmarks.analysis.fits import estimate_overhead, fit_law
from benchmarks.analysis.reading import FAMILIES
from benchmarks.analysis.records import SERIES, SETTING, Records
from benchmarks.analysis.scaling import count_exponent, estimate_exponent, local_slopes, unit_table

SCHEMA = 1
PLACE = tuple(field for field in SETTING if field not in ("mode", "phase"))


def summarise(records: Records) -> dict[str, Any]:
    """Draw all conclusions.

    Args:
        records: What `records.load` read.

    Returns:
        JSON-ready: `schema`, `runs`, `series`, `crossovers`, `warnings`, `not_measured`; numbers or None,
        never NaN.
    """
    rows = records.rows
    # Cases without a length, such as a device's copy bandwidth, belong to no series.
    scaling = rows[rows["seq_len"].notna()] if len(rows) else rows
    series = [_series(key, group) for key, group in _groups(scaling, SERIES)]
    crossovers = [result for key, group in _groups(scaling, SETTING) for result in _crossovers(key, group)]
    warnings = records.warnings + _warnings(records, crossovers)
    summary = {
        "schema": SCHEMA,
        "runs": _runs(records),
        "series": series,
        "crossovers": crossovers,
        "warnings": warnings,
        "not_measured": records.not_measured.to_dict("records"),
    }
    plain: dict[str, Any] = _plain(summary)
    return plain


def best_linear(series: Sequence[Mapping[str, Any]]) -> str | None:
    """The headline kernel of one setting: the fastest linear one at the longest length of any."""
    linear = [one for one in series if one["family"] == "linear"]
    if not linear:
        return None
    longest = max(one["seq_lens"][-1] for one in linear)
    finalists = [one for one in linear if one["seq_lens"][-1] == longest]
    return str(min(finalists, key=lambda one: one["median_s"][-1])["kernel"])


def same(setting: Mapping[str, Any], other: Mapping[str, Any], fields: tuple[str, ...] = SETTING) -> bool:
    """Whether two series or crossovers agree in these fields."""
    return all(setting[field] == other[field] for field in fields)


def agreeing(
    cases: pd.DataFrame, setting: Mapping[str, Any], fields: tuple[str, ...] = SETTING
) -> pd.DataFrame:
    """The cases that agree with a series or crossover in these fields."""
    agree = [(cases[field] == setting[field]).fillna(False).to_numpy(dtype=bool) for field in fields]
    return cases[np.logical_and.reduce(agree)]


def _groups(rows: pd.DataFrame, fields: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    if len(rows):
        for key, group in rows.groupby(list(fields), dropna=False):
            yield dict(zip(fields, key, strict=True)), group


def _series(identity: Mapping[str, Any], rows: pd.DataFrame) -> dict[str, Any]:
    table = unit_table(rows)
    lengths, medians = table.columns.to_numpy(dtype=float), np.asarray(table.median(), dtype=float)
    exponent = estimate_exponent(table)
    counts = rows.groupby("seq_len")[["flops", "peak_bytes"]].median().astype(float)
    return {
        **identity,
        "unit": rows["unit_kind"].iloc[0],
        "seq_lens": [int(length) for length in lengths],
        "median_s": medians,
        "exponent": vars(exponent),
        "local_slopes": local_slopes(table),
        "overhead_s": estimate_overhead(lengths, medians),
        "flops_exponent": count_exponent(lengths, counts["flops"].to_numpy()),
        "peak_bytes_exponent": count_exponent(lengths, counts["peak_bytes"].to_numpy()),
        "fits": {"quadratic": fit_law(lengths, medians, 2), "linear": fit_law(lengths, medians, 1)},
    }


def _crossovers(setting: Mapping[str, Any], rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    kernels = {family: sorted(rows.loc[rows["family"] == family, "kernel"].unique()) for family in FAMILIES}
    times = {kernel: unit_table(group) for kernel, group in rows.groupby("kernel")}
    # Bytes are exact: they need no units, and one row says it all.
    known = rows.astype({"peak_bytes": float}).query("peak_bytes > 0").assign(unit=0)
    peaks = {kernel: unit_table(group, "peak_bytes") for kernel, group in known.groupby("kernel")}
    for linear, standard in product(kernels["linear"], kernels["standard"]):
        pair = {"linear": linear, "standard": standard, **setting}
        time = find_crossover(times[linear], times[standard])
        yield {**pair, "quantity": "time", **vars(time)}
        if linear in peaks and standard in peaks:
            memory = find_crossover(peaks[linear], peaks[standard], exact=True)
            yield {**pair, "quantity": "peak_bytes", **vars(memory)}


def _runs(records: Records) -> dict[str, Any]:
    rows, machines = records.rows, []
    for run in records.runs:
        if run["machine"] not in machines:
            machines.append(run["machine"])
    kinds = sorted(rows["unit_kind"].unique()) if len(rows) else []
    return {
        "files": [
            {**{name: run[name] for name in ("file", "datetime", "commit", "run")},
             "machine": machines.index(run["machine"])}
            for run in records.runs
        ],
        "machines": machines,
        "unit": kinds[0] if len(kinds) == 1 else "mixed" if kinds else None,
        "units": int(rows.groupby(list(SETTING), dropna=False)["unit"].nunique().max()) if len(rows) else 0,
    }  # fmt: skip


def _warnings(records: Records, crossovers: list[dict[str, Any]]) -> list[str]:
    rows = records.rows
    if rows.empty:
        return ["Nothing was measured."]
    warnings = [f"{sentence}." for sentence in _differences(records)]
    attention = rows[rows["family"].isin(FAMILIES)]
    for place, group in _groups(attention, (*PLACE, "phase")):
        where = f"{wording.phase(place['phase'])} on {wording.place(place)}"
        for mode in sorted({"bidirectional", "causal"} - set(group["mode"])):
            warnings.append(f"No {mode} case was measured, {where}.")
        for family in FAMILIES:
            if family not in set(group["family"]):
                warnings.append(
                    f"No {family} kernel was measured, {where}: there is nothing to compare with."
                )
        if group["seq_len"].nunique() < 3:
            found = ", ".join(str(length) for length in sorted(group["seq_len"].unique()))
            warnings.append(f"Only N = {found} was measured, {where}: exponents and fits need 3 lengths.")
        if group["unit"].nunique() < 2:
            unit = group["unit_kind"].iloc[0]
            warnings.append(f"A single {unit} allows no intervals, {where}: measure at least 3 repetitions.")
    notes: dict[str, list[str]] = {}
    for result in crossovers:
        where = f"{result['mode']} {wording.phase(result['phase'])}"
        for note in result["notes"]:
            notes.setdefault(note, []).append(f"{result['linear']} against {result['standard']} ({where})")
    return warnings + [f"{', '.join(pairs)}: {note}." for note, pairs in notes.items()]


def _differences(records: Records) -> Iterator[str]:
    """What differs between files whose rows are pooled."""
    pooled = records.rows[records.rows["unit_kind"] == "run"]
    runs = [records.runs[index] for index in sorted(pooled["run"].unique())]
    if len({run["commit"] for run in runs}) > 1:
        yield "The files pooled here were measured at different commits"
    if len({(run["machine"]["node"], run["machine"]["cpu"]) for run in runs}) > 1:
        yield "The files pooled here were measured on different machines"


def _plain(value: Any) -> Any:
    """Nothing but what JSON knows: Python's scalars, and None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value
