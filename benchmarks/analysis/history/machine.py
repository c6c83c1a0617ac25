"""The states of a machine: what the times of many kernels, and the ceilings, share over the commits.

A line is judged against lines of other kernels only, so that a kernel that changes is no witness for itself.
What enough of those share, a clock state, a wander or the load of a single run, is the machine's, and a line
may respond to it in a way of its own: memory-bound cases less than compute-bound ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from benchmarks.analysis.history.levels import LEAST_PLACES, NEAR, Segment, segments
from benchmarks.analysis.history.noises import estimate_noises
from benchmarks.analysis.history.responses import HUBER, TINY, responses, spread_of
from benchmarks.analysis.scaling.units import Floats

CEILING_VOTES = 2.0
"""Kernels that a ceiling is worth as a witness: no commit touches it."""
LEAST_VOTES, LEAST_SHARE = 1.5, 1 / 3
"""The least votes, and the least share of the lines, of other kernels that take part in a machine's state.

A state that comes and goes needs two kernels and no share: a commit stays, or is reverted once.
"""
LEAST_REVISIONS = LEAST_PLACES
"""Fewer revisions show no step, of a line or of a machine."""
MOST_STATES = 3
"""Kinds of states that are told apart: clocks of cores, of memory, and another."""
ROUNDS = 12
"""Iterations of the alternating least squares, whose result by then moves little."""


@dataclass(frozen=True, eq=False)
class Machine:
    """The times of a machine.

    Attributes:
        logs: Log seconds, NaN where not measured, of shape (lines, revisions).
        kernels: The kernel of each line.
        ceilings: Which lines are ceilings.
        least: States that move no line by as much are left to the noise.
    """

    logs: Floats
    kernels: Sequence[str]
    ceilings: NDArray[np.bool_]
    least: float
    _known: dict[frozenset[str], Floats] = field(default_factory=dict)

    def states(self, without: Sequence[str] = ()) -> Floats:
        """The courses of the states that the lines of all other kernels share, of shape (states, revisions).

        Each is in logs of a typical line that takes part, and zero in the newest state.
        """
        key = frozenset(without)
        if key not in self._known:
            others = np.array([kernel not in key for kernel in self.kernels], dtype=bool)
            kernels = [kernel for kernel in self.kernels if kernel not in key]
            # What a line is compared with shares a state with it, or there is none: that makes two.
            votes = LEAST_VOTES - 1 if key else LEAST_VOTES
            self._known[key] = _states(self.logs[others], kernels, self.ceilings[others], self.least, votes)
        return self._known[key]


def _states(
    logs: Floats, kernels: Sequence[str], ceilings: NDArray[np.bool_], least: float, votes: float
) -> Floats:
    paths = np.empty((0, logs.shape[1]))
    if not kernels or logs.shape[1] < LEAST_REVISIONS:
        return paths
    scales = np.array([spread_of(row) for row in logs])
    rest = logs - np.nanmedian(logs, axis=1, keepdims=True)
    known = paths
    for _ in range(MOST_STATES):
        path, part, share = _common_path(rest, scales, kernels, ceilings)
        common = part >= LEAST_VOTES and share > LEAST_SHARE
        common = common or (part >= votes and _comes_and_goes(path, least))
        if not common or np.ptp(_calm(path)) < least:
            break
        code = _code(path, rest[ceilings], scales[ceilings], least)
        if np.ptp(_calm(path - code)) >= least:
            paths = np.vstack([paths, path - code])
        known = np.vstack([known, path - code, code] if code.any() else [known, path])
        rest = logs - responses(logs, known) @ known
    newest = np.array([_levels(path, least)[-1].level for path in paths]).reshape(-1, 1)
    return np.asarray(paths - newest)


def _levels(path: Floats, least: float) -> list[Segment]:
    ones = np.ones(len(path))
    (noise,) = estimate_noises([(path, ones)])
    return segments(path, ones, noise, margin=least)


def _comes_and_goes(path: Floats, least: float) -> bool:
    """Whether it turns back twice: a commit that is reverted turns back once."""
    signs = np.sign(np.diff([one.level for one in _levels(path, least)]))
    return int(np.count_nonzero(np.diff(signs))) >= 2


def _code(path: Floats, ceilings: Floats, scales: Floats, least: float) -> Floats:
    """The part of a common path that is rather the code's: steps for good with which no ceiling moved.

    States of a machine come and go, so where such steps go both ways, even of states that no ceiling feels,
    they are the machine's.
    """
    part = np.zeros_like(path)
    if not len(ceilings):
        return part
    for old, new in pairwise(_levels(path, least)):
        start, stop = max(old.start, new.start - NEAR), min(new.stop, new.start + NEAR)
        size = new.level - old.level
        moves = [
            _share_moved(row[start : new.start], row[new.start : stop], scale, size)
            for row, scale in zip(ceilings, scales.tolist(), strict=True)
        ]
        if max(moves) < 1 / 2:
            part[new.start :] += size
    signs = np.sign(np.diff(part))
    return part if abs(signs.sum()) == np.abs(signs).sum() else np.zeros_like(path)


def _share_moved(before: Floats, after: Floats, scale: float, size: float) -> float:
    """The largest share of a step that a line may have made; all of it where it was not measured."""
    before, after = before[np.isfinite(before)], after[np.isfinite(after)]
    if not len(before) or not len(after):
        return 1.0
    error = 2 * scale * math.sqrt(1 / len(before) + 1 / len(after))
    return float(np.median(after) - np.median(before)) / size + error / abs(size)


def _calm(path: Floats) -> Floats:
    """Without single strays: the medians of three neighbours."""
    return np.asarray(np.median([path[:-2], path[1:-1], path[2:]], axis=0))


def _common_path(
    rest: Floats, scales: Floats, kernels: Sequence[str], ceilings: NDArray[np.bool_]
) -> tuple[Floats, float, float]:
    """The path that explains most of what the kernels do, each with the same weight.

    Robust factor analysis of rank one, by alternating least squares with Huber's weights. With the path come
    the number of kernels, in votes, and the share of lines that take part.
    """
    _, first, index, counts = np.unique(
        np.array(kernels), return_index=True, return_inverse=True, return_counts=True
    )
    votes = np.where(ceilings[first], CEILING_VOTES, 1.0)
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
        slopes = (trust * around * (filled - mean)).sum(axis=1, keepdims=True) / np.maximum(power, TINY)
        levels = mean - slopes * centre
        distance = np.abs(filled - levels - slopes * path) / scales[:, None]
        trust = known * np.minimum(1, HUBER / np.maximum(distance, TINY))
        weight = trust * precisions * slopes
        path = (weight * (filled - levels)).sum(axis=0) / np.maximum((weight * slopes).sum(axis=0), TINY)
        path /= max(TINY, float(np.sqrt(np.mean(path**2))))
    # A line that does not take part has a response as large as its noise.
    error = scales**2 / np.maximum(power[:, 0], TINY)
    own = np.sqrt(np.maximum(0, slopes[:, 0] ** 2 - 4 * error))
    weight = (votes / counts)[index]
    if not own.any():
        return path, 0.0, 0.0
    of_kernels = np.sqrt(np.bincount(index, own**2) / counts)
    part, share = _part(votes, of_kernels), _part(weight, own) / votes.sum()
    typical = float((weight * own**2).sum() / (weight * own).sum())
    sign = np.sign(np.median(slopes[own > 0]))
    return (path - np.median(path)) * typical * (sign or 1), part, share


def _part(votes: Floats, responses: Floats) -> float:
    """How many votes would take part, all alike, that are as concentrated as these responses."""
    return float((votes * responses).sum() ** 2 / (votes * responses**2).sum())
