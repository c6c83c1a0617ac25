"""The states of a machine: what the times of many kernels, and the ceilings, share over the commits.

A line is judged against lines of other kernels only, so that a kernel that changes is no witness for itself.
What enough of those share, a clock state, a wander or the load of a single run, is the machine's, and a line
may respond to it in a way of its own: memory-bound cases less than compute-bound ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.analysis.history.responses import HUBER, respond, spread_of
from benchmarks.analysis.scaling.units import Floats

CEILING = "ceiling-"
CEILING_VOTES = 2.0
"""Kernels that a ceiling is worth as a witness: no commit touches it."""
LEAST_VOTES, LEAST_SHARE = 1.5, 1 / 3
"""Of the other kernels so many, and so large a share of them, must take part in what is the machine's."""
LEAST_REVISIONS = 4
"""Fewer revisions show no step, of a line or of a machine."""
MOST_STATES = 3
"""Kinds of states that are told apart: clocks of cores, of memory, and another."""
ROUNDS = 12
"""Of alternating least squares, which by then move little."""


@dataclass(frozen=True, eq=False)
class Machine:
    """The times of a machine.

    Attributes:
        logs: Log seconds, NaN where not measured, of shape (lines, revisions).
        kernels: The kernel of each line.
        least: States that move no line by as much are left to the noise.
    """

    logs: Floats
    kernels: Sequence[str]
    least: float
    _known: dict[frozenset[str], Floats] = field(default_factory=dict)

    def states(self, without: Sequence[str] = ()) -> Floats:
        """The courses of the states that the lines of all other kernels share, of shape (states, revisions).

        Each is in logs of a typical line that takes part, and zero at its median.
        """
        key = frozenset(without)
        if key not in self._known:
            others = np.array([kernel not in key for kernel in self.kernels], dtype=bool)
            kernels = [kernel for kernel in self.kernels if kernel not in key]
            self._known[key] = _states(self.logs[others], kernels, self.least)
        return self._known[key]


def _states(logs: Floats, kernels: Sequence[str], least: float) -> Floats:
    paths = np.empty((0, logs.shape[1]))
    if len(set(kernels)) < 2 or logs.shape[1] < LEAST_REVISIONS:
        return paths
    scales = np.array([spread_of(row) for row in logs])
    rest = logs - np.nanmedian(logs, axis=1, keepdims=True)
    while len(paths) < MOST_STATES:
        path = _common_path(rest, scales, kernels)
        if path is None or np.ptp(_calm(path)) < least:
            break
        paths = np.vstack([paths, path])
        rest = np.array([row - respond(row, paths) @ paths for row in logs])
    return paths


def _calm(path: Floats) -> Floats:
    """Without single strays: the medians of three neighbours."""
    return np.asarray(np.median([path[:-2], path[1:-1], path[2:]], axis=0))


def _common_path(rest: Floats, scales: Floats, kernels: Sequence[str]) -> Floats | None:
    """The path that explains most of what the kernels, each with the same weight, do; None if few take part.

    Robust factor analysis of rank one, by alternating least squares with Huber's weights.
    """
    names, index, counts = np.unique(np.array(kernels), return_inverse=True, return_counts=True)
    votes = np.where(np.char.startswith(names, CEILING), CEILING_VOTES, 1.0)
    known = np.isfinite(rest)
    precisions = ((votes / counts)[index] / scales**2)[:, None] * known
    filled = np.where(known, rest, 0.0)
    path = np.linalg.svd(np.sqrt(precisions) * filled, full_matrices=False)[2][0]
    trust, levels = known.astype(float), np.zeros((len(rest), 1))
    for _ in range(ROUNDS):
        total = trust.sum(axis=1, keepdims=True)
        centre = trust @ path[:, None] / total
        mean = (trust * filled).sum(axis=1, keepdims=True) / total
        around = path - centre
        power = (trust * around**2).sum(axis=1, keepdims=True)
        responses = (trust * around * (filled - mean)).sum(axis=1, keepdims=True) / np.maximum(power, 1e-300)
        levels = mean - responses * centre
        distance = np.abs(filled - levels - responses * path) / scales[:, None]
        trust = known * np.minimum(1, HUBER / np.maximum(distance, 1e-300))
        weight = trust * precisions * responses
        path = (weight * (filled - levels)).sum(axis=0) / np.maximum((weight * responses).sum(axis=0), 1e-300)
        path /= max(1e-300, float(np.sqrt(np.mean(path**2))))
    # A line that does not take part has a response as large as its noise.
    error = scales**2 / np.maximum(power[:, 0], 1e-300)
    own = np.maximum(0, responses[:, 0] ** 2 - 4 * error)
    own = np.sqrt(own)
    weight = (votes / counts)[index]
    if not own.any():
        return None
    of_kernels = np.sqrt(np.bincount(index, own**2) / counts)
    if _part(votes, of_kernels) < LEAST_VOTES or _part(weight, own) <= LEAST_SHARE * votes.sum():
        return None
    typical = float((weight * own**2).sum() / (weight * own).sum())
    sign = np.sign(np.median(responses[own > 0]))
    return np.asarray((path - np.median(path)) * typical * (sign or 1))


def _part(votes: Floats, responses: Floats) -> float:
    """How many votes would take part, all alike, that are as concentrated as these responses."""
    return float((votes * responses).sum() ** 2 / (votes * responses**2).sum())
