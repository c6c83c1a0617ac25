"""What the plots of a report's page have in common: the points of cases, their words, and their axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.page.content import Axis, Line, Point
from benchmarks.analysis.plots.looks import FULL, Look
from benchmarks.analysis.plots.style import MUTED, WORSE_INK

PREDICTED = "_"
"""The marker of what theory says."""
CROSSED = Look(WORSE_INK, "X", FULL)
OF_TIMES = ("N", "median time", "95 % interval", "rounds", "of the floor")
"""What a point of a measured time says."""


def length_axis(lengths: Sequence[int], *, decode: bool = False) -> Axis:
    """The axis of sequence lengths, in a decode of contexts, with a tick at each."""
    what = "context" if decode else "sequence length"
    return Axis(f"{what} N (tokens, 1k = 1024)", ticks={one: wording.length(one) for one in lengths})


def plain(look: Look, marker: str = "") -> Look:
    """A look with another marker, or without one."""
    return Look(look.color, marker, look.line)


def known(value: Any) -> float | None:
    """A positive number of a record, else None."""
    if isinstance(value, bool) or value is None or pd.isna(value):
        return None
    number = float(value)
    return number if number > 0 and math.isfinite(number) else None


def time_points(cases: pd.DataFrame) -> Iterator[Point]:
    """The measured medians of cases with their intervals; the number of a record is that of its row."""
    for index, case in cases.sort_values("seq_len").iterrows():
        low, high = known(case["interval_low_s"]), known(case["interval_high_s"])
        says = (
            str(case["seq_len"]),
            wording.seconds(case["median_s"]),
            interval_words(case),
            f"{case['rounds']:.0f} in {wording.count(int(case['units']), str(case['unit_kind']))}",
            wording.percent(known(case["floor_share"])),
        )
        yield Point(float(case["seq_len"]), float(case["median_s"]), says, low, high, number(index))


def interval_words(case: pd.Series) -> str:
    """The interval of a measured time; a single unit has none."""
    low, high = known(case["interval_low_s"]), known(case["interval_high_s"])
    if low is None or high is None:
        return "none: one unit"
    return f"{wording.seconds(low)} to {wording.seconds(high)}"


def number(index: Any) -> int:
    """The number of a record: the label of its row among all cases."""
    return int(index)


def impossible(cases: pd.DataFrame, lines: Sequence[Line]) -> list[Line]:
    """Crosses over the points that are faster than their ceilings allow."""
    wrong = set(cases.index[cases["floor_verdict"] == "impossible"])
    found = []
    for line in lines:
        points = [point for point in line.points if point.record in wrong]
        if points:
            found.append(Line(f"impossible: {line.name}", CROSSED, points, line.kernels, joined=False))
    return found


def impossible_notes(lines: Sequence[Line]) -> Iterator[str]:
    """The meaning of the crosses, if there are any."""
    if any(line.look is CROSSED for line in lines):
        yield "Red crosses: faster than the ceilings of the device allow, an error to be found."


def endings(cases: pd.DataFrame) -> Iterator[str]:
    """Which kernels of a plot end before others, and why."""
    gone = cases[cases["outcome"] != "measured"]
    for (kernel, outcome), group in gone.groupby(["kernel", "outcome"], sort=False):
        words = wording.OUTCOME_WORDS.get(str(outcome), str(outcome))
        yield f"{kernel}, N = {wording.ranges(list(group['seq_len']))}: {words}."


def guide(name: str, points: Sequence[tuple[float, float]]) -> Line:
    """A line that belongs to no kernel."""
    return Line(name, Look(MUTED, "", FULL), [Point(x, y) for x, y in points])
