"""The noise of lines over commits: of single values, and over long stretches.

Values of neighbouring commits are alike (the machine's state lasts), some rest on more runs than others, and
single runs go astray.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.analysis.scaling.units import Floats

SPREAD_OF_MEDIAN = 1.4826
"""Standard deviation of normal values over their median absolute deviation."""
INFORMATION = 0.37
"""Degrees of freedom of each value: the relative efficiency of the median absolute deviation."""
LINES_TO_POOL, POOLED_FREEDOM = 10, 10.0
"""From so many lines on, their typical noise counts in each of them as much as so many degrees of freedom."""
JUMP = 3.0
"""A difference of neighbours beyond so many of its standard deviations is no noise."""
STRETCH = 8
"""Commits over which the wander is judged: the least that a step has on its shorter side is about as many."""
UNKNOWN_GROWTH = 1.5
"""The growth where there are too few commits to tell: autocorrelated noise, 0.4 between neighbours."""
ALLOWANCE = 1.5
"""Standard errors of the wander that are allowed for."""
MOST_OWN = 2.0
"""The wander of a single line counts at most so many times that of the other lines."""
LEAST_NOISE = 1e-3
"""No machine repeats itself more exactly, however alike a few runs may look."""


@dataclass(frozen=True)
class Noise:
    """The noise of one line: standard deviation of a value of weight 1, and over long stretches.

    `freedom` is the degrees of freedom of the Student distribution that allows for its being estimated.
    """

    short: float
    long: float
    freedom: float


def with_values(noise: Noise, more: int) -> Noise:
    """The noise as it would be known from so many values more."""
    return replace(noise, freedom=noise.freedom + INFORMATION * more)


def estimate_noises(
    lines: Sequence[tuple[Floats, Floats]], floor: float = 0.0, growth: float | None = None
) -> list[Noise]:
    """The noise of each line; where there are many lines, what is typical of them counts in each.

    The noise of single values is judged by the differences of neighbours, on which steps, being few, have no
    influence. What it is over long stretches, the wander of the machine and the autocorrelation of runs, is
    judged by the differences between neighbouring stretches after jumps have been taken out.

    Args:
        lines: Values and weights of each; a value of weight w has the variance of w averaged ones.
        floor: The least noise of a single value, where other lines tell it.
        growth: How much larger the noise of long stretches is than that of single values, likewise.
    """
    short = np.array([spread(_differences(*line)) for line in lines])
    freedom = np.array([max(1.0, INFORMATION * (len(values) - 1)) for values, _ in lines])
    pooled = len(lines) >= LINES_TO_POOL
    if pooled:
        typical = float(np.median(short))
        short = np.sqrt((freedom * short**2 + POOLED_FREEDOM * typical**2) / (freedom + POOLED_FREEDOM))
    if pooled or floor:
        freedom = freedom + POOLED_FREEDOM
    short = np.maximum(short, max(floor, LEAST_NOISE))
    growths = [_growth(values, weights, noise) for (values, weights), noise in zip(lines, short, strict=True)]
    if pooled or growth:
        shared = growth or float(np.median(growths))
        # A line's own wander may be a step that its noise hid from view, so it counts within bounds.
        growths = [max(shared, math.sqrt(shared * min(own, MOST_OWN * shared))) for own in growths]
    else:
        # Alone, a line tells its wander so inexactly that standard errors are allowed for.
        growths = [
            own * (1 + ALLOWANCE / math.sqrt(2 * INFORMATION * max(1, len(values) / STRETCH)))
            for own, (values, _) in zip(growths, lines, strict=True)
        ]
    return [
        Noise(float(sigma), float(sigma) * growth, float(degrees))
        for sigma, growth, degrees in zip(short, growths, freedom, strict=True)
    ]


def _differences(values: Floats, weights: Floats) -> Floats:
    """Differences of neighbours, each with the variance of one value of weight 1."""
    return np.asarray(np.diff(values) / np.sqrt(1 / weights[1:] + 1 / weights[:-1]))


def spread(differences: Floats) -> float:
    """The standard deviation of values about zero, whatever a minority of them may be."""
    return SPREAD_OF_MEDIAN * float(np.median(np.abs(differences))) if len(differences) else 0.0


def _growth(values: Floats, weights: Floats, noise: float) -> float:
    """How much larger than by averaging independent values the noise of a stretch of commits is."""
    length = min(STRETCH, len(values) // 4)
    if length < 2:
        return UNKNOWN_GROWTH
    calm = np.where(np.abs(_differences(values, weights)) > JUMP * noise, 0, np.diff(values))
    sums = np.cumsum(np.concatenate([[0.0, 0.0], np.cumsum(calm)]))
    means = (sums[length:] - sums[:-length]) / length
    expected = noise * math.sqrt(2 * float(np.mean(1 / weights)) / length)
    return max(1.0, spread(means[length:] - means[:-length]) / expected)
