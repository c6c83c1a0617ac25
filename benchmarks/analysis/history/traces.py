"""The lines of a history with their segments: where each changed its level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from benchmarks.analysis.history.levels import Segment, around, constant_runs, segments
from benchmarks.analysis.history.lines import Line, Timeline
from benchmarks.analysis.history.machine import Machine
from benchmarks.analysis.history.noises import LINES_TO_POOL, Noise, estimate_noises
from benchmarks.analysis.history.responses import Prior, respond, separate
from benchmarks.analysis.history.storage import Revision
from benchmarks.analysis.scaling.units import Floats, student_quantile

MARGIN = 0.03
"""Steps that are smaller are not named: a machine drifts by as much within a hundred commits."""
MOST_WEIGHT = 4.0
"""More runs of a commit than these do not average away what their common moment did to them."""
WORDS = {
    "time": ("slower", "faster"),
    "exponent": ("steeper", "flatter"),
    "crossover": ("later", "earlier"),
}
"""The words for a rise and a fall; other quantities grow "larger" or "smaller"."""
EXACT_NOISE = Noise(0.0, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Traced:
    """A line with its segments, on the scale of its noise: the logarithm of relative quantities.

    `lines` have been searched in all, for steps of `margin` or more on that scale.
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
    for quantity in WORDS:
        own = [line for line in noisy if line.quantity == quantity]
        shared = [machine.states(line.name.kernels)[:, line.places] for line in own]
        values = [
            (_less(scaled(line), paths), weights(line)) for line, paths in zip(own, shared, strict=True)
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
    return traced


def machine_of(timeline: Timeline, least: float) -> Machine:
    """The times of a machine, by the kernel of each."""
    times = [line for line in timeline.lines if line.quantity == "time"]
    logs = np.full((len(times), len(timeline.revisions)), np.nan)
    for row, line in zip(logs, times, strict=True):
        row[line.places] = np.log(line.values)
    return Machine(logs, [line.name.kernels[0] for line in times], least)


def _less(values: Floats, paths: Floats) -> Floats:
    """Values less all that follows the states, as their noise shows best."""
    return np.asarray(values - respond(values, paths) @ paths)


def _priors(own: Sequence[Line], machine: Machine) -> dict[tuple[str, ...], Prior]:
    """By the kernels of a line, how the lines of other kernels respond."""
    priors = {}
    for kernels in {line.name.kernels for line in own}:
        paths = machine.states(kernels)
        responses = [
            respond(scaled(line), paths[:, line.places])
            for line in own
            if not set(kernels) & set(line.name.kernels)
        ]
        priors[kernels] = Prior.of(np.array(responses).reshape(len(responses), len(paths)))
    return priors


def _traced(
    timeline: Timeline, line: Line, paths: Floats, prior: Prior, noise: Noise, lines: int, margin: float
) -> Traced:
    pair = scaled(line), weights(line)
    if not len(paths):
        found = segments(*pair, noise, lines=lines, margin=margin)
        return Traced(timeline, line, noise, found, lines, margin)
    response, found = separate(*pair, paths, noise, prior, lines=lines, margin=margin)
    return Traced(timeline, line, noise, found, lines, margin, response @ paths)
