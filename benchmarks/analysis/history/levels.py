"""Steps in a line of values over commits: where its level changed, and how sure that is.

The line is the piecewise constant level of least cost, where a value far off costs no more than a bounded
amount, in units of a noise that holds the slow wander of quiet stretches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from scipy import stats

from benchmarks.analysis.history.noises import Noise
from benchmarks.analysis.scaling.units import CONFIDENCE, Floats

FALSE_ALARMS = 0.01
"""How often a quiet history, all its lines together, may show a step."""
STRAY = 0.7
"""The most that one value may cost, in units of the cost of a step.

Above 1/2, so that two values off at the newest end make a step; above 2/3, so that three in the middle do;
below 1 and 2/2, so that one anywhere, or two in the middle, do not.
"""
NEAR = 20
"""Values at either side of a step that tell its size."""
FINENESS, MOST_LEVELS = 8, 20_000
"""Levels that are tried: per standard deviation of one value, and at most."""


@dataclass(frozen=True)
class Segment:
    """Values of one level, from index `start` to before `stop`: their mean and its standard error."""

    start: int
    stop: int
    level: float
    error: float


def step_cost(noise: Noise, places: int, lines: int) -> float:
    """The squared standard score that a step must reach.

    At this score a history of so many lines shows a false step with a probability of at most `FALSE_ALARMS`,
    wherever in the line it may be.
    """
    return _critical(FALSE_ALARMS / (2 * max(1, places - 1) * max(1, lines)), round(noise.freedom, 1)) ** 2


LEAST_PLACES = 2 * math.ceil(1 / STRAY)
"""Fewer values show no step: one at either side may be astray."""


def smallest_step(noise: Noise, places: int, lines: int, margin: float = 0.0) -> float:
    """The smallest step that a line can show, in the middle of so many values; infinite if it shows none."""
    shorter = places // 2
    if places < LEAST_PLACES:
        return math.inf
    spread = noise.long * math.sqrt(1 / shorter + 1 / (places - shorter))
    return max(margin, spread * math.sqrt(step_cost(noise, places, lines)))


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


def cost_of(found: Sequence[Segment], values: Floats, weights: Floats, noise: Noise, step: float) -> float:
    """What these segments cost, each step by `step`."""
    levels = np.repeat([one.level for one in found], [one.stop - one.start for one in found])
    distances = np.minimum(weights * (values - levels) ** 2 / noise.long**2, STRAY * step)
    return float(distances.sum()) + step * (len(found) - 1)


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
    """A segment, whose level is the mean of the values that are not astray."""
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
    """The parts of the two segments that are near a step: a slow drift beyond them is not the step's."""
    cost = step_cost(noise, len(values), lines)
    start, stop = max(old.start, new.start - NEAR), min(new.stop, new.start + NEAR)
    return (
        _segment(start, new.start, values, weights, noise, cost),
        _segment(new.start, stop, values, weights, noise, cost),
    )


def change(before: Segment, after: Segment, noise: Noise) -> tuple[float, float, float]:
    """The difference of two levels, and its 95 % interval."""
    size = after.level - before.level
    half = _critical((1 - CONFIDENCE) / 2, round(noise.freedom, 1)) * math.hypot(before.error, after.error)
    return size, size - half, size + half


def constant_runs(values: Floats, slack: float = 0.0) -> Iterator[Segment]:
    """The segments of a quantity without noise: values within `slack` of each other, at the least."""
    start, least, most = 0, values[0], values[0]
    for place, value in enumerate(values):
        if max(most, value) - min(least, value) > slack:
            yield Segment(start, place, float(least), 0.0)
            start, least, most = place, value, value
        least, most = min(least, value), max(most, value)
    yield Segment(start, len(values), float(least), 0.0)
