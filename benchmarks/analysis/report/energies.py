"""The energy of calls: what the records say of it, how it grows, and its table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.document import Section, Table
from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.report.conclusions import FileSummary, RatedExponent
from benchmarks.analysis.scaling.exponent import estimate_exponent
from benchmarks.analysis.scaling.firmness import Unit, of_exponent
from benchmarks.analysis.scaling.units import unit_table

ENERGY: Literal["energy_j"] = "energy_j"
ERROR, OF_TOKEN = "energy_error_j", "energy_per_token_j"
IDLE = {"cpu": "cpu_idle_w", "cuda": "gpu_idle_w"}
"""Facts of a run: what a device draws at rest, in watts."""
ABOUT = (
    "±: what the counter's updates leave open and the parts of a measurement spread, or half the range of "
    "the runs if that is larger. A sensor is off by some percent more, alike in all cases. Calls follow each "
    "other with warm caches; what the device draws while it waits for the host is part of them."
)


def energy_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Joules per run (rows) and length (columns): energy is read once a run, so that the run is its unit."""
    if ENERGY not in rows:
        return pd.DataFrame()
    known = rows.assign(**{ENERGY: pd.to_numeric(rows[ENERGY]).astype(float), "unit": rows["run"]})
    return unit_table(known[known[ENERGY] > 0], ENERGY)


def energy_exponent(table: pd.DataFrame, unit: Unit, unseen: float) -> RatedExponent | None:
    """The p of energy ~ N^p; without its reason and fixed costs, whose words and units are those of time."""
    if table.empty:
        return None
    found = vars(estimate_exponent(table, unseen=unseen)) | {"reason": None, "overhead_s": None}
    exponent = RatedExponent(**found, firmness="open")
    return RatedExponent(**found, firmness=of_exponent(exponent, unit))


def of_case(rows: pd.DataFrame) -> Mapping[str, float]:
    """Energy of a measured case over its runs, its error and that of a token; empty where it is not known."""
    if ENERGY not in rows or pd.to_numeric(rows[ENERGY]).isna().all():
        return {}
    first = rows.iloc[0]
    runs = pd.to_numeric(rows[ENERGY]).astype(float).groupby(rows["run"]).median()
    errors = pd.to_numeric(rows[ERROR]).astype(float) if ERROR in rows else pd.Series(dtype=float)
    joules = float(runs.median())
    between = float(runs.max() - runs.min()) / 2 if len(runs) > 1 else math.nan
    return {
        ENERGY: joules,
        ERROR: float(np.fmax(errors.median(), between)),
        OF_TOKEN: joules / tokens(first),
    }


def tokens(row: pd.Series) -> float:
    """Tokens that a call computes: those of its queries, in every sequence of its batch; NaN if unknown."""
    queries = row["seq_len"] if pd.isna(row["query_len"]) else row["query_len"]
    return math.nan if pd.isna(queries) or pd.isna(row["batch"]) else float(queries) * float(row["batch"])


def energies(cases: pd.DataFrame, setting: Setting, files: Sequence[FileSummary]) -> Iterator[Section]:
    """The tables of the energy of a call and of a token; none where no energy is known."""
    name = wording.what(setting)
    known = cases[cases["outcome"].eq("measured") & (cases[ENERGY] > 0)] if ENERGY in cases else cases[:0]
    if known.empty:
        return
    lengths = sorted(known["seq_len"].unique())
    headers = ["kernel", *(f"N={length}" for length in lengths)]
    calls, of_tokens = [], []
    for kernel, group in known.groupby("kernel"):
        ours = {case["seq_len"]: case for _, case in group.iterrows()}
        calls.append([str(kernel), *(_cell(ours[one]) if one in ours else "-" for one in lengths)])
        each = {length: wording.joules(case[OF_TOKEN]) for length, case in ours.items()}
        of_tokens.append([str(kernel), *(each.get(length, "-") for length in lengths)])
    yield Section(f"Energy of a call, {name}", table=Table(headers, calls), notes=[ABOUT], level=3)
    notes = list(_at_rest(setting, files))
    yield Section(f"Energy of a token, {name}", table=Table(headers, of_tokens), notes=notes, level=3)


def _cell(case: pd.Series) -> str:
    error = case[ERROR] / case[ENERGY] if pd.notna(case[ERROR]) else None
    return wording.joules(case[ENERGY]) + ("" if error is None else f" ±{wording.percent(error)}")


def _at_rest(setting: Setting, files: Sequence[FileSummary]) -> Iterator[str]:
    watts = [file.run.get(IDLE.get(str(setting.device), "")) for file in files]
    known = sorted({f"{value:.0f}" for value in watts if isinstance(value, int | float)}, key=float)
    if known:
        yield f"At rest the device draws {' to '.join(dict.fromkeys((known[0], known[-1])))} W."
