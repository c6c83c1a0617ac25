"""The response of a line to the states of its machine, told apart from steps of its own.

Response and steps are found together, as those of least cost: a response that no line of another kernel shows
costs as its distance from theirs, a step as any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.analysis.history.levels import Segment, cost_of, segments, step_cost
from benchmarks.analysis.history.noises import LEAST_NOISE, Noise, spread
from benchmarks.analysis.scaling.units import Floats

HUBER = 2.0
"""A residual beyond so many standard deviations counts by its distance, no longer by its square."""
ROUNDS = 6
"""Iterations of the robust regression, whose weights by then move little."""
TINY = 1e-12
"""The least denominator, so that nothing is divided by zero."""
WIDE = 1e3
"""The standard deviation of a response of which nothing is known."""
TURNS = 3
"""The most rounds in which steps are found for a response, and a response for those steps."""
ODD = 0.15
"""Share of the lines whose response may be a step of their own, and does not count."""
MOST_PENALTY = 1.5
"""Steps that a response like no other line's costs at most: it is taken if it saves two."""
USUAL = 4.0
"""The squared distance of a response up to which nothing else is tried for a line without steps."""
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
        distances = np.abs(responses - np.median(responses, axis=0))
        kept = distances <= np.quantile(distances, 1 - ODD, axis=0, method="higher")
        mean = np.average(responses, axis=0, weights=kept)
        spread = np.sqrt(np.average((responses - mean) ** 2, axis=0, weights=kept) * (1 + 2 / len(responses)))
        return cls(mean, spread, np.quantile(responses, np.linspace(0, 1, TRIED), axis=0))

    def penalty(self, response: Floats) -> float:
        """The squared distance of a response from theirs, in standard deviations."""
        return float(np.sum(((response - self.mean) / self.spread) ** 2))


def spread_of(row: Floats) -> float:
    """The standard deviation of a line's values, by the differences of those that are known."""
    return max(LEAST_NOISE, spread(np.diff(row[np.isfinite(row)])) / math.sqrt(2))


def responses(rows: Floats, paths: Floats) -> Floats:
    """The response of each line to each state, by robust regression on all of it; shape (lines, states).

    Args:
        rows: Logs, NaN where not measured, of shape (lines, revisions).
        paths: Of the states, of shape (states, revisions).
    """
    count = len(paths)
    if not count or not len(rows):
        return np.zeros((len(rows), count))
    known = np.isfinite(rows)
    y, x = np.where(known, rows, 0.0), paths.T
    squares = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    reach = HUBER * np.array([spread_of(row) for row in rows])[:, None]
    trust = known.astype(float)
    for _ in range(ROUNDS):
        total = trust.sum(axis=1, keepdims=True)
        x_mean, y_mean = trust @ x / total, (trust * y).sum(axis=1, keepdims=True) / total
        gram = (trust @ squares).reshape(-1, count, count) - (total * x_mean)[:, :, None] * x_mean[:, None, :]
        cross = (trust * y) @ x - total * y_mean * x_mean
        found = np.linalg.solve(gram + TINY * np.eye(count), cross[:, :, None])[:, :, 0]
        residuals = y - y_mean - found @ x.T + (found * x_mean).sum(axis=1, keepdims=True)
        trust = known * np.minimum(1, reach / np.maximum(np.abs(residuals), TINY))
    return np.asarray(found)


def respond(
    values: Floats, paths: Floats, noise: float, starts: Sequence[int] = (0,), prior: Prior | None = None
) -> Floats:
    """The response of a line to each state, by robust regression within its levels.

    Args:
        values: In the order of commits.
        paths: Of the states at these commits, of shape (states, commits).
        noise: Standard deviation of a value about its level.
        starts: Indices of the values at which levels begin.
        prior: The responses of other lines, whose mean is taken where the line itself cannot tell.
    """
    x, count = paths.T, len(paths)
    mean, width = (prior.mean, prior.spread) if prior else (np.zeros(count), np.full(count, WIDE))
    label = np.searchsorted(np.asarray(starts), np.arange(len(values)), side="right") - 1
    trust = np.ones(len(values))
    response = mean
    for _ in range(ROUNDS):
        sums = np.bincount(label, trust)
        x0 = x - np.array([np.bincount(label, trust * column) / sums for column in x.T]).T[label]
        y0 = values - (np.bincount(label, trust * values) / sums)[label]
        weighted = x0.T * (trust / noise**2)
        response = np.linalg.solve(weighted @ x0 + np.diag(1 / width**2), weighted @ y0 + mean / width**2)
        residuals = values - x @ response
        middle = np.array([np.median(residuals[label == one]) for one in range(len(sums))])[label]
        trust = np.minimum(1, HUBER * noise / np.maximum(np.abs(residuals - middle), TINY))
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
    error = noise.long / np.maximum(paths.std(axis=1) * math.sqrt(len(values)), noise.long / WIDE)
    prior = Prior(prior.mean, np.hypot(prior.spread, error), prior.some)

    tries = [respond(values, paths, noise.long, prior=prior), respond(values, paths, noise.long)]
    best: tuple[float, Floats, list[Segment]] | None = None
    for response in (*tries, prior.mean, *prior.some):
        for _ in range(TURNS):
            own = values - response @ paths
            found = segments(own, weights, noise, lines=lines, margin=margin)
            penalty = min(prior.penalty(response), MOST_PENALTY * step)
            cost = cost_of(found, own, weights, noise, step) + penalty
            if best is None or cost < best[0]:
                best = cost, response, found
            if len(found) == 1 and penalty <= USUAL:
                return response, found
            if len(found) == 1:
                break
            response = respond(values, paths, noise.long, [one.start for one in found], prior)
    assert best is not None
    return best[1], best[2]
