"""The lines of a history with their segments: where each changed its level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from benchmarks.analysis.history.levels import Segment, around, constant_runs, segments
from benchmarks.analysis.history.lines import Line, Timeline
from benchmarks.analysis.history.noises import LINES_TO_POOL, Noise, estimate_noises
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

    @cached_property
    def steps(self) -> list[tuple[Segment, Segment]]:
        """The levels near each step, before and after it."""
        if self.line.exact:
            return list(pairwise(self.segments))
        values = scaled(self.line), self.weights
        return [around(*values, self.noise, self.lines, *pair) for pair in pairwise(self.segments)]

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
        values = scaled(line)
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
    """Find the steps of every line of a machine.

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
    typical, growth = 0.0, None
    for quantity in WORDS:
        own = [line for line in noisy if line.quantity == quantity]
        values = [(scaled(line), weights(line)) for line in own]
        # A ratio of two times has the noise of both, also where it is cut off at the longest length.
        floor = math.sqrt(2) * typical if quantity == "crossover" else 0.0
        noises = estimate_noises(values, floor, growth)
        if quantity == "time" and len(own) >= LINES_TO_POOL:
            typical = float(np.median([noise.short for noise in noises]))
            growth = float(np.median([noise.long / noise.short for noise in noises]))
        for line, pair, noise in zip(own, values, noises, strict=True):
            least = math.log1p(margin) if line.logarithmic else margin
            found = segments(*pair, noise, lines=len(noisy), margin=least)
            traced.append(Traced(timeline, line, noise, found, len(noisy), least))
    return traced
