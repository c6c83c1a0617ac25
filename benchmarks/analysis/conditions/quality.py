"""Unstable measurements by their times, and what to try; `sensors` tells of what disturbed them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.analysis import wording
from benchmarks.analysis.conditions.sensors import name_conditions
from benchmarks.analysis.reading.fields import LONG_ROUND_S
from benchmarks.analysis.reading.records import Records
from benchmarks.analysis.reading.setting import CASE, Case, Setting, attention
from benchmarks.analysis.scaling.units import Floats

FEW_ROUNDS = 3
"""The least number of rounds whose median a single stall cannot move, if they are short."""
WIDE_SPREAD = 0.135
"""Width of the middle half of the rounds over their median: for normal noise that of a standard deviation of
10 %, from which on pyperf calls a benchmark unstable."""
DRIFT = math.log(1.05)
"""The drift that is named: half of the drift with which tests show that the intervals keep their promise."""
UNEVEN_RUN = math.log(1.1)
"""Five times what the run usually does to all its times on shared machines."""
DRIFTED = "from the first to the last repetition all cases together became"
CONFIDENCE = 0.99
"""The confidence of each drift that is named: there is one per run and device, and few shall be false."""


def name_quality(records: Records) -> list[str]:
    """Name everything unstable in a few sentences, each with what to try.

    Args:
        records: What `records.load` read.

    Returns:
        Sentences for a report; none where everything was steady.
    """
    if records.rows.empty:
        return []
    rows = attention(records.rows)
    return [
        *_few_rounds(rows),
        *_wide_spread(rows),
        *_drift(rows),
        *_uneven_runs(rows, records),
        *name_conditions(records),
    ]


def _few_rounds(rows: pd.DataFrame) -> Iterator[str]:
    counts = rows.groupby([*CASE, "unit"], dropna=False)["rounds"].sum()
    fewest = counts.groupby(list(CASE), dropna=False).min().reset_index()
    times = rows.groupby(list(CASE), dropna=False)["median_s"].median().reset_index(drop=True)
    few = fewest[(fewest["rounds"] < FEW_ROUNDS) & (times <= LONG_ROUND_S)]
    if len(few):
        worst = few.sort_values("rounds").iloc[0]
        yield (
            f"Few rounds: {_of_cases(few, fewest)} had fewer than {FEW_ROUNDS} rounds in a unit of sampling, "
            f"{_name(worst)} only {worst['rounds']}. Give them longer with --case-seconds, the layer fewer "
            "--repetitions."
        )


def _wide_spread(rows: pd.DataFrame) -> Iterator[str]:
    spreads = rows.assign(spread=rows["seconds"].map(_spread))
    cases = spreads.groupby(list(CASE), dropna=False)["spread"].median().reset_index()
    wide = cases[cases["spread"] > WIDE_SPREAD]
    if len(wide):
        worst = wide.sort_values("spread", ascending=False).iloc[0]
        yield (
            f"Wide spread: in {_of_cases(wide, cases)} the middle half of the rounds spans more than "
            f"{100 * WIDE_SPREAD:g} % of the median, the most in {_name(worst)}, "
            f"{wording.percent(worst['spread'])}. Close other programs, measure longer with --case-seconds, "
            "or measure several runs with `python -m benchmarks run`."
        )


def _spread(seconds: Floats) -> float:
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    return float((high - low) / middle)


def _drift(rows: pd.DataFrame) -> Iterator[str]:
    """All cases of a run growing slower, or faster, from repetition to repetition."""
    of_files = {str(file): name_drift(group) for file, group in rows.groupby("file", sort=False)}
    several = len(of_files) > 1
    words = [words + (f" ({file})" if several else "") for file, words in of_files.items() if words]
    if words:
        yield (
            f"Drift: {DRIFTED} {wording.listed(words)}. Warm the machine up and keep it cool, and end "
            "what else runs on it. The comparison of kernels bears it, since repetitions are interleaved; "
            "absolute times do not."
        )


def name_drift(rows: pd.DataFrame) -> str | None:
    """The drift of one run from its first to its last repetition, "8.0 % slower"; None where there is none.

    Args:
        rows: Rows of the run, with `key`, `clock`, `device`, `repetition` and `median_s`.
    """
    changes = [_trend(_levels(group, "repetition")) for _, group in rows.groupby("device")]
    largest = max(changes, key=abs, default=0.0)
    return _change(largest) if abs(largest) > DRIFT else None


def _uneven_runs(rows: pd.DataFrame, records: Records) -> Iterator[str]:
    """All cases of a run off from the other runs of the machine, or drifting from run to run."""
    for _, group in rows.groupby(["machine", "device"], dropna=False):
        place = Setting.of(group.iloc[0])
        in_time = sorted(group["run"].unique(), key=lambda run: str(records.runs[run].datetime))
        levels = _levels(group, "run")[in_time].dropna()
        where = f"on {', '.join(filter(None, (place.device, place.machine)))}"
        offsets = levels.sub(levels.median(axis="columns"), axis="index")
        common = {run: _common(offsets[run].to_numpy(dtype=float)) for run in in_time}
        worst = max(common, key=lambda run: abs(common[run]))
        if abs(common[worst]) > UNEVEN_RUN:
            yield (
                f"Uneven runs: {where} all cases of {records.runs[worst].file} together were "
                f"{_change(common[worst])} than in the run in the middle. See what was different then, and "
                "measure that run again."
            )
        elif abs(_trend(levels)) > DRIFT:
            yield (
                f"Drift: {where} all cases together became {_change(_trend(levels))} from the first to the "
                "last run. Measure the runs in one go, on a machine warmed up and otherwise idle."
            )


def _levels(rows: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Log seconds by case and unit, of the cases that every unit measured."""
    logs: dict[tuple[Any, ...], dict[Any, list[float]]] = {}
    for key, clock, of, log in zip(
        rows["key"], rows["clock"], rows[unit], np.log(rows["median_s"].to_numpy(dtype=float)), strict=True
    ):
        logs.setdefault((key, clock), {}).setdefault(of, []).append(float(log))
    units = sorted({of for own in logs.values() for of in own})
    # In the order of the cases, so that sums over them are always the same.
    complete = [own for _, own in sorted(logs.items()) if len(own) == len(units)]
    # pandas takes ten times as long to group as few rows as a run has.
    return pd.DataFrame([[median(own[of]) for of in units] for own in complete], columns=units, dtype=float)


def _trend(levels: pd.DataFrame) -> float:
    """The change of log seconds from the first to the last unit that all cases have in common.

    Each case's is that of its least-squares line over the units, in their order.
    """
    steps = np.arange(levels.shape[1]) - (levels.shape[1] - 1) / 2
    if len(steps) < 2:
        return 0.0
    return _common(levels.to_numpy(dtype=float) @ steps / (steps @ steps) * (len(steps) - 1))


def _common(changes: Floats) -> float:
    """The mean over cases, or 0 where their scatter explains it: Student's t over the cases."""
    if len(changes) < 2:
        return 0.0
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(changes) - 1) * changes.std(ddof=1) / math.sqrt(len(changes))
    mean = float(changes.mean())
    return mean if abs(mean) > half else 0.0


def _change(log: float) -> str:
    return f"{wording.percent(abs(math.expm1(log)))} {'slower' if log > 0 else 'faster'}"


def _of_cases(some: pd.DataFrame, every: pd.DataFrame) -> str:
    return f"{len(some)} of {wording.count(len(every), 'case')}"


def _name(row: pd.Series[Any]) -> str:
    case = Case.of(row)
    return f"{case.kernel}, {wording.what(case.setting)}, N = {case.seq_len}"
