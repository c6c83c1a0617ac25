"""One tidy row per case, measured or not: what the tables and pictures show and the CSV file holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.analysis.reading.records import Records, as_frame
from benchmarks.analysis.reading.setting import CASE, SETTING, Setting
from benchmarks.analysis.report.ceilings import find_ceilings, with_floors
from benchmarks.analysis.scaling.units import Floats, student_interval

TIMES = [
    "median_s", "mean_s", "stderr_s", "interval_low_s", "interval_high_s", "unit_low_s", "unit_high_s",
    "min_s", "q05_s", "q25_s", "q75_s", "q95_s", "max_s",
]  # fmt: skip
OVER_ROUNDS = ["rounds_mean_s", "rounds_stderr_s"]
COUNTS = ["rounds", "repetitions", "units"]
FLOOR = ["floor_s", "floor_bound", "floor_share"]
OF_ONE_ROW = ["repetition", "file", "run", "unit", "seconds", "median_s", "rounds"]


def case_table(records: Records) -> pd.DataFrame:
    """One row per case over all files.

    Returns:
        Every record field, then in seconds: `median_s` (median of the unit values, each the median of its
        repetitions' medians), `mean_s` and `stderr_s` (mean of the unit values and its standard error, empty
        for one unit), `interval_low_s` and `interval_high_s` (Student's 95 % interval of their geometric
        mean, empty for one unit), `unit_low_s` and `unit_high_s` (smallest and largest unit value), and
        smallest, largest and quantiles of all rounds; of layers also `rounds_mean_s` and `rounds_stderr_s`,
        mean and standard error as if all rounds were independent; then `rounds`, `repetitions`, `units`, what
        `ceilings.with_floors` adds, `unit_kind`, `outcome` and `reason`. `outcome` is "measured" or that of
        `not_measured`.
    """
    if records.rows.empty:
        measured = []
    else:
        groups = records.rows.groupby(list(CASE), dropna=False, sort=False)
        measured = [_measured_case(rows) for _, rows in groups]
    cases = as_frame([*measured, *_dicts(records.not_measured)])
    over_rounds = [name for name in OVER_ROUNDS if name in cases]
    last = [*TIMES, *over_rounds, *COUNTS, *FLOOR, "unit_kind", "outcome", "reason"]
    fields = [column for column in cases.columns if column not in last]
    by_place = [field for field in SETTING if field not in ("subject", "mode", "phase")]
    by_kernel = ["phase", "mode", "family", "kernel", "seq_len"]
    cases = cases.reindex(columns=fields + last).sort_values(
        ["subject", *by_place, *by_kernel], ignore_index=True, kind="stable"
    )
    return with_floors(cases, find_ceilings(records.rows))


def _dicts(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _measured_case(rows: pd.DataFrame) -> dict[str, Any]:
    repetitions = rows.groupby(["unit", "run", "repetition"])["median_s"].median()
    units = repetitions.groupby("unit").median().to_numpy(dtype=float)
    rounds = np.concatenate(rows["seconds"].to_list())
    q05, q25, q75, q95 = np.quantile(rounds, [0.05, 0.25, 0.75, 0.95])
    times = [np.median(units), np.mean(units), standard_error(units)]
    times += [math.nan if end is None else math.exp(end) for end in student_interval(np.log(units))[1:]]
    times += [units.min(), units.max()]
    times += [rounds.min(), q05, q25, q75, q95, rounds.max()]
    count = int(rows["rounds"].sum())
    case = {
        **{str(name): value for name, value in rows.iloc[0].items() if name not in OF_ONE_ROW},
        **dict(zip(TIMES, map(float, times), strict=True)),
        "rounds": count,
        "repetitions": len(repetitions),
        "units": len(units),
        "outcome": "measured",
    }
    if case["subject"] == "layer":
        # Quartiles that stand in for the rounds have another mean.
        kept = rounds.size == count
        case["rounds_mean_s"] = float(np.mean(rounds)) if kept else math.nan
        case["rounds_stderr_s"] = standard_error(rounds) if kept else math.nan
    return case


def standard_error(values: Floats) -> float:
    """Of the mean of independent values; NaN for a single one."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def agreeing(cases: pd.DataFrame, setting: Setting, fields: Sequence[str] = SETTING) -> pd.DataFrame:
    """The cases that agree with a setting in these of its fields; what is None agrees with nothing."""
    agree = [(cases[field] == getattr(setting, field)).fillna(False).to_numpy(dtype=bool) for field in fields]
    return cases[np.logical_and.reduce(agree)]


def spread(case: pd.Series) -> float:
    """Relative spread of a measured case: half the range of its units, or of one unit's middle rounds."""
    ends = ("unit_low_s", "unit_high_s") if case["units"] > 1 else ("q25_s", "q75_s")
    return float((case[ends[1]] - case[ends[0]]) / 2 / case["median_s"])
