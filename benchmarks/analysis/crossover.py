"""From which length on one kernel beats another, with an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.analysis.scaling import complete_block, student_interval, student_quantile

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Crossover:
    """Where a linear and a standard kernel take the same time (or memory).

    Attributes:
        kind: "inside": they change places once, at `n`; "below": linear is ahead at every common length;
            "above": at none; "multiple": they change places more than once; "none": no common lengths.
        n: The crossover N*, None unless inside.
        low: Lower end of its 95 % interval, None unless inside with at least two units.
        high: Upper end of it.
        ahead_beyond: "linear" or "standard", whoever is ahead at the longest common length. Mostly "linear";
            "inside" with "standard" says that linear is ahead only below `n`.
        lengths: Shortest and longest common length.
        within_noise: Common lengths where the interval of the ratio holds 1, so that nobody is surely ahead.
        units: Paired units.
        notes: What a reader should know about the interval.
    """

    kind: str
    n: float | None = None
    low: float | None = None
    high: float | None = None
    ahead_beyond: str | None = None
    lengths: list[int] | None = None
    within_noise: list[int] = field(default_factory=list)
    units: int = 0
    notes: list[str] = field(default_factory=list)


def find_crossover(linear: pd.DataFrame, standard: pd.DataFrame, *, exact: bool = False) -> Crossover:
    """Compare two kernels unit by unit.

    Both were measured in the same units, so what slows a whole unit cancels in its log-ratio
    log(linear/standard). The ratio is interpolated linearly over log N, and the crossover is the zero of the
    mean over the units.

    The interval is the stretch around that zero where the Student-t 95 % interval of the mean log-ratio holds
    0: the lengths at which the data do not say who is ahead (Fieller's construction). Resampling the units
    instead would be no substitute: three units have 27 resamples, and their percentiles fall short of 95 % by
    far.

    Args:
        linear: Positive values per unit (rows) and length (columns) of the linear kernel.
        standard: The same of the standard kernel.
        exact: The values have no noise, so `low` and `high` equal `n` even for a single unit.

    Returns:
        The crossover within the common lengths; nothing is extrapolated.
    """
    common = linear.columns.intersection(standard.columns).sort_values()
    if not len(common):
        return Crossover("none")
    table, notes = _ratios(linear[common], standard[common])
    lengths, ratios = table.columns.to_numpy(dtype=float), np.log(table.to_numpy(dtype=float))
    mean = ratios.mean(axis=0)
    ahead = mean < 0
    changes = np.flatnonzero(ahead[1:] != ahead[:-1])
    kind = {0: "below" if ahead[0] else "above", 1: "inside"}.get(len(changes), "multiple")
    n = low = high = None
    if kind == "inside":
        x = np.log(lengths)
        before = int(changes[0])
        share = mean[before] / (mean[before] - mean[before + 1])
        zero = float(x[before] + share * (x[before + 1] - x[before]))
        n = math.exp(zero)
        if exact:
            low = high = n
        elif len(ratios) > 1:
            left, right = _stretch_in_doubt(x, ratios, zero)
            low, high = math.exp(max(left, x[0])), math.exp(min(right, x[-1]))
            notes += _say_where_clipped(left, right, lengths)
    return Crossover(
        kind, n, low, high,
        ahead_beyond="linear" if ahead[-1] else "standard",
        lengths=[int(lengths[0]), int(lengths[-1])],
        within_noise=[int(n) for n, column in zip(lengths, ratios.T, strict=True) if _holds_zero(column)],
        units=len(ratios),
        notes=notes,
    )  # fmt: skip


def _ratios(linear: pd.DataFrame, standard: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Ratios per unit and length, as many as are complete."""
    block, notes = complete_block((linear / standard).dropna(how="all"))
    if block.size:
        return block, notes
    medians = (linear.median() / standard.median()).to_frame().T
    return medians, ["they share no units, so their medians are compared, without an interval"]


def _holds_zero(ratios: Floats) -> bool:
    _, low, high = student_interval(ratios)
    return low is not None and high is not None and low <= 0 <= high


def _stretch_in_doubt(x: Floats, ratios: Floats, zero: float) -> tuple[float, float]:
    """Ends of the stretch around `zero` where the mean's interval holds 0; infinite where there is none."""
    units = len(ratios)
    scale = student_quantile(units) ** 2 / units
    edges: list[float] = []
    for left, right, start, end in zip(x[:-1], x[1:], ratios.T[:-1], ratios.T[1:], strict=True):
        # Between two lengths, w from 0 to 1, each unit is start + w rise; its interval's edge touches 0 where
        # mean^2 = scale variance, which is quadratic in w.
        rise = end - start
        cov = np.cov(start, rise)
        a = rise.mean() ** 2 - scale * cov[1, 1]
        b = 2 * (start.mean() * rise.mean() - scale * cov[0, 1])
        c = start.mean() ** 2 - scale * cov[0, 0]
        roots = np.roots([a, b, c])
        # Without spread the two edges fall on the zero itself, and rounding may push them off the real axis.
        real = roots.real[np.abs(roots.imag) < 1e-6]
        edges += [left + w * (right - left) for w in real if -1e-9 <= w <= 1 + 1e-9]
    slack = 1e-6
    low = max((edge for edge in edges if edge <= zero + slack), default=-math.inf)
    high = min((edge for edge in edges if edge >= zero - slack), default=math.inf)
    return min(low, zero), max(high, zero)


def _say_where_clipped(left: float, right: float, lengths: Floats) -> list[str]:
    ends = [(left == -math.inf, lengths[0], "shortest"), (right == math.inf, lengths[-1], "longest")]
    return [
        f"the interval reaches the {which} common length, N = {int(length)}, and is clipped there"
        for clipped, length, which in ends
        if clipped
    ]
