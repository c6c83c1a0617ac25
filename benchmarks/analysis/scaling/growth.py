"""The growth of a series: its slope over a window of lengths, or the power beside its fixed costs."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.analysis.scaling.fits import fit_power
from benchmarks.analysis.scaling.laws import LAWS, Judged, judge
from benchmarks.analysis.scaling.units import MIN_LENGTHS, Floats, student_interval

SLOPE_TOLERANCE = 0.3
"""How far the local slopes of a window may lie apart where noise does not move them.

The time of a real kernel is no pure power: tiles and caches bend its slopes by as much. The smallest
difference that must be told apart, between N and N^2, is 1.
"""
NOISY_RANGE = 5.0
"""The range within which half a dozen median slopes of a power stay in 9 of 10 cases or more.

In standard errors of the slope between two means, which is known no better than from the same few units.
"""
Power = Literal["constant", "linear", "quadratic"]
NAMED_POWERS: dict[Power, float] = {"constant": 0.0, "linear": 1.0, "quadratic": 2.0}
MARGIN = 0.1
"""The distance from a named power up to which an exponent has its name."""
FAR_FROM_TENABLE = 0.005
"""The p-value below which a series is not taken for one of c + a N^p.

It is less than the 0.05 that makes the law untenable, by which 1 in 20 series of that law would get the slope
of a window instead, which their overhead bends. A power is told by exclusion where its law is not so far.
"""
TANGIBLE = 0.05
"""The share of fixed costs in the time that lowers the local slope of N² by 0.1, the margin."""


class Growth(NamedTuple):
    """An exponent from the length of index `start` on; `rise` is how much the slope changes from there on."""

    value: float
    low: float | None
    high: float | None
    start: int
    is_flat: bool
    rise: float = 0.0
    is_rising: bool = False

    @property
    def called(self) -> Power | None:
        """The power whose margin holds the interval."""
        if self.low is None or self.high is None or not self.is_flat:
            return None
        for power, exponent in NAMED_POWERS.items():
            if exponent - MARGIN <= self.low and self.high <= exponent + MARGIN:
                return power
        return None

    @property
    def at_end(self) -> float:
        """The slope at the longest length."""
        return self.value + self.rise / 2

    def rises_out_of(self, power: Power) -> bool:
        """Whether the slope has left the power's margin at the longest length."""
        return self.is_rising and abs(self.at_end - NAMED_POWERS[power]) > MARGIN


class FixedCosts(NamedTuple):
    """The c of t = c + a N^p in seconds, its share of the time at the longest length, and the exponent p."""

    seconds: float
    share: float
    growth: Growth

    @property
    def tangible(self) -> bool:
        """Whether they still bend the growth at the longest length."""
        return self.share >= TANGIBLE


def slope_tolerance(table: pd.DataFrame, unseen: float = 0.0) -> float:
    """How far the local slopes of a power may lie apart: `SLOPE_TOLERANCE`, or more where noise moves them.

    The noise is what the log times of the units show beside a factor on the whole unit, pooled over all
    lengths, as that of a single length is poorly known.

    Args:
        table: Seconds per unit (rows) and length (columns), complete.
        unseen: Standard deviation of what all units share, per log time.
    """
    logs = np.log(table.to_numpy(dtype=float))
    units, lengths = logs.shape
    if units < 2 or lengths < 2:
        return SLOPE_TOLERANCE
    own = logs - logs.mean(axis=0) - (logs - logs.mean(axis=0)).mean(axis=1, keepdims=True)
    variance = float(np.sum(own**2)) / ((units - 1) * (lengths - 1)) / units + unseen**2
    step = float(np.mean(np.diff(np.log(table.columns.to_numpy(dtype=float)))))
    return max(SLOPE_TOLERANCE, NOISY_RANGE * math.sqrt(2 * variance) / step)


