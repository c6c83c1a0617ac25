"""Time over length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.analysis.plots.labels import Label, Labeller
from benchmarks.analysis.plots.style import floor_handles, log_axis
from benchmarks.analysis.report.conclusions import Series
from benchmarks.analysis.report.pictures.canvas import (
    draw_times,
    kernels_below,
    make_panels,
    reason_at_end,
    reference_slopes,
    time_range,
    time_tick,
    what_bars_span,
)
from benchmarks.analysis.report.pictures.views import View


def scaling_picture(view: View) -> Figure:
    """Time over length, every kernel a line."""
    view = view.faded()
    figure, panels = make_panels(view, "Time of one attention call over sequence length", view.lengths)
    low, high = time_range(view, 2.5, 2.5)
    for _, axes in panels:
        log_axis(axes, low, high, words=time_tick)
    kernels_below(figure, view, floor_handles(view.measured["floor_verdict"]))
    panels[0][1].set_ylabel(f"median time ({what_bars_span(view)})")
    for mode, axes in panels:
        for one in view.series[mode]:
            draw_times(axes, view, one)
        labeller = Labeller(axes, ((one.seq_lens, one.median_s) for one in view.series[mode]))
        for label in _reasons_at_ends(view, mode):
            labeller.write(label)
        if len(view.lengths) > 1:
            _guides(axes, labeller, view.series[mode], decode=view.is_decode)
    return figure


def _reasons_at_ends(view: View, mode: str) -> Iterator[Label]:
    """Why a line ends where it ends, the upper lines first."""
    cases = view.cases[(view.cases["mode"] == mode) & (view.cases["outcome"] != "measured")]
    for one in sorted(view.series[mode], key=lambda one: -one.median_s[-1]):
        end = one.seq_lens[-1], one.median_s[-1]
        ours = cases[cases["kernel"] == one.kernel]
        yield from reason_at_end(ours, end, view.looks[one.kernel].color)


def _guides(axes: Axes, labeller: Labeller, series: Sequence[Series], *, decode: bool) -> None:
    """Slope 2 above the slowest standard kernel and slope 1 below the fastest kernel; of a decode slope 1."""
    standard = [one for one in series if one.family == "standard"] or series
    slow = max(standard, key=lambda one: one.median_s[-1] / one.seq_lens[-1] ** (1 if decode else 2))
    fast = min(series, key=lambda one: one.median_s[-1] / one.seq_lens[-1])
    steep, flat = ((one.seq_lens[-1], one.median_s[-1]) for one in (slow, fast))
    reference_slopes(axes, labeller, steep, flat, decode=decode)
