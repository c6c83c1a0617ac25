"""A line of a history with its segments: where it changed its level, and what it could have shown."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from benchmarks.analysis.history.levels import LEAST_PLACES, Segment, around, smallest_step
from benchmarks.analysis.history.lines import Line, Timeline
from benchmarks.analysis.history.noises import Noise, with_values
from benchmarks.analysis.history.storage import Revision
from benchmarks.analysis.scaling.units import Floats, student_quantile

MOST_WEIGHT = 4.0
"""More runs of a commit than these do not average away what their common moment did to them."""
TOO_SMALL = math.log(2)
"""A line that could not even show a doubling, or so large a difference of exponents, says nothing."""
MOST_VALUES = 1000
"""No history waits for more."""
WORDS = {
    "time": ("slower", "faster"),
    "machine": ("slower", "faster"),
    "exponent": ("steeper", "flatter"),
    "crossover": ("later", "earlier"),
}
"""The words for a rise and a fall; other quantities grow "larger" or "smaller"."""


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