def flat_window(slopes: Floats, tolerance: float = SLOPE_TOLERANCE) -> int | None:
    """Index of the first length of the window, or None.

    The rule, fixed before any measurement: the window is the longest stretch of lengths that ends at the
    longest one, holds at least 3 lengths, and whose local slopes lie within a tolerance of each other. It
    ends at the longest length because an exponent speaks of growth, and short lengths are where fixed costs
    hide it.
    """
    for start in range(len(slopes) - MIN_LENGTHS + 2):
        if np.ptp(slopes[start:]) <= tolerance:
            return start
    return None


def over_window(
    block: pd.DataFrame, slopes: Floats, unseen: float = 0.0, tolerance: float | None = None
) -> Growth:
    """The slope of log time on log N over the flat window; without one, over the longest 3 lengths.

    Args:
        block: Seconds per unit (rows) and length (columns), complete.
        slopes: Its local slopes.
        unseen: Standard deviation of what all units share, per log time.
        tolerance: How far the slopes of a flat window may lie apart: that of `slope_tolerance` unless given.
    """
    lengths = block.columns.to_numpy(dtype=float)
    flat = flat_window(slopes, slope_tolerance(block, unseen) if tolerance is None else tolerance)
    start = len(lengths) - MIN_LENGTHS if flat is None else flat
    x, logs = np.log(lengths[start:]), np.log(block.to_numpy(dtype=float)[:, start:])
    mean = logs.mean(axis=0)
    power = _within_slopes(Judged(fit_power(lengths[start:], np.exp(mean)), logs - mean, unseen), x, mean)
    # The derivative of a parabola in log N, at the window's end less at its start.
    bend = 2 * (x[-1] - x[0]) * _curvature(tuple(x.tolist()))
    rise, least, _ = student_interval(logs @ bend, (unseen**2 * float(bend @ bend), math.inf))
    is_rising = least is not None and least > 0 and rise > MARGIN
    return power._replace(start=start, is_flat=flat is not None, rise=rise, is_rising=is_rising)


def _within_slopes(judged: Judged, x: Floats, mean: Floats) -> Growth:
    """The power of a window, whose misfit widens its interval no further than to its local slopes.

    A misfit of three lengths is known so badly that its own interval would hold any power.
    """
    power, (low, high) = _power(judged, 1), judged.interval(1, misfit=False)
    if power.low is None or power.high is None or low is None or high is None:
        return power
    steps = np.diff(mean) / np.diff(x)
    least, most = float(steps.min()) + low, float(steps.max()) + high
    return power._replace(low=max(power.low, least), high=min(power.high, most))


def fixed_costs(block: pd.DataFrame, unseen: float = 0.0) -> FixedCosts | None:
    """The fixed costs by t = c + a N^p, if it is not far from tenable and c, a and p can be told apart."""
    if block.shape[1] < LAWS["free"].least_lengths or not _bends_up(block):
        return None
    judged = judge(block, LAWS["free"], unseen)
    if judged.fit.tangent.shape[1] < 3 or (judged.tenable is False and judged.p_value < FAR_FROM_TENABLE):
        return None
    fit, longest = judged.fit, float(block.columns[-1])
    share = fit.c / (fit.c + fit.a * longest**fit.power)
    return FixedCosts(fit.c, share, _power(judged, 2))


def _bends_up(block: pd.DataFrame) -> bool:
    """Whether log time over log N is convex, which is all that fixed costs do to it."""
    x, logs = np.log(block.columns.to_numpy(dtype=float)), np.log(block.to_numpy(dtype=float))
    return bool(_curvature(tuple(x.tolist())) @ logs.mean(axis=0) > 0)


@lru_cache(maxsize=256)
def _curvature(x: tuple[float, ...]) -> Floats:
    """What each value at these places adds to the square term of the parabola fitted to all of them."""
    return np.asarray(np.linalg.pinv(np.vander(x, 3))[0])


def _power(judged: Judged, coefficient: int) -> Growth:
    """The power of a law with its interval, over all lengths that the law was fitted to."""
    power, (low, high) = judged.fit.power, judged.interval(coefficient)
    if low is None or high is None:
        return Growth(power, None, None, 0, is_flat=True)
    return Growth(power, power + low, power + high, 0, is_flat=True)
