"""The page of a comparison: the ratio of every case over the length, and every case in a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.analysis import wording
from benchmarks.analysis.comparison.conclusions import CaseChange, Comparison
from benchmarks.analysis.comparison.naming import OUTCOMES, QUANTITIES, by_verdict, change, commits, share
from benchmarks.analysis.document import Section
from benchmarks.analysis.page.content import Axis, Band, Cell, Chart, Grid, Line, Page, Point, Tab
from benchmarks.analysis.page.naming import place_words, tab_names
from benchmarks.analysis.plots.looks import FULL, Look, looks
from benchmarks.analysis.plots.style import BETTER_INK, INK, MUTED, WORSE_INK
from benchmarks.analysis.reading.setting import Case, Setting
from benchmarks.analysis.serialization import json_value

CHANGED = {"slower": Look(WORSE_INK, "s", FULL), "faster": Look(BETTER_INK, "s", FULL)}
"""The marks of cases that changed."""
SAYS = ("N", "base", "head", "change of the time", "verdict")


def comparison_page(comparison: Comparison, text: Sequence[Section]) -> Page:
    """The page of what `regression.compare` found; `text` holds the sections of the console."""
    numbered = list(enumerate(by_verdict(comparison.cases)))
    places = list(dict.fromkeys(_place(case.case.setting) for _, case in numbered))
    tabs = []
    for name, place in zip(tab_names(places), places, strict=True):
        ours = [(index, case) for index, case in numbered if _place(case.case.setting) == place]
        of_kernel = looks(case.case.kernel for _, case in ours)
        charts = list(_charts(ours, of_kernel, comparison.margin))
        tabs.append(Tab(name, place_words(place), charts, [_cases(ours)], kernels=of_kernel))
    return Page(
        text[:1],
        tabs,
        ground=text[1:],
        grids=[*_energies(comparison), *_counts(comparison), *_outcomes(comparison), _sides(comparison)],
        records=[json_value(case) for _, case in numbered],
    )


def _place(setting: Setting) -> Setting:
    return replace(setting, mode=None)


def _charts(
    cases: Sequence[tuple[int, CaseChange]], of_kernel: dict[str, Look], margin: float
) -> Iterator[Chart]:
    """The ratio of head over base by length, a plot for each mode."""
    for mode in sorted({str(case.case.setting.mode) for _, case in cases}):
        ours = [one for one in cases if str(one[1].case.setting.mode) == mode]
        lines = [line for kernel, look in of_kernel.items() for line in _lines(ours, kernel, look)]
        if not lines:
            continue
        lengths = sorted({int(point.x) for line in lines for point in line.points})
        even = [Point(lengths[0], 1.0), Point(lengths[-1], 1.0)]
        yield Chart(
            f"Time of head over base, {mode}",
            "Above 1 the head is slower, below it faster.",
            Axis("sequence length N (tokens, 1k = 1024)", ticks={n: wording.length(n) for n in lengths}),
            Axis("time of head / time of base (bars: 95 % interval)", "x"),
            [Line("no change", Look(INK, "", FULL), even), *lines],
            SAYS,
            [Band("y", 1 / (1 + margin), 1 + margin, MUTED)],
            [
                f"The band is the margin of {share(margin)}. "
                "Red squares: slower; blue squares: faster; others are the same or inconclusive."
            ],
        )


def _lines(cases: Sequence[tuple[int, CaseChange]], kernel: str, look: Look) -> Iterator[Line]:
    points: list[tuple[str, Point]] = []
    for index, one in sorted(cases, key=lambda case: case[1].case.seq_len or 0):
        ratio, length = one.change.ratio, one.case.seq_len
        if one.case.kernel == kernel and ratio and length:
            times = (wording.seconds(one.base_s), wording.seconds(one.head_s))
            says = (str(length), *times, change(one.change), one.verdict)
            points.append((one.verdict, Point(length, ratio, says, one.change.low, one.change.high, index)))
    if points:
        yield Line(kernel, look, [point for _, point in points], (kernel,))
    for verdict, mark in CHANGED.items():
        found = [replace(point, low=None, high=None) for words, point in points if words == verdict]
        if found:
            yield Line(kernel, mark, found, (kernel,), joined=False)


def _cases(cases: Sequence[tuple[int, CaseChange]]) -> Grid:
    rows = [
        [
            *_case(one.case),
            Cell(wording.seconds(one.base_s), one.base_s),
            Cell(wording.seconds(one.head_s), one.head_s),
            Cell(change(one.change), one.change.ratio),
            Cell("-" if one.p is None else f"{one.p:.2g}", one.p),
            Cell(one.verdict),
        ]
        for _, one in cases
    ]
    headers = ["kernel", "mode", "N", "base", "head", "change of the time", "p", "verdict"]
    return Grid("Cases", headers, rows, [index for index, _ in cases])


def _case(case: Case) -> Iterator[Cell]:
    yield Cell(case.kernel)
    yield Cell(str(case.setting.mode))
    yield Cell("-" if case.seq_len is None else str(case.seq_len), case.seq_len)


def _energies(comparison: Comparison) -> Iterator[Grid]:
    rows = [
        [
            *_case(one.case),
            Cell(wording.phase(one.case.setting)),
            Cell(wording.joules(one.base_j), one.base_j),
            Cell(wording.joules(one.head_j), one.head_j),
            Cell(change(one.change), one.change.ratio),
            Cell(one.verdict),
        ]
        for one in comparison.energies
    ]
    if rows:
        headers = ["kernel", "mode", "N", "phase", "base", "head", "change of the energy", "verdict"]
        yield Grid("Energy of a call", headers, rows)


def _counts(comparison: Comparison) -> Iterator[Grid]:
    rows: list[Any] = []
    for one in comparison.counts:
        name, unit = QUANTITIES.get(one.quantity, (one.quantity, ""))
        cells = (Cell(wording.amount(value, unit), value) for value in (one.base, one.head))
        rows.append(
            [*_case(one.case), Cell(wording.phase(one.case.setting)), Cell(name), *cells, Cell(one.verdict)]
        )
    if rows:
        yield Grid(
            "Counts that differ",
            ["kernel", "mode", "N", "phase", "quantity", "base", "head", "verdict"],
            rows,
        )


def _outcomes(comparison: Comparison) -> Iterator[Grid]:
    rows = [
        [
            *_case(one.case),
            Cell(wording.phase(one.case.setting)),
            *(Cell(wording.OUTCOME_WORDS.get(side or "", side or "-")) for side in (one.base, one.head)),
            Cell(OUTCOMES[one.verdict]),
            Cell(one.reason or "-"),
        ]
        for one in comparison.outcomes
    ]
    if rows:
        headers = ["kernel", "mode", "N", "phase", "base", "head", "meaning", "reason"]
        yield Grid("Not compared, and why", headers, rows)


def _sides(comparison: Comparison) -> Grid:
    rows = [
        [Cell(name), Cell(file), Cell(commits(side) or "-"), Cell(", ".join(side.machines))]
        for name, side in (("base", comparison.base), ("head", comparison.head))
        for file in side.files
    ]
    return Grid("Runs", ["side", "file", "commits of the side", "machine"], rows)
