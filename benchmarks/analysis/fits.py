"""Fits of stated laws, t = a N^p + b, by their relative errors."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize

from benchmarks.analysis.scaling import MIN_LENGTHS, Floats

POWERS = np.linspace(0.25, 3, 56)
"""Where a free power is searched."""
NEGLIGIBLE = math.log(1000)
"""A term that is everywhere smaller than the other by this log-ratio cannot be told from none."""


def fit_law(lengths: Floats, seconds: Floats, power: float) -> dict[str, Any] | None:
    """Fit t = a N^power + b with a, b >= 0.

    The squares of the log-errors are least. With absolute errors the longest length would decide alone; and
    the log weighs half and double alike, where (fit - t) / t would favour fits that are too low.

    Args:
        lengths: Ascending lengths in tokens.
        seconds: Their times.
        power: The p of the law.

    Returns:
        `a` (s per token^power), `b` (s), `r2` (share of the variance of log t that the law explains, None
        where there is none), `relative_error` (root mean square of the log-errors; 0.05 is 5 %); or None for
        fewer than 3 lengths, where two coefficients leave nothing to judge them by.
    """
    if len(lengths) < MIN_LENGTHS:
        return None
    fit = _fit(lengths, seconds, np.array([power]))
    variance = float(np.var(np.log(seconds)))
    r2 = 1 - fit.error**2 / variance if variance > 1e-12 else None
    return {"a": fit.a, "b": fit.b, "r2": r2, "relative_error": fit.error}


def estimate_overhead(lengths: Floats, seconds: Floats) -> float | None:
    """The c in seconds of t = c + a N^p with all three free.

    Returns:
        c >= 0; or None where it cannot be told: three coefficients need 4 lengths, and a power at the edge of
        what is searched, 0.25 to 3, says that the law does not describe the times, or that c and a N^p look
        alike.
    """
    if len(lengths) < MIN_LENGTHS + 1:
        return None
    fit = _fit(lengths, seconds, POWERS)
    return fit.b if POWERS[0] + 0.01 < fit.power < POWERS[-1] - 0.01 else None


class _Fit(NamedTuple):
    a: float
    b: float
    power: float
    error: float


def _fit(lengths: Floats, seconds: Floats, powers: Floats) -> _Fit:
    """Search the law's shape, log(N^p + e^k), on a grid, and refine it; the level is the mean remainder."""
    times, middle = np.log(seconds), float(np.mean(np.log(lengths)))
    x = np.log(lengths) - middle
    reach = powers[-1] * np.abs(x).max() + NEGLIGIBLE
    offsets = np.linspace(-reach, reach, 81)
    errors = np.std(times - np.logaddexp(powers[:, None, None] * x, offsets[:, None]), axis=2)
    at_power, at_offset = np.unravel_index(np.argmin(errors), errors.shape)
    step = 1e-9 + np.diff(powers).max(initial=0)

    def residuals(shape: Floats) -> Floats:
        remains = times - np.logaddexp(shape[1] * x, shape[0])
        return np.asarray(remains - remains.mean(), dtype=float)

    start = np.array([offsets[at_offset], powers[at_power]])
    room = np.array([offsets[1] - offsets[0], step])
    near = (start - room, start + room)
    refined = optimize.least_squares(residuals, start, bounds=near, xtol=1e-12, ftol=1e-12, gtol=1e-15)
    offset, power = map(float, refined.x)
    if offset < power * x[0] - NEGLIGIBLE:
        offset = -math.inf
    remains = times - np.logaddexp(power * x, offset)
    level = float(np.mean(remains))
    return _Fit(math.exp(level - power * middle), math.exp(level + offset), power, float(np.std(remains)))
