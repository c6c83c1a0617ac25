"""The live plots of what a call costs beside its time: peak memory, bytes kept, and energy."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.analysis import wording
from benchmarks.analysis.page.content import Axis, Chart, Line, Point
from benchmarks.analysis.report.energies import ENERGY, ERROR
from benchmarks.analysis.report.page.points import PREDICTED, known, length_axis, number, plain
from benchmarks.analysis.report.pictures.memory import numbers
from benchmarks.analysis.report.pictures.views import View


def memory_chart(view: View, mode: str) -> Chart | None:
    """Peak memory over length, measured beside predicted; None where no peak is known."""
    lines = _lines(view, mode, "peak_bytes", "predicted_peak_bytes", bytes_words)
    if not lines:
        return None
    return Chart(
        f"Peak memory over sequence length, {mode}",
        "Peak memory above the inputs; dashes are the predictions.",
        length_axis(view.lengths, decode=view.is_decode),
        Axis("peak memory above the inputs", "B"),
        lines,
        ("N", "measured", "predicted"),
        notes=["Dashes without a line are predictions."],
    )


def energy_chart(view: View, mode: str) -> Chart | None:
    """Energy of a call over length; None where it was not measured."""
    lines = _lines(view, mode, ENERGY, None, wording.joules, ERROR)
    if not lines:
        return None
    return Chart(
        f"Energy over sequence length, {mode}",
        "Joules of one call; bars are their error.",
        length_axis(view.lengths, decode=view.is_decode),
        Axis("energy of a call", "J"),
        lines,
        ("N", "energy"),
    )


def kept_chart(view: View, mode: str) -> Chart | None:
    """Bytes kept between the calls of a prefill or decode; None where no kernel keeps any."""
    lines = _lines(view, mode, "cache_bytes", None, bytes_words)
    if not lines:
        return None
    return Chart(
        f"Bytes kept between calls, {mode}",
        "Keys and values grow with the context, a state does not.",
        length_axis(view.lengths, decode=view.is_decode),
        Axis("bytes kept, of the whole batch", "B"),
        lines,
        ("N", "kept"),
    )


def bytes_words(value: float | None) -> str:
    """Bytes in words."""
    return wording.amount(value, "B")


def _lines(
    view: View,
    mode: str,
    field: str,
    theory: str | None,
    words: Callable[[float | None], str],
    error: str | None = None,
) -> list[Line]:
    """A line for each kernel, with its errors, and marks of what theory says of it."""
    fields = [name for name in (field, theory, error) if name]
    cases = numbers(view.measured[view.measured["mode"] == mode], *fields).sort_values("seq_len")
    lines = []
    for kernel, look in view.looks.items():
        measured, predicted = [], []
        for index, case in cases[cases["kernel"] == kernel].iterrows():
            value, expected = known(case[field]), known(case[theory]) if theory else None
            if value is None:
                continue
            n = float(case["seq_len"])
            says = (str(case["seq_len"]), words(value), *([words(expected)] if theory else []))
            off = known(case[error]) if error else None
            low, high = (None, None) if off is None else (value - off, value + off)
            measured.append(Point(n, value, says, low, high, number(index)))
            if expected:
                predicted.append(Point(n, expected, says, record=number(index)))
        if measured:
            lines.append(Line(kernel, look, measured, (kernel,)))
        if predicted:
            mark = plain(look, PREDICTED)
            lines.append(Line(f"{kernel}, predicted", mark, predicted, (kernel,), joined=False))
    return lines
