"""The page of a history: a tab for each machine, with its most telling lines and every step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.analysis import wording
from benchmarks.analysis.document import Section
from benchmarks.analysis.history.changes import difference
from benchmarks.analysis.history.conclusions import History, Step
from benchmarks.analysis.history.picture import TICKS, choose, levels
from benchmarks.analysis.history.text import QUANTITY_WORDS, change_words, level
from benchmarks.analysis.history.traced import Traced
from benchmarks.analysis.page.content import Axis, Cell, Chart, Grid, Line, Page, Point, Tab
from benchmarks.analysis.plots.looks import FULL, Look
from benchmarks.analysis.plots.style import MUTED
from benchmarks.analysis.serialization import json_value

UNITS = {"time": "s", "peak_bytes": "B", "min_bytes": "B", "flops": "FLOP"}
SAYS = ("revision", "date", "value", "95 % interval", "runs")
VALUES = Look(MUTED, "o", FULL)


def history_page(history: History, machines: Sequence[Sequence[Traced]], text: Sequence[Section]) -> Page:
    """The page of what `writing.conclude` concluded.

    Args:
        history: The conclusions.
        machines: The lines of each machine with their segments.
        text: The sections of the console.
    """
    tabs = [_tab(history, traced) for traced in machines if traced]
    return Page(
        text[:1],
        tabs,
        ground=text[1:],
        grids=list(_disturbed(history)),
        records=[json_value(step) for step in history.steps],
    )


def _tab(history: History, traced: Sequence[Traced]) -> Tab:
    timeline = traced[0].timeline
    several = len(timeline.revisions) > 1
    charts = [_chart(one) for one in choose(traced)] if several else []
    about = f"{timeline.name}: {timeline.fingerprint}"
    numbered = [(index, step) for index, step in enumerate(history.steps) if step.machine == timeline.name]
    return Tab(timeline.name, about, charts, [*_steps(numbered), _lines(traced)])


def _chart(one: Traced) -> Chart:
    line, revisions, (low, high) = one.line, one.timeline.revisions, one.bounds()
    points = []
    for index, (place, value) in enumerate(zip(line.places, one.shown, strict=True)):
        revision, ends = one.revision(index), (float(low[index]), float(high[index]))
        says = (
            revision.name,
            f"{revision.time:%Y-%m-%d %H:%M}",
            level(line.quantity, float(value)),
            "exact" if ends[0] == ends[1] else " to ".join(level(line.quantity, end) for end in ends),
            str(int(line.runs[index])),
        )
        points.append(Point(float(place), float(value), says, *ends))
    steps = [
        Line("level", Look(color, "", FULL), [Point(first, value), Point(last, value)])
        for color, first, last, value in levels(one)
    ]
    what = QUANTITY_WORDS.get(line.quantity, line.quantity)
    ticks = sorted({round(place) for place in np.linspace(0, len(revisions) - 1, TICKS)})
    notes = [
        f"{change_words(line.quantity, difference(one, old, new))} at {one.revision(new.start).name}."
        for old, new in one.steps
    ]
    return Chart(
        f"{what}: {line.name}",
        f"{wording.count(len(points), 'revision')}, {wording.count(len(one.steps), 'step')}.",
        Axis("revision", ticks={one: revisions[one].name for one in ticks}, log=False, switched=False),
        Axis(f"{what} (bars: 95 % interval)", UNITS.get(line.quantity, ""), log=False, switched=False),
        [Line(str(line.name), VALUES, points, joined=False), *steps],
        SAYS,
        notes=notes,
    )


def _steps(steps: Sequence[tuple[int, Step]]) -> Iterator[Grid]:
    rows = [
        [
            Cell(QUANTITY_WORDS.get(step.quantity, step.quantity)),
            Cell(str(step.name)),
            Cell(step.since.name),
            Cell(step.since.time),
            Cell(change_words(step.quantity, step.change), step.change.size),
            Cell(level(step.quantity, step.change.old), step.change.old),
            Cell(level(step.quantity, step.change.new), step.change.new),
            Cell(step.change.verdict),
        ]
        for _, step in steps
    ]
    headers = ["quantity", "line", "since", "time", "change", "before", "after", "verdict"]
    if rows:
        yield Grid("Steps", headers, rows, [index for index, _ in steps])


def _lines(traced: Sequence[Traced]) -> Grid:
    rows = [
        [
            Cell(QUANTITY_WORDS.get(one.line.quantity, one.line.quantity)),
            Cell(str(one.line.name)),
            Cell(f"{len(one.line.values)}", len(one.line.values)),
            Cell(f"{len(one.steps)}", len(one.steps)),
            Cell(level(one.line.quantity, float(one.shown[-1])), float(one.shown[-1])),
        ]
        for one in traced
    ]
    return Grid("Lines", ["quantity", "line", "revisions", "steps", "newest"], rows)


def _disturbed(history: History) -> Iterator[Grid]:
    rows = [
        [Cell(one.machine), Cell(one.revision.name), Cell(one.file), Cell(" ".join(one.conditions.values()))]
        for one in history.disturbed
    ]
    if rows:
        yield Grid("Disturbed runs", ["machine", "revision", "file", "what disturbed it"], rows)
