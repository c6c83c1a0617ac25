"""Steps in a line of values over commits: where its level changed, and how sure that is.

Values of neighbouring commits are alike (the machine's state lasts), some rest on more runs than others, and
single runs go astray. The line is therefore the piecewise constant level of least cost, where a value far
off costs no more than a bounded amount, in units of a noise that holds the slow wander of quiet stretches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from scipy import stats

from benchmarks.analysis.scaling.units import CONFIDENCE, Floats

FALSE_ALARMS = 0.01
"""How often a quiet history, all its lines together, may show a step."""
SPREAD_OF_MEDIAN = 1.4826
"""Standard deviation of normal values over their median absolute deviation."""
INFORMATION = 0.37
"""Relative efficiency of that estimate: so many degrees of freedom for each value."""
LINES_TO_POOL, POOLED_FREEDOM = 10, 10.0
"""From so many lines on, their typical noise counts in each of them as much as so many degrees of freedom."""
JUMP = 3.0
"""A difference of neighbours beyond so many of its standard deviations is no noise."""
STRETCH = 8
"""Commits over which the wander is judged: the least that a step has on its shorter side is about as many."""
UNKNOWN_GROWTH = 1.5
"""Where there are too few commits to tell: that of autocorrelated noise, 0.4 between neighbours."""
ALLOWANCE = 1.5
"""Standard errors."""
MOST_OWN = 2.0
"""So many times that of the other lines, the wander of a single line counts at most."""
STRAY = 0.7
"""What one value may cost, in units of the cost of a step.

