"""The response of a line to the states of its machine, told apart from steps of its own.

Response and steps are found together, as those of least cost: a response that no line of another kernel shows
costs as its distance from theirs, a step as any other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.analysis.history.levels import Segment, cost_of, segments, step_cost
from benchmarks.analysis.history.noises import LEAST_NOISE, Noise, spread
from benchmarks.analysis.scaling.units import Floats

HUBER = 2.0
"""A residual beyond so many standard deviations counts by its distance, no longer by its square."""
ROUNDS = 6
"""Of reweighting, which by then moves little."""
TURNS = 3
"""Of finding steps for a response, and a response for steps."""
LEAST_LINES = 3
"""Fewer lines do not tell how responses scatter."""
TRIED = 5
"""Responses of other lines that are tried, from the least to the largest."""


@dataclass(frozen=True, eq=False)
class Prior:
    """The responses of lines of other kernels: mean, standard deviation, and some of them, a row each."""

    mean: Floats
    spread: Floats
    some: Floats

    @classmethod
    def of(cls, responses: Floats) -> Prior:
        """The prior that the responses of other lines, a row each, make; of too few lines it is wide."""
        if len(responses) < LEAST_LINES:
            count = responses.shape[1]
            return cls(np.zeros(count), np.ones(count), np.zeros((1, count)))
        spread = responses.std(axis=0, ddof=1) * np.sqrt(1 + 1 / len(responses))
        return cls(responses.mean(axis=0), spread, np.quantile(responses, np.linspace(0, 1, TRIED), axis=0))


def spread_of(row: Floats) -> float:
    """The standard deviation of a line's values, by the differences of those that are known."""
    return max(LEAST_NOISE, spread(np.diff(row[np.isfinite(row)])) / math.sqrt(2))


def respond(
    row: Floats,
    paths: Floats,
    noise: float | None = None,
    starts: Sequence[int] = (0,),
    prior: Prior | None = None,
) -> Floats:
    """The response of a line to each state, by robust regression within its levels.

    Args:
        row: Logs, NaN where not measured.
        paths: Of the states, of shape (states, revisions).
        noise: Standard deviation of a value about its level, if it is known better than by `spread_of`.
        starts: Indices of the known values at which levels of its own begin.
        prior: The responses of other lines, of which the mean is taken where the line itself cannot tell.
    """
    known = np.isfinite(row)
    y, x = row[known], paths[:, known].T
    count = x.shape[1]
    if not count or len(y) < 2:
        return np.zeros(count)
    noise = noise or spread_of(row)
    mean, width = (prior.mean, prior.spread) if prior else (np.zeros(count), np.full(count, 1e3))
    label = np.searchsorted(np.asarray(starts), np.arange(len(y)), side="right") - 1
    trust = np.ones(len(y))
    response = mean
    for _ in range(ROUNDS):
        sums = np.bincount(label, trust)
        x0 = x - np.array([np.bincount(label, trust * column) / sums for column in x.T]).T[label]
        y0 = y - (np.bincount(label, trust * y) / sums)[label]
        weighted = x0.T * (trust / noise**2)
        response = np.linalg.solve(weighted @ x0 + np.diag(1 / width**2), weighted @ y0 + mean / width**2)
        residual = y - x @ response
        middle = np.array([np.median(residual[label == one]) for one in range(len(sums))])[label]
        trust = np.minimum(1, HUBER * noise / np.maximum(np.abs(residual - middle), 1e-300))
    return np.asarray(response)


def separate(
    values: Floats, weights: Floats, paths: Floats, noise: Noise, prior: Prior, *, lines: int, margin: float
) -> tuple[Floats, list[Segment]]:
    """The response of a line, and the segments of what is its own.

    Args:
        values: In the order of commits.
        weights: Of each.
        paths: Of the states at these commits, of shape (states, commits).
        noise: Of what is the line's own.
        prior: The responses of other lines.
        lines: As for `segments`.
        margin: As for `segments`.
    """
    step = step_cost(noise, len(values), lines)
    # The line itself cannot tell its response more exactly than this.
    error = noise.long / np.maximum(paths.std(axis=1) * np.sqrt(len(values)), 1e-300)
    prior = Prior(prior.mean, np.hypot(prior.spread, error), prior.some)

    def tries() -> Iterator[Floats]:
        yield respond(values, paths, noise.long, prior=prior)
        yield prior.mean
        yield from prior.some

    best: tuple[float, Floats, list[Segment]] | None = None
    for response in tries():
        for _ in range(TURNS):
            own = values - response @ paths
            found = segments(own, weights, noise, lines=lines, margin=margin)
            penalty = float(np.sum(((response - prior.mean) / prior.spread) ** 2))
            cost = cost_of(found, own, weights, noise, step) + penalty
            if best is None or cost < best[0]:
                best = cost, response, found
            response = respond(values, paths, noise.long, [one.start for one in found], prior)
            if len(found) == 1:
                break
        if best and len(best[2]) == 1 and penalty < step:
            break
    assert best is not None
    return best[1], best[2]
