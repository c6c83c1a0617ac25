"""Which kernels a picture of speedups compares, and by how much each is faster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.analysis.plots.style import FLOOR_MARKS
from benchmarks.analysis.report.conclusions import headline_kernel
from benchmarks.analysis.report.pictures.views import View

LINES = ("-", "--", "-.")
"""The lines of the first contenders."""
TEXTBOOK = ("linear-explicit", "standard-explicit")


class Speedup(NamedTuple):
    """One line of the picture, in the colour of its baseline; where all have the same, of its contender."""

    contender: str
    baseline: str
    line: str
    colored_by: str
    lengths: list[int]
    ratios: list[float]

    @property
    def is_first(self) -> bool:
        """Whether it is of the first contender, whose lines are full."""
        return self.line == LINES[0]

    def up_to(self, length: int) -> float:
        """The ratio at the longest length that is not beyond this one."""
        points = zip(self.lengths, self.ratios, strict=True)
        return max((point for point in points if point[0] <= length), default=(0, 0.0))[1]


def speedups_of(view: View, mode: str) -> Iterator[Speedup]:
    """The first contenders over every baseline, then the textbook forms, at their common lengths.

    The first contenders are a user's own, else the one of the headline.
    """
    pairs = [pair for pair in view.crossovers if (pair.setting.mode, pair.quantity) == (mode, "time")]
    compared = {pair.contender for pair in pairs}
    own = [kernel for kernel in view.roles.own if kernel in compared]
    one_baseline = len({pair.baseline for pair in pairs}) == 1
    first = headline_kernel(view.series[mode], view.roles)
    lines = dict(zip(own or ([first] if first else []), LINES, strict=False))
    pairs.sort(key=lambda pair: pair.contender not in lines)
    for pair in pairs:
        known = {
            length: ratio
            for length, ratio in zip(pair.found.seq_lens, pair.found.ratios, strict=True)
            if ratio is not None
        }
        textbook = not view.roles.own and (pair.contender, pair.baseline) == TEXTBOOK
        line = lines.get(pair.contender, ":" if textbook else None)
        if known and line:
            by = pair.contender if one_baseline and own else pair.baseline
            yield Speedup(pair.contender, pair.baseline, line, by, list(known), list(known.values()))


def verdict_of(view: View, mode: str, pair: Speedup, length: int) -> str | None:
    """The worse of the verdicts that the floors give both sides of a ratio."""
    cases = view.measured
    ours = (cases["mode"] == mode) & cases["kernel"].isin([pair.contender, pair.baseline])
    found = set(cases.loc[ours & (cases["seq_len"] == length), "floor_verdict"])
    return next((verdict for verdict in reversed(list(FLOOR_MARKS)) if verdict in found), None)
