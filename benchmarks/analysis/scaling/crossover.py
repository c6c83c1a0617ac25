"""The length from which on one kernel beats another, with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.interpolate import BSpline, make_interp_spline
from scipy.optimize import brentq

from benchmarks.analysis.scaling.units import complete_block, half_width, numbers

Floats = NDArray[np.float64]
Kind = Literal["inside", "below", "above", "multiple", "none"]

RESOLUTION = math.log(1.05)
"""How well two lengths, one the double of the other, can tell the log of a crossover between them.

Kernels work in tiles, so that their times are staircases, and fixed costs bend the ratio: no line through
two times tells what it does between them.
"""
POINTS_PER_STEP = 32
"""Places tried between two lengths in search of the ends of an interval, before the ends are refined."""


@dataclass(frozen=True)
class Crossover:
    """Where a linear and a standard kernel take the same time (or memory).

    Attributes:
        kind: "inside": the lead changes once, at `n`; "below": linear is ahead at every common length;
            "above": at none; "multiple": the lead changes more than once; "none": no common lengths.
        n: The crossover N*, None unless inside.
        low: Lower end of its 95 % interval, None unless inside with at least two units.
        high: Upper end of its 95 % interval, likewise.
        ahead_beyond: The kernel that is ahead at the longest common length, mostly "linear"; "inside" with
            "standard" says that linear is ahead only below `n`.
        lengths: Shortest and longest common length, None without any.
        seq_lens: All common lengths.
        ratios: Standard over linear at each of `seq_lens`: the geometric mean over the paired units, which is
            above 1 where linear is ahead; None where no unit holds both. The crossover is where it is 1.
        within_noise: Common lengths where the interval of the ratio holds 1, so that neither is surely ahead.
        resolution: Half of the width, relative to `n`, that its interval has whatever the units say: what the
            lengths beside it leave open. None unless inside.
        units: Number of paired units.
        notes: What a reader should know about the interval.
    """

    kind: Kind
    n: float | None = None
    low: float | None = None
    high: float | None = None
    ahead_beyond: Literal["linear", "standard"] | None = None
    lengths: tuple[int, int] | None = None
    seq_lens: list[int] = field(default_factory=list)
    ratios: list[float | None] = field(default_factory=list)
    within_noise: list[int] = field(default_factory=list)
    resolution: float | None = None
    units: int = 0
    notes: list[str] = field(default_factory=list)


def find_crossover(
    linear: pd.DataFrame, standard: pd.DataFrame, *, exact: bool = False, unseen: float = 0.0
) -> Crossover:
    """Compare two kernels unit by unit.

    Both were measured in the same units, so what slows all of a unit cancels in its log-ratio
    log(linear/standard). The ratio is interpolated linearly over log N, and the crossover is the zero of the
    mean over the units.

    The interval is the stretch around that zero where the Student-t 95 % interval of the mean log-ratio holds
    0: the lengths at which the data do not say who is ahead (Fieller's construction). Resampling the units
    instead would be no substitute: three units have 27 resamples, and their percentiles fall short of 95 % by
    far.

    What the ratio does between two lengths is not measured, and no number of units tells. Fixed costs bend
    it, so that a straight line misses the crossover by up to 5 % and a cubic spline by less than 1 %; where
    a cache overflows it steps, and the spline swings while the line is right. So the interval holds the
    stretches of both. For pure powers they agree, and it is hardly wider than that of the line alone. Nor is
    the interval ever narrower than the measured lengths can resolve: 5 % either way where they double, and
    less in the proportion in which they lie closer.

    Args:
        linear: Positive values per unit (rows) and length (columns) of the linear kernel.
        standard: Positive values of the standard kernel, likewise.
        exact: The values have no noise, so that a single unit has an interval, that of the resolution.
        unseen: Standard deviation of what all units share, per log value: for the repetitions of one run, the
            effect of the run on each of its cases.

    Returns:
        The crossover within the common lengths; nothing is extrapolated.
    """
    common = linear.columns.intersection(standard.columns).sort_values()
    if not len(common):
        return Crossover("none")
    linear, standard = linear[common], standard[common]
    table, notes = _ratios(linear, standard)
    lengths, ratios = table.columns.to_numpy(dtype=float), np.log(table.to_numpy(dtype=float))
    mean = ratios.mean(axis=0)
    ahead = mean < 0
    kind = _kind(ahead)
    n = low = high = resolution = None
    if kind == "inside":
        x = np.log(lengths)
        before = int(np.argmax(ahead[1:] != ahead[:-1]))
        share = mean[before] / (mean[before] - mean[before + 1])
        zero = float(x[before] + share * (x[before + 1] - x[before]))
        n = math.exp(zero)
        resolved = RESOLUTION * float(x[before + 1] - x[before]) / math.log(2)
        bent = _zero_of_a_kink(x, mean, before, zero)
        # Two lengths alone tell nothing of what the ratio does between them.
        ends = (min(zero, bent) - resolved, max(zero, bent) + resolved) if len(x) > 2 else (x[0], x[1])
        stretches = [(float(ends[0]), float(ends[1]))]
        resolution = (math.exp(stretches[0][1]) - math.exp(stretches[0][0])) / (2 * n)
        if not exact and len(ratios) > 1:
            stretches += [
                _stretch_in_doubt(x, ratios, before, degree, unseen) for degree in (1, min(3, len(x) - 1))
            ]
        if exact or len(ratios) > 1:
            left, right = min(low for low, _ in stretches), max(high for _, high in stretches)
            low, high = math.exp(max(left, x[0])), math.exp(min(right, x[-1]))
            notes += _say_where_clipped(left, right, lengths)
    return Crossover(
        kind, n, low, high,
        ahead_beyond="linear" if ahead[-1] else "standard",
        lengths=(int(lengths[0]), int(lengths[-1])),
        seq_lens=[int(length) for length in common],
        ratios=_shown(table, linear, standard),
        within_noise=[int(length) for length in lengths[_within_noise(ratios, unseen)]],
        resolution=resolution,
        units=len(ratios),
        notes=notes,
    )  # fmt: skip


def _kind(ahead: NDArray[np.bool_]) -> Kind:
    """The kind of a crossover, from whether linear is ahead at each length."""
    changes = np.count_nonzero(ahead[1:] != ahead[:-1])
    if changes:
        return "inside" if changes == 1 else "multiple"
    return "below" if ahead[0] else "above"


def _ratios(linear: pd.DataFrame, standard: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Linear over standard per unit and length, as far as they are complete, and notes on what is missing."""
    ratios = linear / standard
    block, notes = complete_block(ratios[~np.isnan(ratios.to_numpy(float)).all(axis=1)])
    if block.size:
        return block, notes
    medians = (linear.median() / standard.median()).to_frame().T
    return medians, ["they share no units, so their medians are compared, without an interval"]


def _shown(table: pd.DataFrame, linear: pd.DataFrame, standard: pd.DataFrame) -> list[float | None]:
    """Standard over linear at every length; where some units lack one, over the units that hold it."""
    if len(table.columns) == len(linear.columns):
        return numbers(np.exp(-np.log(table.to_numpy(dtype=float)).mean(axis=0)))
    others = np.exp(np.log(standard / linear).mean())
    ratios = np.exp(-np.log(table).mean()).combine_first(others)
    return numbers(ratios[linear.columns])


def _within_noise(ratios: Floats, unseen: float) -> NDArray[np.bool_]:
    """Whether the interval of the mean log-ratio holds 0, at each length."""
    if len(ratios) < 2:
        return np.zeros(ratios.shape[1], dtype=bool)
    half = _half_width(ratios.var(axis=0, ddof=1), len(ratios), 1.0, unseen)
    return np.asarray(np.abs(ratios.mean(axis=0)) <= half)


def _half_width(variance: Floats, units: int, weight: float | Floats, unseen: float) -> Floats:
    """How far the interval of a mean log-ratio reaches, or of a sum of them with these squared weights.

    Either kernel of a ratio has an effect of its own that all units share.
    """
    return half_width((variance / units, units - 1), (2 * unseen**2 * weight, math.inf))


@cache
def _interpolation(x: tuple[float, ...], degree: int) -> tuple[BSpline, Floats, Floats]:
    """A spline that gives the weight of each measured place anywhere, a fine grid, and the weights on it."""
    weights: BSpline = make_interp_spline(x, np.eye(len(x)), k=degree)
    steps = np.arange((len(x) - 1) * POINTS_PER_STEP + 1) / POINTS_PER_STEP
    grid = np.interp(steps, np.arange(len(x)), x)
    return weights, grid, weights(grid)


def _stretch_in_doubt(
    x: Floats, ratios: Floats, before: int, degree: int, unseen: float
) -> tuple[float, float]:
    """The stretch around a zero of the mean log-ratio in which its interval holds 0, infinite without an end.

    The zero lies between the places `before` and `before + 1`. The ratios are interpolated by the spline of
    this degree, whose weights depend on the lengths alone, so that the interpolated units have the
    interpolated mean.
    """
    weights, grid, weights_on_grid = _interpolation(tuple(x.tolist()), degree)
    mean, cov = ratios.mean(axis=0), np.cov(ratios.T)

    def excess(at: Floats) -> Floats:
        """A number above 0 where one kernel is surely ahead."""
        variance, weight = (at @ cov * at).sum(axis=-1), (at**2).sum(axis=-1)
        return np.asarray(np.abs(at @ mean) - _half_width(variance, len(ratios), weight, unseen))

    def end(sure: NDArray[np.intp], outward: int) -> float | None:
        if not len(sure):
            return None
        outside = int(sure[0])
        inside = grid[outside - outward]
        inside = max(inside, zero) if outward > 0 else min(inside, zero)
        # Without spread the stretch is the zero itself, where rounding decides about the sign.
        if excess(weights(inside)) >= 0:
            return float(inside)
        return float(brentq(lambda place: float(excess(weights(place))), inside, grid[outside], xtol=1e-9))

    ends = [float(weights(place) @ mean) for place in x[before : before + 2]]
    if ends[0] * ends[1] < 0:
        zero = float(brentq(lambda place: weights(place) @ mean, x[before], x[before + 1], xtol=1e-13))
    else:  # a tie at a measured length, but for rounding
        zero = float(x[before + int(abs(ends[1]) < abs(ends[0]))])
    sure = excess(weights_on_grid) > 0
    low = end(np.flatnonzero(sure & (grid < zero))[::-1], -1)
    high = end(np.flatnonzero(sure & (grid > zero)), 1)
    return -math.inf if low is None else low, math.inf if high is None else high


def _zero_of_a_kink(x: Floats, mean: Floats, before: int, zero: float) -> float:
    """Where the log-ratio is zero if it bends as sharply as it may between `before` and the next length.

    Where launching a call takes longer than its work, time has a kink. If the slopes go one way from the step
    before through this one to the step after, the ratio is taken to be convex, or concave: it then lies
    between the line, whose zero is given, and the extensions of its neighbours. At either end of the lengths
    there is one neighbour only.
    """
    if len(x) < 3:
        return zero
    after = before + 1
    falling = np.sign(mean[before]) * mean
    slopes = np.diff(falling) / np.diff(x)
    left = slopes[before - 1] if before else None
    right = slopes[after] if after < len(slopes) else None
    here = slopes[before]
    from_left = x[before] - falling[before] / left if left is not None and left < 0 else math.inf
    from_right = x[after] - falling[after] / right if right is not None and right < 0 else -math.inf
    if (left is None or left <= here) and (right is None or here <= right):
        return float(max(x[before], from_right, from_left if from_left < zero else x[before]))
    if (left is None or left >= here) and (right is None or here >= right):
        return float(min(x[after], from_left, from_right if from_right > zero else x[after]))
    return zero


def _say_where_clipped(left: float, right: float, lengths: Floats) -> list[str]:
    ends = [(left == -math.inf, lengths[0], "shortest"), (right == math.inf, lengths[-1], "longest")]
    return [
        f"the interval reaches the {which} common length, N = {int(length)}, and is clipped there"
        for clipped, length, which in ends
        if clipped
    ]
