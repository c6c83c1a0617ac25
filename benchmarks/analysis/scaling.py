"""How time grows with the length: local slopes, and exponents with intervals.

Rounds of one process are not independent, so nothing here looks at rounds. It looks at *units*, the runs or,
with a single run, its repetitions: a table of one row per unit and one column per length, in seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
SLOPE_TOLERANCE = 0.3
"""How far the local slopes of a window may lie apart.

Two neighbouring medians that are each 5 % off, as on a shared machine, move a doubling slope by
sqrt(2) 0.05 / ln 2 = 0.1, and half a dozen such slopes then span about 0.3. The smallest difference that
must be told apart, between N and N^2, is 1.
"""
MIN_LENGTHS = 3
"""Two lengths always lie on one line; a third can contradict it."""

VERDICTS = {"constant": 0.0, "linear": 1.0, "quadratic": 2.0}
VERDICT_MARGIN = 0.1


@dataclass(frozen=True)
class Exponent:
    """The p of t ~ N^p over a window of lengths; `low`, `high` bound its 95 % interval.

    `value` and `window` are None with fewer than 3 lengths, `low` and `high` where one unit allows no
    interval. `reason` says in words why the verdict is "undetermined".
    """

    value: float | None
    low: float | None
    high: float | None
    verdict: str
    window: list[int] | None
    units: int
    reason: str | None = None


def unit_table(rows: pd.DataFrame, quantity: str = "median_s") -> pd.DataFrame:
    """Value of each unit at each length: the median over its repetitions.

    Args:
        rows: Rows of one series, with columns `unit`, `seq_len` and the quantity.
        quantity: The column to tabulate.

    Returns:
        One row per unit, one column per length, ascending; NaN where a unit lacks a length.
    """
    table = rows.groupby(["unit", "seq_len"])[quantity].median().unstack("seq_len")
    return table.sort_index(axis=1)


def complete_block(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The largest part of a table in which every unit holds every length, and notes on what it lacks.

    A length measured in one repetition only shall not cost the other lengths their units, nor an interrupted
    repetition the others their lengths: what leaves most values stays, and of equals the one with most units.
    """
    held, blocks = table.notna(), []
    if held.to_numpy().all():
        return table, []
    for least in sorted(set(held.sum()), reverse=True):
        lengths = table.columns[held.sum() >= least]
        blocks.append(table.loc[held[lengths].all(axis=1), lengths])
    block = max(blocks, key=lambda part: part.size) if blocks else table
    gone = ", ".join(str(length) for length in table.columns.difference(block.columns))
    notes = [f"N = {gone} is missing in some units and was not used"] if gone else []
    if len(block) < len(table):
        notes.append(f"only {len(block)} of {len(table)} units hold all lengths, and only they were used")
    return block, notes


@cache
def student_quantile(units: int) -> float:
    """How many standard errors the 95 % interval of the mean of so many units reaches."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, units - 1))


def student_interval(values: Floats) -> tuple[float, float | None, float | None]:
    """Mean of independent values and its Student-t 95 % interval; no interval for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    half = student_quantile(len(values)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def local_slopes(table: pd.DataFrame) -> Floats:
    """Slopes of log time on log N between neighbouring lengths, medians over the units that have both."""
    steps = np.diff(np.log(table.to_numpy(float)), axis=1) / np.diff(np.log(_lengths(table)))
    return np.array(
        [np.median(step[~np.isnan(step)]) if not np.isnan(step).all() else math.nan for step in steps.T]
    )


def flat_window(slopes: Floats) -> int | None:
    """Index of the first length of the window, or None.

    The rule, fixed before any measurement: the window is the longest stretch of lengths that ends at the
    longest one, holds at least 3 lengths, and whose local slopes lie within 0.3 of each other. It ends at the
    longest length because an exponent speaks of growth, and short lengths are where fixed costs hide it.
    """
    for start in range(len(slopes) - MIN_LENGTHS + 2):
        if np.ptp(slopes[start:]) <= SLOPE_TOLERANCE:
            return start
    return None


def estimate_exponent(table: pd.DataFrame) -> Exponent:
    """Exponent of one series: least squares of log time on log N per unit, then mean and interval over units.

    Args:
        table: Seconds per unit (rows) and length (columns), as `unit_table` gives them.

    Returns:
        The exponent over the window of `flat_window`, and a verdict where its interval lies inside 0, 1 or 2
        +- 0.1. Elsewhere the reason names the slopes at both ends of the window: a square that an overhead
        still bends can fit 1.85 with a narrow interval, which only its rising slopes give away. Without a
        flat window the exponent describes the longest 3 lengths only, and is undetermined whatever its
        interval: the units agree on the slopes, but the slopes do not agree on a power.
    """
    table, _ = complete_block(table)
    lengths, slopes = _lengths(table), local_slopes(table)
    if len(lengths) < MIN_LENGTHS:
        found = "only one length was" if len(lengths) == 1 else f"only {len(lengths)} lengths were"
        return _no_exponent(table, f"{found} measured, and an exponent needs {MIN_LENGTHS}")
    flat = flat_window(slopes)
    start = len(lengths) - MIN_LENGTHS if flat is None else flat
    logs = np.log(table.to_numpy(dtype=float)[:, start:])
    value, low, high = student_interval(np.polyfit(np.log(lengths[start:]), logs.T, 1)[0])
    verdict, reason = _verdict(low, high, slopes[start], slopes[-1])
    if flat is None:
        last = ", then ".join(f"{slope:.2f}" for slope in slopes[start:])
        verdict, reason = "undetermined", f"the slope still changes at the longest lengths: {last}"
    return Exponent(value, low, high, verdict, [int(lengths[start]), int(lengths[-1])], len(table), reason)


def _no_exponent(table: pd.DataFrame, reason: str) -> Exponent:
    return Exponent(None, None, None, "undetermined", None, len(table), reason)


def _verdict(low: float | None, high: float | None, first: float, last: float) -> tuple[str, str | None]:
    if low is None or high is None:
        return "undetermined", "a single unit allows no interval"
    for verdict, exponent in VERDICTS.items():
        if exponent - VERDICT_MARGIN <= low and high <= exponent + VERDICT_MARGIN:
            return verdict, None
    wanted = ", ".join(f"{exponent:g}" for exponent in VERDICTS.values())
    return (
        "undetermined",
        f"the interval [{low:.2f}, {high:.2f}] does not lie within {VERDICT_MARGIN} of any of {wanted}; "
        f"the slope goes from {first:.2f} to {last:.2f} over the window",
    )


def count_exponent(lengths: Floats, counts: Floats) -> float | None:
    """Slope between the two longest lengths of a quantity without noise, such as FLOPs or bytes.

    The longest, because lower-order terms of a count fade with N and nothing has to be averaged away.
    """
    known = np.isfinite(counts) & (counts > 0)
    if known.sum() < 2:
        return None
    (short, long), (few, many) = lengths[known][-2:], counts[known][-2:]
    return float(np.log(many / few) / np.log(long / short))


def _lengths(table: pd.DataFrame) -> Floats:
    return table.columns.to_numpy(dtype=float)
