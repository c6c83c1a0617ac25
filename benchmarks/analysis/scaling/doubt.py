"""Where a crossover may lie: the lengths at which the units, or what they leave unmeasured, decide nothing.

Places are natural logarithms of lengths; ratios are logarithms of linear over standard, a row a unit.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline, make_interp_spline
from scipy.optimize import brentq

from benchmarks.analysis.scaling.units import Floats, half_width

RESOLUTION = math.log(1.05)
"""How well two lengths, one the double of the other, can tell the log of a crossover between them.

Kernels work in tiles, so that their times are staircases, and fixed costs bend the ratio: no line through
two times tells what it does between them.
"""
POINTS_PER_STEP = 32
"""Places tried between two lengths in search of the ends of an interval, before the ends are refined."""


def least_stretch(x: Floats, mean: Floats, before: int, zero: float) -> tuple[float, float]:
    """The stretch around a zero of the mean log-ratio that no number of units narrows.

    It is 5 % either way where lengths double, and less in the proportion in which they lie closer, around the
    zero of the line and that of the sharpest bend. Two lengths alone tell nothing of what lies between them.

    Args:
        x: Places of the measured lengths, ascending.
        mean: The mean log-ratio at each.
        before: Index of the length before the zero.
        zero: The zero of the line between it and the next one.
    """
    if len(x) < 3:
        return float(x[0]), float(x[1])
    resolved = RESOLUTION * float(x[before + 1] - x[before]) / math.log(2)
    bent = _zero_of_a_kink(x, mean, before, zero)
    return min(zero, bent) - resolved, max(zero, bent) + resolved


def stretch_in_doubt(
    x: Floats, ratios: Floats, before: int, least: tuple[float, float], unseen: float
) -> tuple[float, float]:
    """The stretch around a zero in which the Student-t 95 % interval of the mean log-ratio holds 0.

    This is Fieller's construction. Resampling the units instead would be no substitute: three units have 27
    resamples, and their percentiles fall short of 95 % by far.

    What the ratio does between two lengths is not measured, and no number of units tells. Fixed costs bend
    it, so that a straight line misses the crossover by up to 5 % and a cubic spline by less than 1 %; where a
    cache overflows it steps, and the spline swings while the line is right. So the stretch holds those of
    both, and the least one.

    Args:
        x: Places of the measured lengths, ascending.
        ratios: The log-ratios, of shape (units, lengths).
        before: Index of the length before the zero.
        least: What `least_stretch` gives.
        unseen: Standard deviation of what all units share, per log value of either kernel.

    Returns:
        Its ends; infinite where the measured lengths hold none.
    """
    stretches = [least, *(_stretch(x, ratios, before, degree, unseen) for degree in (1, min(3, len(x) - 1)))]
    return min(low for low, _ in stretches), max(high for _, high in stretches)


def within_noise(ratios: Floats, unseen: float) -> NDArray[np.bool_]:
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


def _stretch(x: Floats, ratios: Floats, before: int, degree: int, unseen: float) -> tuple[float, float]:
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
