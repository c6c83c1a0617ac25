"""The live plots of a self-attention layer: time, memory and FLOPs over length, and time over FLOPs."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.page.content import Axis, Chart, Line, Point
from benchmarks.analysis.plots.looks import Look
from benchmarks.analysis.report.page.points import PREDICTED, endings, known, length_axis, number, plain
from benchmarks.analysis.report.pictures.layers import Curve, LayerView
from benchmarks.analysis.report.pictures.profiling import BESIDE, FLOPS, MEMORY, PROCESS, TIME, WORDS

PANELS = (
    ("Time over sequence length", "seq_len", TIME),
    ("Peak memory over sequence length", "seq_len", MEMORY),
    ("FLOPs over sequence length", "seq_len", FLOPS),
    ("Time over FLOPs", FLOPS, TIME),
)
UNITS = {TIME: "s", MEMORY: "B", FLOPS: "FLOP"}
ABOUT = {
    MEMORY: "Dashes without a line are predictions; dotted lines are the memory of the whole process (RSS), "
    "and the predictions of lengths that were not measured.",
    FLOPS: "Dashes without a line are the FLOPs that torch counted; dotted lines are lengths not measured.",
}
SAYS = ("N", "mean time ± s.e.", "s.d.", "rounds", "peak memory, predicted", "FLOPs, counted")


def layer_charts(view: LayerView) -> Iterator[Chart]:
    """The four plots of a layer, every kernel in every environment a line."""
    for title, x, y in PANELS:
        lines = [line for curve in view.curves for line in _lines(view, curve, x, y)]
        if not lines:
            continue
        across = length_axis(view.lengths) if x == "seq_len" else Axis(WORDS[x], UNITS[x])
        notes = [ABOUT[y]] if y in ABOUT else []
        if (x, y) == ("seq_len", TIME):
            notes += [sentence for curve in view.curves for sentence in endings(curve.left_out)]
        about = f"{wording.count(len(view.curves), 'line')} of the whole layer."
        yield Chart(title, about, across, Axis(WORDS[y], UNITS[y]), lines, SAYS, notes=notes)


def _lines(view: LayerView, curve: Curve, x: str, y: str) -> Iterator[Line]:
    several = len(view.environments) > 1
    name = curve.kernel + (f", {view.name(curve.environment)}" if several else "")
    points, theory = [], []
    for index, case in curve.cases.iterrows():
        at, value, error = known(case[x]), known(case[y]), known(case["rounds_stderr_s"])
        if at is None or value is None:
            continue
        says = _says(case)
        low, high = (value - error, value + error) if y == TIME and error else (None, None)
        low = low if low is None or low > 0 else value
        points.append(Point(at, value, says, low, high, number(index)))
        other = known(case[BESIDE[y]]) if y in BESIDE else None
        theory += [Point(at, other, says, record=number(index))] if other else []
    filled = curve.environment % 2 == 0
    if points:
        yield Line(name, curve.look, points, (curve.kernel,), filled=filled)
    if theory:
        look = plain(curve.look, PREDICTED)
        yield Line(f"{name}, theory", look, theory, (curve.kernel,), joined=False)
    more = {"process": (curve.cases, PROCESS)} if y == MEMORY else {}
    more |= {"not measured": (curve.in_theory, BESIDE[y] if y == MEMORY else y)} if y in BESIDE else {}
    for words, (cases, field) in more.items():
        found = [
            Point(float(case[x]), value, _says(case), record=number(index))
            for index, case in cases.iterrows()
            if (value := known(case[field]))
        ]
        if found:
            look = Look(curve.look.color, curve.look.marker, (0, (1, 1.5)))
            yield Line(f"{name}, {words}", look, found, (curve.kernel,), filled=False)


def _says(case: pd.Series) -> tuple[str, ...]:
    """What a point tells of its case."""
    error = known(case["rounds_stderr_s"])
    amounts = ((MEMORY, "B"), (FLOPS, "FLOP"))
    return (
        str(case["seq_len"]),
        wording.mean(case[TIME], error or float("nan")),
        wording.seconds(known(case["rounds_std_s"])),
        "-" if pd.isna(case["rounds"]) else f"{case['rounds']:.0f}",
        *(f"{wording.amount(known(case[one]), unit)}, {wording.amount(known(case[BESIDE[one]]), unit)}"
          for one, unit in amounts),
    )  # fmt: skip
