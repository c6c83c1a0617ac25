"""The lines of a history with their segments: where each changed its level."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from benchmarks.analysis.history.levels import (
    LEAST_PLACES,
    Segment,
    around,
    constant_runs,
    segments,
    smallest_step,
)
from benchmarks.analysis.history.lines import Line, Timeline
from benchmarks.analysis.history.machine import Machine
from benchmarks.analysis.history.names import LineName
from benchmarks.analysis.history.noises import LINES_TO_POOL, Noise, estimate_noises, with_values
from benchmarks.analysis.history.responses import Prior, responses, separate
from benchmarks.analysis.history.storage import Revision
from benchmarks.analysis.scaling.units import Floats, student_quantile

MARGIN = 0.03
"""Steps that are smaller are not named: a machine drifts by as much within a hundred commits."""
MOST_WEIGHT = 4.0
"""More runs of a commit than these do not average away what their common moment did to them."""
TOO_SMALL = math.log(2)
"""A line that could not even show a doubling, or so large a difference of exponents, says nothing."""
MOST_VALUES = 1000
"""No history waits for more."""
NOISY = ("time", "exponent", "crossover")
WORDS = {
    "time": ("slower", "faster"),
    "machine": ("slower", "faster"),
    "exponent": ("steeper", "flatter"),
    "crossover": ("later", "earlier"),
}
"""The words for a rise and a fall; other quantities grow "larger" or "smaller"."""
EXACT_NOISE = Noise(0.0, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Traced:
    """A line with its segments, on the scale of its noise: the logarithm of relative quantities.

    `lines` have been searched in all, for steps of `margin` or more on that scale. `common` is what each
    value owes to the states of the machine, on that scale; the segments are those of the rest.
    """

    timeline: Timeline
    line: Line
    noise: Noise
    segments: list[Segment]
    lines: int = 0
    margin: float = 0.0
    common: Floats = field(default_factory=lambda: np.zeros(1))

    @cached_property
    def steps(self) -> list[tuple[Segment, Segment]]:
        """The levels near each step, before and after it."""
        if self.line.exact:
            return list(pairwise(self.segments))
        values = self.own, self.weights
        return [around(*values, self.noise, self.lines, *pair) for pair in pairwise(self.segments)]

    @cached_property
    def own(self) -> Floats:
        """The values less what they owe to the machine, on the scale of their noise."""
        return scaled(self.line) - self.common

    @property
    def shown(self) -> Floats:
        """The values less what they owe to the machine, in the unit of the line."""
        return np.exp(self.own) if self.line.logarithmic else self.own

    @property
    def smallest_step(self) -> float:
        """The smallest step that it could show, on the scale of its noise; infinite if none."""
        return 0.0 if self.line.exact else self._smallest(0)

    @property
    def too_few(self) -> bool:
        """Whether it has too few values to show even a large step."""
        return self.smallest_step > TOO_SMALL

    def enough(self) -> int | None:
        """From how many values on it could show a large step, if its noise stays as it is; None if never.

        Of fewer than can show any, nobody knows the noise.
        """
        known = len(self.line.values)
        if known < LEAST_PLACES:
            return LEAST_PLACES
        counts = range(known, known + MOST_VALUES)
        return next((count for count in counts if self._smallest(count - known) <= TOO_SMALL), None)

    def _smallest(self, more: int) -> float:
        noise, count = with_values(self.noise, more), len(self.line.values) + more
        error = replace(noise, long=noise.long / math.sqrt(float(self.weights.mean())))
        return smallest_step(error, count, self.lines, self.margin)

    @cached_property
    def weights(self) -> Floats:
        """The weight of each value."""
        return weights(self.line)

    def revision(self, index: int) -> Revision:
        """The revision of the value of this index."""
        return self.timeline.revisions[int(self.line.places[index])]

    def natural(self, value: float) -> float:
        """A level in the unit of the line."""
        return math.exp(value) if self.line.logarithmic else value

    def bounds(self) -> tuple[Floats, Floats]:
        """The 95 % interval of each value, by the scatter about its level."""
        line = self.line
        if line.exact:
            return line.values, line.values
        values = self.own
        levels = np.repeat(
            [one.level for one in self.segments], [one.stop - one.start for one in self.segments]
        )
        scatter = max(
            self.noise.short, 1.4826 * float(np.median(np.abs(values - levels) * np.sqrt(self.weights)))
        )
        half = student_quantile(1 + round(self.noise.freedom)) * scatter / np.sqrt(self.weights)
        back = np.exp if line.logarithmic else np.asarray
        return back(values - half), back(values + half)


def scaled(line: Line) -> Floats:
    """The values on the scale of their noise."""
    return np.log(line.values) if line.logarithmic else line.values


def weights(line: Line) -> Floats:
    """How many independent values each of a line is worth."""
    return np.minimum(line.runs, MOST_WEIGHT)


def trace(timeline: Timeline, margin: float = MARGIN) -> list[Traced]:
    """Find the steps of every line of a machine, and those of the machine itself.

    Args:
        timeline: Its lines.
        margin: Smaller steps are none: a share, of exponents a difference.
    """
    noisy = [line for line in timeline.lines if not line.exact]
    traced = [
        Traced(timeline, line, EXACT_NOISE, list(constant_runs(line.values, line.slack)))
        for line in timeline.lines
        if line.exact
    ]
    machine = machine_of(timeline, math.log1p(margin))
    typical, growth = 0.0, None
    for quantity in NOISY:
        own = [line for line in noisy if line.quantity == quantity]
        shared = [machine.states(line.name.kernels)[:, line.places] for line in own]
        values = [
            (_rest(scaled(line), paths), weights(line)) for line, paths in zip(own, shared, strict=True)
        ]
        priors = _priors(own, machine)
        # A ratio of two times has the noise of both, also where it is cut off at the longest length.
        floor = math.sqrt(2) * typical if quantity == "crossover" else 0.0
        noises = estimate_noises(values, floor, growth)
        if quantity == "time" and len(own) >= LINES_TO_POOL:
            typical = float(np.median([noise.short for noise in noises]))
            growth = float(np.median([noise.long / noise.short for noise in noises]))
        for line, paths, noise in zip(own, shared, noises, strict=True):
            least = math.log1p(margin) if line.logarithmic else margin
            traced.append(_traced(timeline, line, paths, priors[line.name.kernels], noise, len(noisy), least))
    moved = any(np.ptp(one.common) > 0 for one in traced)
    return traced + (list(_machine(timeline, machine)) if moved else [])


def machine_of(timeline: Timeline, least: float) -> Machine:
    """The times of a machine, by the kernel of each."""
    times = [line for line in timeline.lines if line.quantity == "time"]
    logs = np.full((len(times), len(timeline.revisions)), np.nan)
    for row, line in zip(logs, times, strict=True):
        row[line.places] = np.log(line.values)
    kernels = [line.name.kernels[0] for line in times]
    return Machine(logs, kernels, np.array([line.ceiling for line in times], dtype=bool), least)


def _machine(timeline: Timeline, machine: Machine) -> Iterator[Traced]:
    """The lines of the machine itself: a factor on typical times, for each kind of state."""
    paths = machine.states()
    for number, path in enumerate(paths, start=1):
        places = np.flatnonzero(np.isfinite(machine.logs).any(axis=0))
        ones = np.ones(len(places))
        (noise,) = estimate_noises([(path[places], ones)])
        found = segments(path[places], ones, noise, lines=len(paths), margin=machine.least)
        name = LineName(timeline.name if len(paths) == 1 else f"{timeline.name}, state {number}")
        name.kernels, name.series, name.seq_len, name.head, name.tail = (), str(name), None, str(name), ""
        line = Line("machine", name, places, np.exp(path[places]), ones)
        yield Traced(timeline, line, noise, found, len(paths), machine.least)


def _rest(values: Floats, paths: Floats) -> Floats:
    """Values less all that follows the states, as their noise shows best."""
    return np.asarray(values - responses(values[None], paths)[0] @ paths)


def _priors(own: Sequence[Line], machine: Machine) -> dict[tuple[str, ...], Prior]:
    """By the kernels of a line, how the lines of other kernels respond."""
    priors = {}
    logs = np.full((len(own), machine.logs.shape[1]), np.nan)
    for row, line in zip(logs, own, strict=True):
        row[line.places] = scaled(line)
    for kernels in {line.name.kernels for line in own}:
        others = [not set(kernels) & set(line.name.kernels) for line in own]
        priors[kernels] = Prior.of(responses(logs[others], machine.states(kernels)))
    return priors


def _traced(
    timeline: Timeline, line: Line, paths: Floats, prior: Prior, noise: Noise, lines: int, margin: float
) -> Traced:
    pair = scaled(line), weights(line)
    if not len(paths):
        found = segments(*pair, noise, lines=lines, margin=margin)
        return Traced(timeline, line, noise, found, lines, margin, np.zeros(len(line.values)))
    response, found = separate(*pair, paths, noise, prior, lines=lines, margin=margin)
    return Traced(timeline, line, noise, found, lines, margin, response @ paths)
