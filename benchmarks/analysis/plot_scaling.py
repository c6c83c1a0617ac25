"""Time over length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.analysis import wording
from benchmarks.analysis.canvas import draw_times, make_panels, time_range, time_tick, what_bars_span
from benchmarks.analysis.labels import Label, Labeller
from benchmarks.analysis.style import (
    legend_below,
    legend_handle,
    log_axis,
)
from benchmarks.analysis.views import View

Series = Mapping[str, Any]
GUIDE, GUIDE_TEXT = "#d9d9d9", "#999999"


def scaling_picture(view: View) -> Figure:
    """Time over length, every kernel a line."""
    figure, panels = make_panels(view, "Time of one attention call over sequence length", view.lengths)
    low, high = time_range(view, 2.5, 2.5)
    for _, axes in panels:
        log_axis(axes, low, high, words=time_tick)
    names = [one["kernel"] for series in view.series.values() for one in series]
    legend_below(figure, {name: legend_handle(look) for name, look in view.looks.items() if name in names})
    panels[0][1].set_ylabel(f"median time ({what_bars_span(view)})")
    for mode, axes in panels:
        for one in view.series[mode]:
            draw_times(axes, view, one)
        labeller = Labeller(axes, ((one["seq_lens"], one["median_s"]) for one in view.series[mode]))
        for label in _reasons_at_ends(view, mode):
            labeller.write(label)
        if len(view.lengths) > 1:
            _reference_slopes(axes, labeller, view.series[mode])
    return figure


def _reasons_at_ends(view: View, mode: str) -> Iterator[Label]:
    """Why a line ends where it ends, the upper lines first."""
    words = {**wording.OUTCOME_WORDS, "over_time": "time limit", "over_memory": "memory limit"}
    places = ((8, 0), (12, 0), (8, 6), (8, -6), (8, 12), (8, -12), (-12, 12), (-30, 8), (-40, 4))
    cases = view.cases[(view.cases["mode"] == mode) & (view.cases["outcome"] != "measured")]
    for one in sorted(view.series[mode], key=lambda one: -one["median_s"][-1]):
        beyond = cases[(cases["kernel"] == one["kernel"]) & (cases["seq_len"] > one["seq_lens"][-1])]
        if len(beyond):
            reason = words[beyond.sort_values("seq_len")["outcome"].iloc[0]]
            end = one["seq_lens"][-1], one["median_s"][-1]
            yield Label(reason, *end, view.looks[one["kernel"]].color, places, "left")


def _reference_slopes(axes: Axes, labeller: Labeller, series: Sequence[Series]) -> None:
    """Light lines of slope 2 above the slowest standard kernel and of slope 1 below the fastest kernel."""
    standard = [one for one in series if one["family"] == "standard"] or series
    slow = max(standard, key=lambda one: one["median_s"][-1] / one["seq_lens"][-1] ** 2)
    fast = min(series, key=lambda one: one["median_s"][-1] / one["seq_lens"][-1])
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for power, one, shift in ((2, slow, 2.2), (1, fast, 1 / 2.2)):
        scale = shift * one["median_s"][-1] / one["seq_lens"][-1] ** power
        start, end = max(left, (bottom / scale) ** (1 / power)), min(right, (top / scale) ** (1 / power))
        axes.plot(
            [start, end], [scale * start**power, scale * end**power], color=GUIDE, linewidth=1.4, zorder=1
        )
        for share in (0.5, 0.35, 0.65, 0.2, 0.8, 0.1, 0.9):
            x = start ** (1 - share) * end**share
            places = ((-6, 9), (6, -9)) if power == 2 else ((6, -9), (-6, 9))
            sides = "right" if power == 2 else "left"
            if labeller.write(Label(f"slope {power}", x, scale * x**power, GUIDE_TEXT, places[:1], sides)):
                break
