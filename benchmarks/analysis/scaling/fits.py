"""Least-squares fits of t = c + a N^p to the logs of times."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from benchmarks.analysis.scaling.units import Floats

POWERS = (0.25, 3.0)
"""The least and the largest free power that is tried."""
GRID = 12, 41
"""Powers and offsets of the coarse search, whose best point is then refined."""
NEGLIGIBLE = np.log(1000)
"""The log-ratio of the two terms up to which the coarse search goes, at every length."""
INDIFFERENT = 1e-5
"""The rise of the error up to which a coefficient is taken to be zero."""


class Fit(NamedTuple):
    """A fitted t = c + a N^p.

    Attributes:
        c: In seconds, >= 0.
        a: In seconds per token^power, >= 0.
        power: The p.
        error: Root mean square of the log-errors; 0.05 is 5 %.
        residuals: The log-errors, [lengths].
        tangent: How log t changes with the coefficients that are free, [lengths, coefficients]: its level,
            then log(c / a) unless one of them is zero, then the power unless it was given or ran to the edge.
    """

    c: float
    a: float
    power: float
    error: float
    residuals: Floats
    tangent: Floats


def fit_sum(lengths: Floats, seconds: Floats, power: float | None = None) -> Fit:
    """Fit t = c + a N^power with c, a >= 0.

    The squares of the log-errors are least. With absolute errors the longest length would decide alone; and
    the log weighs half and double alike, where (fit - t) / t would favour fits that are too low.

    Args:
        lengths: Ascending lengths in tokens, more of them than free coefficients.
        seconds: Their times.
        power: The p of the law; 0 leaves the constant alone, and None lets it be free between 0.25 and 3.
    """
    logs, times = np.log(lengths), np.log(seconds)
    middle = float(logs.mean())
    x = logs - middle
    if power == 0:
        return _constant(x, times)
    free = power is None
    fits = [_constant(x, times), _without_constant(x, times, power)]
    offset, found = _search(x, times, power)
    offset, found = _refine(x, times, offset, found, free)
    if free and not POWERS[0] < found < POWERS[1]:
        found, free = float(np.clip(found, *POWERS)), False
        offset, found = _refine(x, times, offset, found, free)
    weight = special.expit(offset - found * x)
    columns = [weight, (1 - weight) * x][: 1 + free]
    fits.append(_fit(x, times, float(special.expit(offset)), found, columns))
    best = min(fits, key=lambda fit: fit.error + INDIFFERENT * fit.tangent.shape[1])
    return best._replace(a=float(best.a * np.exp(-best.power * middle)))


def fit_power(lengths: Floats, seconds: Floats) -> Fit:
    """Fit t = a N^p, where p is any number, by the least squares of the log-errors."""
    logs = np.log(lengths)
    middle = float(logs.mean())
    x, times = logs - middle, np.log(seconds)
    fit = _fit(x, times, 0.0, float(x @ times / (x @ x)), [x])
    return fit._replace(a=float(fit.a * np.exp(-fit.power * middle)))


def _constant(x: Floats, times: Floats) -> Fit:
    return _fit(x, times, 1.0, 0.0, [])


def _without_constant(x: Floats, times: Floats, power: float | None) -> Fit:
    if power is not None:
        return _fit(x, times, 0.0, power, [])
    slope = float(x @ times / (x @ x))
    is_inside = POWERS[0] < slope < POWERS[1]
    return _fit(x, times, 0.0, float(np.clip(slope, *POWERS)), [x] if is_inside else [])


def _fit(x: Floats, times: Floats, share: float, power: float, columns: list[Floats]) -> Fit:
    """The fit of a shape, whose `share` is that of the constant at the middle of the lengths."""
    remains = times - np.log((1 - share) * np.exp(power * x) + share)
    # Sums rather than means, here and below: of so few numbers, a mean takes numpy far longer to set up.
    level = float(remains.sum() / len(x))
    residuals, tangent = remains - level, np.array([np.ones_like(x), *columns]).T
    error, scale = math.sqrt((residuals**2).sum() / len(x)), float(np.exp(level))
    return Fit(share * scale, (1 - share) * scale, power, error, residuals, tangent)


@lru_cache(maxsize=256)
def _grid(x: tuple[float, ...], power: float | None) -> tuple[Floats, Floats, Floats]:
    """Powers, offsets, and for each pair of them the shape log(N^p + e^offset), less its mean."""
    powers = np.linspace(*POWERS, GRID[0]) if power is None else np.array([power])
    reach = powers[-1] * np.abs(x).max() + NEGLIGIBLE
    offsets = np.linspace(-reach, reach, GRID[1])
    shapes = np.logaddexp(np.multiply.outer(powers, x)[:, None], offsets[:, None])
    return powers, offsets, shapes - shapes.mean(axis=2, keepdims=True)


def _search(x: Floats, times: Floats, power: float | None) -> tuple[float, float]:
    """The best shape on a coarse grid."""
    powers, offsets, shapes = _grid(tuple(x.tolist()), power)
    errors = ((times - times.mean() - shapes) ** 2).sum(axis=2)
    at_power, at_offset = divmod(int(errors.argmin()), len(offsets))
    return float(offsets[at_offset]), float(powers[at_power])


def _refine(x: Floats, times: Floats, offset: float, power: float, free: bool) -> tuple[float, float]:
    """The best shape near a given one, by the method of Levenberg and Marquardt."""

    def residuals(shape: Floats) -> Floats:
        remains = times - np.logaddexp((shape[1] if free else power) * x, shape[0])
        return np.asarray(remains - remains.sum() / len(x))

    def jacobian(shape: Floats) -> Floats:
        weight = special.expit(shape[0] - (shape[1] if free else power) * x)
        columns = np.array([weight, (1 - weight) * x][: 1 + free])
        return np.asarray(columns.sum(axis=1, keepdims=True) / len(x) - columns)

    start = np.array([offset, power][: 1 + free])
    # least_squares takes thrice as long to set up as these few numbers take to fit. Where no better place is
    # to be found, leastsq warns and is right; it runs off where a term is zero, which the boundary fits hold.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found, _ = optimize.leastsq(residuals, start, Dfun=jacobian, col_deriv=True, ftol=1e-10, xtol=1e-10)
    return float(found[0]), float(found[1]) if free else power
