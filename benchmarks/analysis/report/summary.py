"""All conclusions as one plain object: what summary.json holds, and every table and picture shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.analysis.reading.fields import FAMILIES
from benchmarks.analysis.reading.records import Records, groups
from benchmarks.analysis.reading.setting import SERIES, SETTING
from benchmarks.analysis.report.caveats import name_caveats
from benchmarks.analysis.report.ceilings import ceiling_of, find_ceilings, floor_seconds
from benchmarks.analysis.report.quality import name_quality
from benchmarks.analysis.scaling.crossover import find_crossover
from benchmarks.analysis.scaling.exponent import estimate_exponent
from benchmarks.analysis.scaling.firmness import of_crossover, of_exponent
from benchmarks.analysis.scaling.laws import compare_laws, overhead
from benchmarks.analysis.scaling.units import count_exponent, local_slopes, unit_table
from benchmarks.analysis.serialization import json_value

SCHEMA = 1


def summarise(records: Records) -> dict[str, Any]:
    """Draw all conclusions.

    Args:
        records: What `records.load` read.

    Returns:
        JSON-ready: `schema`, `runs`, `series`, `crossovers`, `ceilings`, `warnings`, `quality` (what was
        unstable, and what to try), `not_measured`; numbers or None, never NaN.
    """
    rows = records.rows
    ceilings = find_ceilings(rows)
    # What a device can do at most, or has no length, belongs to no series.
    scaling = rows[rows["seq_len"].notna() & (rows["subject"] != "ceiling")] if len(rows) else rows
    series = [_series(key, group, ceilings) for key, group in groups(scaling, SERIES)]
    crossovers = [result for key, group in groups(scaling, SETTING) for result in _crossovers(key, group)]
    warnings = records.warnings + name_caveats(records, series, crossovers, ceilings)
    summary = {
        "schema": SCHEMA,
        "runs": _runs(records),
        "series": series,
        "crossovers": crossovers,
        "ceilings": ceilings,
        "warnings": warnings,
        "quality": name_quality(records),
        "not_measured": records.not_measured.to_dict("records"),
    }
    concluded: dict[str, Any] = json_value(summary)
    return concluded


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


def _series(
    identity: Mapping[str, Any], rows: pd.DataFrame, ceilings: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    table = unit_table(rows)
    lengths, medians = table.columns.to_numpy(dtype=float), np.asarray(table.median(), dtype=float)
    counts = rows.groupby("seq_len")[["flops", "min_bytes", "peak_bytes"]].median().astype(float)
    ceiling = ceiling_of(identity, ceilings)
    floor = np.maximum(*floor_seconds(ceiling, counts["min_bytes"], counts["flops"])) if ceiling else math.nan
    unit, flops_exponent = str(rows["unit_kind"].iloc[0]), count_exponent(lengths, counts["flops"].to_numpy())
    exponent, (laws, best) = estimate_exponent(table, flops_exponent), compare_laws(table)
    return {
        **identity,
        "unit": unit,
        "seq_lens": [int(length) for length in lengths],
        "median_s": medians,
        "floor_share": floor / medians,
        "exponent": {**vars(exponent), "firmness": of_exponent(exponent, unit)},
        "local_slopes": local_slopes(table),
        "overhead_s": overhead(laws),
        "flops_exponent": flops_exponent,
        "peak_bytes_exponent": count_exponent(lengths, counts["peak_bytes"].to_numpy()),
        "laws": laws,
        "best_law": best,
    }


def _crossovers(setting: Mapping[str, Any], rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    kernels = {family: sorted(rows.loc[rows["family"] == family, "kernel"].unique()) for family in FAMILIES}
    times = {kernel: unit_table(group) for kernel, group in rows.groupby("kernel")}
    unit = str(rows["unit_kind"].iloc[0])
    # Bytes are exact: they need no units, and one row says it all.
    known = rows.astype({"peak_bytes": float}).query("peak_bytes > 0").assign(unit=0)
    peaks = {kernel: unit_table(group, "peak_bytes") for kernel, group in known.groupby("kernel")}
    for linear, standard in product(kernels["linear"], kernels["standard"]):
        pair = {"linear": linear, "standard": standard, **setting}
        time = find_crossover(times[linear], times[standard])
        yield {**pair, "quantity": "time", **vars(time), "firmness": of_crossover(time, unit)}
        if linear in peaks and standard in peaks:
            memory = find_crossover(peaks[linear], peaks[standard], exact=True)
            firmness = of_crossover(memory, unit, exact=True)
            yield {**pair, "quantity": "peak_bytes", **vars(memory), "firmness": firmness}


def _runs(records: Records) -> dict[str, Any]:
    rows = records.rows
    machines = {run.machine.fingerprint: run.machine for run in reversed(records.runs)}
    order = list(dict.fromkeys(run.machine.fingerprint for run in records.runs))
    kinds = sorted(rows["unit_kind"].unique()) if len(rows) else []
    return {
        "files": [
            {"file": run.file, "datetime": run.datetime, "commit": run.commit.id, "node": run.node,
             "run": run.facts,
             "machine": order.index(run.machine.fingerprint)}
            for run in records.runs
        ],
        "machines": [{**vars(machines[identity]), "fingerprint": identity} for identity in order],
        "unit": kinds[0] if len(kinds) == 1 else "mixed" if kinds else None,
        "units": int(rows.groupby(list(SETTING), dropna=False)["unit"].nunique().max()) if len(rows) else 0,
    }  # fmt: skip
