"""The live plots of operators: what the pictures show, with every point told."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.page.content import Axis, Band, Chart, Line, Point
from benchmarks.analysis.plots.looks import FULL, Look
from benchmarks.analysis.report import sentences
from benchmarks.analysis.report.conclusions import Series, headline_kernel
from benchmarks.analysis.report.page.amounts import energy_chart, kept_chart, memory_chart
from benchmarks.analysis.report.page.points import (
    OF_TIMES,
    endings,
    guide,
    impossible,
    impossible_notes,
    known,
    length_axis,
    number,
    plain,
    time_points,
)
from benchmarks.analysis.report.pictures.canvas import what_bars_span
from benchmarks.analysis.report.pictures.compared import LINES, speedups_of
from benchmarks.analysis.report.pictures.memory import numbers
from benchmarks.analysis.report.pictures.theory import (
    BEYOND,
    EXTRAPOLATED,
    EXTRAPOLATED_WORDS,
    law_of_theory,
    law_words,
    shown_series,
)
from benchmarks.analysis.report.pictures.views import View
from benchmarks.analysis.scaling.fitted import FittedLaw
from benchmarks.analysis.scaling.forms import Coefficients

FITTED = 40
"""Points of a fitted law: enough for its bend, on a logarithmic axis."""
PLAIN = Look("#222222", "", FULL)


def charts(view: View) -> Iterator[Chart]:
    """Every plot of a view, a plot for each of its modes; none of what was not measured."""
    for make in (_times, _speedups, _theory, memory_chart, kept_chart, energy_chart, _roofline):
        for mode in view.series:
            chart = make(view, mode)
            if chart is not None:
                yield chart


def _of_mode(view: View, mode: str) -> pd.DataFrame:
    return view.measured[view.measured["mode"] == mode]


def _measured(view: View, mode: str) -> Iterator[Line]:
    cases = _of_mode(view, mode)
    for series in view.series[mode]:
        points = list(time_points(cases[cases["kernel"] == series.kernel]))
        yield Line(series.kernel, view.looks[series.kernel], points, (series.kernel,))


def _times(view: View, mode: str) -> Chart:
    lines = list(_measured(view, mode))
    lines += impossible(_of_mode(view, mode), lines)
    return Chart(
        f"Time over sequence length, {mode}",
        f"Median time of {wording.count(len(view.series[mode]), 'kernel')} over the length.",
        length_axis(view.lengths, decode=view.is_decode),
        Axis(f"median time ({what_bars_span(view)})", "s"),
        lines,
        OF_TIMES,
        notes=[*impossible_notes(lines), *endings(view.cases[view.cases["mode"] == mode])],
    )


def _speedups(view: View, mode: str) -> Chart | None:
    found = list(speedups_of(view, mode))
    if not found:
        return None
    lines = []
    for one in found:
        look = view.looks[one.colored_by]
        dash = FULL if one.line == LINES[0] else (0, (5, 2)) if one.line == LINES[1] else (0, (1.5, 1.5))
        name = f"{one.contender} over {one.baseline}"
        points = [
            Point(n, ratio, (str(n), wording.times(ratio)))
            for n, ratio in zip(one.lengths, one.ratios, strict=True)
        ]
        line = Line(name, Look(look.color, look.marker, dash), points, (one.contender, one.baseline))
        lines.append(line)
    lengths = sorted({point.x for line in lines for point in line.points})
    lines.append(Line("break-even", PLAIN, [Point(lengths[0], 1), Point(lengths[-1], 1)]))
    return Chart(
        f"Speedup over sequence length, {mode}",
        "Above 1 the contender is faster, below it the baseline.",
        length_axis(view.lengths, decode=view.is_decode),
        Axis("time of baseline / time of contender", "x"),
        lines,
        ("N", "speedup"),
        notes=["The line at 1x is the break-even. Lines have the colours of the baselines."],
    )


def _theory(view: View, mode: str) -> Chart:
    shown = {one.kernel: one for one in shown_series(view.series[mode], view.roles)}
    lines, notes = [], []
    for line in _measured(view, mode):
        series = shown.get(line.name)
        law = law_of_theory(series) if series else None
        if series is None:
            continue
        lines.append(Line(line.name, line.look, line.points, line.kernels, joined=False))
        if law:
            lines += _fit(line, series, law)
            notes.append(f"{law_words(series, law)}; {sentences.growth(series.exponent)}.")
    notes += [f"Short dashes are {EXTRAPOLATED_WORDS}."] if notes else []
    best = headline_kernel(view.series[mode], view.roles)
    bands = []
    for pair in view.crossovers:
        ours = (pair.setting.mode, pair.quantity, pair.contender) == (mode, "time", best)
        if ours and pair.baseline in shown:
            notes.append(f"{sentences.short_crossover(pair)}.")
            low, high = known(pair.found.low), known(pair.found.high)
            if low and high:
                bands.append(Band("x", low, high, view.looks[pair.baseline].color))
    return Chart(
        f"Theory and measurement, {mode}",
        "Measured points, the fitted laws c + a N² and c + a N, and bands where they cross.",
        length_axis(view.lengths, decode=view.is_decode),
        Axis(f"median time ({what_bars_span(view)})", "s"),
        lines,
        OF_TIMES,
        bands,
        notes,
    )


def _fit(line: Line, series: Series, law: FittedLaw[Coefficients]) -> Iterator[Line]:
    """A law over the measured lengths, and a little beyond them."""
    first, last = series.seq_lens[0], series.seq_lens[-1]
    beyond = Look(line.look.color, "", EXTRAPOLATED["linestyle"])
    for name, look, start, end in (
        (f"law of {line.name}", plain(line.look), first, last),
        (f"law of {line.name}, extrapolated", beyond, last, BEYOND * last),
    ):
        at = np.geomspace(start, end, FITTED)
        fit = zip(at.tolist(), law.coefficients.seconds(at).tolist(), strict=True)
        yield Line(name, look, [Point(x, y) for x, y in fit if y > 0], line.kernels)


def _roofline(view: View, mode: str) -> Chart | None:
    if view.roof is None:
        return None
    cases = numbers(_of_mode(view, mode), "flops", "min_bytes").sort_values("seq_len")
    lines = []
    for kernel, look in view.looks.items():
        points = []
        for index, case in cases[cases["kernel"] == kernel].iterrows():
            flops, least = known(case["flops"]), known(case["min_bytes"])
            if flops and least:
                intensity, rate = flops / least, flops / float(case["median_s"])
                share = wording.percent(known(case["floor_share"]))
                says = (
                    str(case["seq_len"]),
                    wording.amount(rate, "FLOP/s"),
                    f"{intensity:.3g} FLOP/B",
                    share,
                )
                points.append(Point(intensity, rate, says, record=number(index)))
        lines += [Line(kernel, look, points, (kernel,))] if points else []
    if not lines:
        return None
    ridge = view.roof.matrix_rate / view.roof.bandwidth
    at = [point.x for line in lines for point in line.points]
    left, right = min(*at, ridge) / 3, max(*at, ridge) * 3
    roof = [
        (left, left * view.roof.bandwidth),
        (ridge, view.roof.matrix_rate),
        (right, view.roof.matrix_rate),
    ]
    lines += [*impossible(cases, lines), guide("roof", roof)]
    bandwidth, most = (
        wording.amount(view.roof.bandwidth, "B/s"),
        wording.amount(view.roof.matrix_rate, "FLOP/s"),
    )
    return Chart(
        f"Roofline, {mode}",
        "Achieved rate over arithmetic intensity, under the roof measured in the same run.",
        Axis("FLOPs / least bytes (FLOP per byte)", switched=False),
        Axis("FLOPs / median time", "FLOP/s", switched=False),
        lines,
        ("N", "achieved", "intensity", "of the floor"),
        notes=[f"The roof: copy {bandwidth}, matrix product {most}.", *impossible_notes(lines)],
    )