Above 1/2, so that two values off at the newest end make a step; above 2/3, so that three in the middle do;
below 1 and 2/2, so that one anywhere, or two in the middle, do not.
"""
NEAR = 20
"""So many values at either side of a step tell its size."""
FINENESS, MOST_LEVELS = 8, 20_000
"""Levels that are tried: per standard deviation of one value, and at most."""
LEAST_NOISE = 1e-3
"""No machine repeats itself more exactly, however alike a few runs may look."""


@dataclass(frozen=True)
class Noise:
    """Of one line: of single values, their weight aside, and what it is over long stretches; and its worth.

    `freedom` is the degrees of freedom of the Student distribution that allows for its being estimated.
    """

    short: float
    long: float
    freedom: float


@dataclass(frozen=True)
class Segment:
    """Values of one level, from index `start` to before `stop`: their mean and its standard error."""

    start: int
    stop: int
    level: float
    error: float


def estimate_noises(
    lines: Sequence[tuple[Floats, Floats]], floor: float = 0.0, growth: float | None = None
) -> list[Noise]:
    """The noise of each line, which lines measured in the same runs help each other to know.

    The noise of single values is judged by the differences of neighbours, on which steps, being few, have no
    influence. What it is over long stretches, the wander of the machine and the autocorrelation of runs, is
    judged by the differences between neighbouring stretches after jumps have been taken out.

    Args:
        lines: Values and weights of each; a value of weight w has the variance of w averaged ones.
        floor: The least noise of a single value, where other lines tell it.
        growth: How much larger the noise of long stretches is than that of single values, likewise.
    """
    short = np.array([_spread(_differences(*line)) for line in lines])
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
    """Of neighbours, each with the variance of one value of weight 1."""
    return np.asarray(np.diff(values) / np.sqrt(1 / weights[1:] + 1 / weights[:-1]))


def _spread(differences: Floats) -> float:
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
    return max(1.0, _spread(means[length:] - means[:-length]) / expected)


def step_cost(noise: Noise, places: int, lines: int) -> float:
    """The squared standard score that a step must reach.

    At this score a history of so many lines shows a false step with a probability of at most `FALSE_ALARMS`,
    wherever in the line it may be.
    """
    return _critical(FALSE_ALARMS / (2 * max(1, places - 1) * max(1, lines)), round(noise.freedom, 1)) ** 2


@cache
def _critical(probability: float, freedom: float) -> float:
    return float(stats.t.isf(probability, freedom))


def segments(
    values: Floats, weights: Floats, noise: Noise, *, lines: int = 1, margin: float = 0.0
) -> list[Segment]:
    """The piecewise constant level of least cost.

    Each value costs its squared distance from the level, in units of its variance and at most `STRAY` steps;
    each change of level costs a step. The least cost over all levels and changes is found by dynamic
    programming over a grid of levels, in time proportional to values times levels: the bounded loss of
    Fearnhead and Rigaill, "Changepoint Detection in the Presence of Outliers" (2019), on a grid.

    Args:
        values: In the order of commits.
        weights: Of each.
        noise: As `estimate_noises` gives it.
        lines: How many lines are searched for steps in the same history.
        margin: Steps smaller than this are none, so that a slow drift does not become a staircase.
    """
    cost = step_cost(noise, len(values), lines)
    fine = noise.long / FINENESS
    low, high = float(values.min()), float(values.max())
    levels = np.linspace(low, high, min(MOST_LEVELS, 2 + math.ceil((high - low) / fine)))
    chosen = _cheapest_path(values, weights / noise.long**2, levels, cost)
    starts = [0, *(np.flatnonzero(np.diff(chosen)) + 1).tolist()]
    while True:
        found = [
            _segment(start, stop, values, weights, noise, cost)
            for start, stop in zip(starts, [*starts[1:], len(values)], strict=True)
        ]
        sizes = [abs(after.level - before.level) for before, after in pairwise(found)]
        if min(sizes, default=math.inf) >= margin:
            return found
        del starts[int(np.argmin(sizes)) + 1]


def _cheapest_path(values: Floats, precisions: Floats, levels: Floats, cost: float) -> np.ndarray:
    """The index of each value's level.

    The least cost of all values up to one, if that has the level, is the cost of the value and the lesser of
    two: that of the same level one before, and that of the best level there and a step.
    """
    totals = np.minimum(precisions[:, None] * (values[:, None] - levels) ** 2, STRAY * cost)
    for before, here in pairwise(totals):
        here += np.minimum(before, before[before.argmin()] + cost)
    best, least = totals.argmin(axis=1), totals.min(axis=1)
    path: np.ndarray = best.copy()
    for place in range(len(values) - 2, -1, -1):
        if totals[place, path[place + 1]] <= least[place] + cost:
            path[place] = path[place + 1]
    return path


def _segment(start: int, stop: int, values: Floats, weights: Floats, noise: Noise, cost: float) -> Segment:
    """Its level is the mean of the values that are not astray."""
    own, weight = values[start:stop], weights[start:stop]
    near = weight * (own - np.median(own)) ** 2 <= STRAY * cost * noise.long**2
    kept = np.where(near, weight, 0.0)
    if not near.any():
        kept = weight
    level = float(np.average(own, weights=kept))
    return Segment(start, stop, level, noise.long / math.sqrt(float(kept.sum())))


def around(
    values: Floats, weights: Floats, noise: Noise, lines: int, old: Segment, new: Segment
) -> tuple[Segment, Segment]:
    """What is near a step, of the segments before and after it: a slow drift beyond is not of its making."""
    cost = step_cost(noise, len(values), lines)
    start, stop = max(old.start, new.start - NEAR), min(new.stop, new.start + NEAR)
    return (
        _segment(start, new.start, values, weights, noise, cost),
        _segment(new.start, stop, values, weights, noise, cost),
    )


def change(before: Segment, after: Segment, noise: Noise) -> tuple[float, float, float]:
    """By how much the level differs, and the 95 % interval of that."""
    size = after.level - before.level
    half = _critical((1 - CONFIDENCE) / 2, round(noise.freedom, 1)) * math.hypot(before.error, after.error)
    return size, size - half, size + half


def constant_runs(values: Floats, slack: float = 0.0) -> Iterator[Segment]:
    """Of a quantity without noise: values within `slack` of each other; their level is the least of them."""
    start, least, most = 0, values[0], values[0]
    for place, value in enumerate(values):
        if max(most, value) - min(least, value) > slack:
            yield Segment(start, place, float(least), 0.0)
            start, least, most = place, value, value
        least, most = min(least, value), max(most, value)
    yield Segment(start, len(values), float(least), 0.0)
