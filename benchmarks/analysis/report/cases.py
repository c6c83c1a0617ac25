"""One tidy row per case, measured or not: what the tables and pictures show and the CSV file holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.analysis.reading.records import Records, as_frame
from benchmarks.analysis.reading.setting import CASE, SETTING, Setting
from benchmarks.analysis.report.ceilings import find_ceilings
from benchmarks.analysis.report.energies import of_case
from benchmarks.analysis.report.floors import FLOOR, with_floors
from benchmarks.analysis.scaling.units import Floats, student_interval


@dataclass(frozen=True)
class Times:
    """The times of a measured case, in seconds.

    Attributes:
        median_s: Median of the unit values, each the median of its repetitions' medians.
        mean_s: Mean of the unit values.
        std_s: Standard deviation of the unit values, NaN for one unit.
        stderr_s: Standard error of their mean, NaN for one unit.
        interval_low_s: Lower end of Student's 95 % interval of the geometric mean, NaN for one unit.
        interval_high_s: Upper end of it, NaN for one unit.
        unit_low_s: The smallest unit value.
        unit_high_s: The largest unit value.
        min_s: The shortest of all rounds.
        q05_s: The 5 % quantile of all rounds; those of 25 %, 75 % and 95 % follow.
        max_s: The longest of all rounds.
    """

    median_s: float
    mean_s: float
    std_s: float
    stderr_s: float
    interval_low_s: float
    interval_high_s: float
    unit_low_s: float
    unit_high_s: float
    min_s: float
    q05_s: float
    q25_s: float
    q75_s: float
    q95_s: float
    max_s: float

    @classmethod
    def of(cls, units: Floats, rounds: Floats) -> Times:
        """The times of a case by its unit values and all its rounds."""
        _, *ends = student_interval(np.log(units))
        interval = [math.nan if end is None else math.exp(end) for end in ends]
        times = [np.median(units), np.mean(units), *scatter(units), *interval, units.min(), units.max()]
        times += [rounds.min(), *np.quantile(rounds, [0.05, 0.25, 0.75, 0.95]), rounds.max()]
        return cls(*map(float, times))


TIMES = [field.name for field in fields(Times)]
OVER_ROUNDS = ["rounds_mean_s", "rounds_std_s", "rounds_stderr_s"]
COUNTS = ["rounds", "repetitions", "units"]
OF_ONE_ROW = ["repetition", "file", "run", "unit", "seconds", "median_s", "rounds"]


def case_table(records: Records) -> pd.DataFrame:
    """One row per case over all files.

    Returns:
        Every record field, then those of `Times`; then `rounds_mean_s`, `rounds_std_s`, `rounds_stderr_s`,
        mean, standard deviation and standard error as if all rounds were independent; then `rounds`,
        `repetitions`, `units`, what `floors.with_floors` adds, `unit_kind`, `outcome` and `reason`. `outcome`
        is "measured" or that of `not_measured`.
    """
    if records.rows.empty:
        measured = []
    else:
        groups = records.rows.groupby(list(CASE), dropna=False, sort=False)
        measured = [_measured_case(rows) for _, rows in groups]
    cases = as_frame([*measured, *records.not_measured.to_dict("records")])
    last = [*TIMES, *OVER_ROUNDS, *COUNTS, *FLOOR, "unit_kind", "outcome", "reason"]
    known = [column for column in cases.columns if column not in last]
    by_place = [field for field in SETTING if field not in ("subject", "mode", "phase")]
    by_kernel = ["phase", "mode", "family", "kernel", "seq_len"]
    cases = cases.reindex(columns=known + last).sort_values(
        ["subject", *by_place, *by_kernel], ignore_index=True, kind="stable"
    )
    return with_floors(cases, find_ceilings(records.rows))


def _measured_case(rows: pd.DataFrame) -> dict[str, object]:
    repetitions = rows.groupby(["unit", "run", "repetition"])["median_s"].median()
    units = repetitions.groupby("unit").median().to_numpy(dtype=float)
    rounds = np.concatenate(rows["seconds"].to_list())
    count, first = int(rows["rounds"].sum()), rows.iloc[0]
    # Quartiles in the place of missing rounds have another mean.
    over_rounds = [np.mean(rounds), *scatter(rounds)] if rounds.size == count else [math.nan] * 3
    return {
        **{str(name): value for name, value in first.items() if name not in OF_ONE_ROW},
        **vars(Times.of(units, rounds)),
        **dict(zip(OVER_ROUNDS, map(float, over_rounds), strict=True)),
        "rounds": count,
        "repetitions": len(repetitions),
        "units": len(units),
        "outcome": "measured",
        **of_case(rows),
    }


def scatter(values: Floats) -> tuple[float, float]:
    """Standard deviation of independent values, and standard error of their mean; NaN for a single one."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return deviation, deviation / math.sqrt(len(values))


def agreeing(cases: pd.DataFrame, setting: Setting, names: Sequence[str] = SETTING) -> pd.DataFrame:
    """The cases that agree with a setting in these of its fields.

    What is None agrees with nothing, but for `query_len`, of which None says that it is that of the keys, and
    `ranks`, of which it says that there are none.
    """

    def agree(name: str) -> Any:
        value = getattr(setting, name)
        if name in ("query_len", "ranks") and value is None:
            return cases[name].isna().to_numpy(dtype=bool)
        return (cases[name] == value).fillna(False).to_numpy(dtype=bool)

    return cases[np.logical_and.reduce([agree(name) for name in names])]


def spread(case: pd.Series) -> float:
    """Relative spread of a measured case: half the range of its units, or of one unit's middle rounds."""
    ends = ("unit_low_s", "unit_high_s") if case["units"] > 1 else ("q25_s", "q75_s")
    return float((case[ends[1]] - case[ends[0]]) / 2 / case["median_s"])
