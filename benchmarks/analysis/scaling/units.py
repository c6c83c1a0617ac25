"""Tables of units, their intervals, and the local slopes of time over length.

Rounds of one process are not independent, so nothing here looks at rounds. It looks at *units*, the runs or,
with a single run, its repetitions: a table of one row per unit and one column per length, in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
MIN_LENGTHS = 3
"""Two lengths always lie on one line; a third can contradict it."""


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

    The part has the most values, and of equals the most units: a length measured in one repetition only shall
    not cost the other lengths their units, nor an interrupted repetition the others their lengths.
    """
    # Most tables are complete, and numpy tells so ten times as fast as pandas.
    if not np.isnan(table.to_numpy(float)).any():
        return table, []
    held, blocks = table.notna(), []
    for least in sorted(set(held.sum()), reverse=True):
        lengths = table.columns[held.sum() >= least]
        blocks.append(table.loc[held[lengths].all(axis=1), lengths])
    block = max(blocks, key=lambda part: part.size) if blocks else table
    gone = ", ".join(str(length) for length in table.columns.difference(block.columns))
    notes = [f"N = {gone} is missing in some units and was not used"] if gone else []
    if len(block) < len(table):
        notes.append(f"only {len(block)} of {len(table)} units hold all lengths, and only they were used")
    return block, notes


def student_quantile(units: int) -> float:
    """The half-width of the 95 % interval of the mean of so many units, in standard errors."""
    return float(special.stdtrit(units - 1, (1 + CONFIDENCE) / 2))


def half_width(*parts: tuple[ArrayLike, ArrayLike]) -> Floats:
    """How far the 95 % interval of a mean reaches to either side.

    Args:
        parts: Independent variances of the mean, each with its degrees of freedom, which are infinite where
            the variance is known. Their sum has those of Satterthwaite (Biometrics Bulletin 2, 110, 1946).
    """
    total: Floats = np.zeros(())
    doubt: Floats = np.zeros(())
    for variance, freedom in parts:
        own = np.maximum(np.asarray(variance, dtype=float), 0.0)
        total, doubt = total + own, doubt + own**2 / np.asarray(freedom, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = np.where(doubt > 0, total**2 / doubt, np.inf)
    return np.asarray(special.stdtrit(whole, (1 + CONFIDENCE) / 2) * np.sqrt(total))


def student_interval(values: Floats, *parts: tuple[float, float]) -> tuple[float, float | None, float | None]:
    """Mean of independent values and its Student-t 95 % interval; no interval for a single value.

    Args:
        values: One per unit.
        parts: Further variances of the mean that do not show between the units, as for `half_width`.
    """
    units = len(values)
    mean = float(values.sum() / units)
    if units < 2:
        return mean, None, None
    # Of so few numbers, np.var takes four times as long.
    variance = float(((values - mean) ** 2).sum()) / (units - 1)
    half = float(half_width((variance / units, units - 1), *parts))
    return mean, mean - half, mean + half


def numbers(values: Iterable[float]) -> list[float | None]:
    """Values as Python's floats, None where they are not finite."""
    return [float(value) if math.isfinite(value) else None for value in values]


def local_slopes(table: pd.DataFrame) -> Floats:
    """Slopes of log time on log N between neighbouring lengths, medians over the units that have both."""
    steps = np.diff(np.log(table.to_numpy(float)), axis=1) / np.diff(np.log(_lengths(table)))
    if not np.isnan(steps).any():
        return np.asarray(np.median(steps, axis=0), dtype=float)
    return np.array(
        [np.median(step[~np.isnan(step)]) if not np.isnan(step).all() else math.nan for step in steps.T]
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
