"""The parts of a report's pictures: panels, points with bars, guides and their axes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from benchmarks.analysis import wording
from benchmarks.analysis.plots.labels import Label, Labeller
from benchmarks.analysis.plots.looks import BACKGROUND
from benchmarks.analysis.plots.style import (
    INK,
    headline,
    legend_below,
    legend_handle,
    length_axis,
    mark_floors,
)
from benchmarks.analysis.report.conclusions import Series
from benchmarks.analysis.report.pictures.views import View

Point = tuple[float, float]
GUIDE, GUIDE_TEXT = "#d9d9d9", "#999999"


def make_panels(
    view: View,
    title: str,
    lengths: Sequence[int] | None,
    height: float = 6.4,
    modes: Sequence[str] | None = None,
) -> tuple[Figure, list[tuple[str, Axes]]]:
    """A figure with its title and one panel per mode, over the length where lengths are given."""
    figure = Figure(figsize=(12, height), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 0.9), w_pad=0.12))
    modes = modes or list(view.series)
    axes = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
    headline(figure, title, view.subtitle)
    panels = list(zip(modes, axes, strict=True))
    for mode, panel in panels:
        panel.set_title(mode, loc="left", color=INK)
        if lengths:
            length_axis(panel, lengths)
            if view.is_decode:
                of_contexts(panel)
    return figure, panels


def of_contexts(axes: Axes) -> None:
    """Call an axis of lengths one of contexts."""
    axes.set_xlabel(axes.get_xlabel().replace("sequence length", "context"))


def kernels_below(
    figure: Figure, view: View, more: Mapping[str, Line2D], shown: Collection[str] | None = None
) -> None:
    """The legend: the kernels shown, all of the view unless they are given, and what else is given."""
    if shown is None:
        shown = {one.kernel for series in view.series.values() for one in series}
    handles = {
        name: legend_handle(look)
        for name, look in view.looks.items()
        if name in shown and look is not BACKGROUND
    }
    if grey := [name for name in shown if view.looks[name] is BACKGROUND]:
        handles[f"{wording.count(len(grey), 'other kernel')}"] = legend_handle(BACKGROUND)
    legend_below(figure, {**handles, **more})


def time_range(view: View, below: float, above: float) -> tuple[float, float]:
    """Limits of the axis in seconds, with so much room below and above the measured times."""
    return view.measured["median_s"].min() / below, view.measured["median_s"].max() * above


def what_bars_span(view: View) -> str:
    """The meaning of the bars, for the axis; a single unit has none, as its rounds are not independent."""
    most = int(view.measured["units"].max())
    return f"bars: 95 % interval over {most} {view.unit}s" if most > 1 else f"no bars: a single {view.unit}"


def draw_times(axes: Axes, view: View, series: Series, **changes: Any) -> None:
    """Draw the measured medians of one series with their bars."""
    cases = view.measured
    ours = (cases["kernel"] == series.kernel) & (cases["mode"] == series.setting.mode)
    times = cases[ours].sort_values("seq_len")
    names = ("interval_low_s", "median_s", "interval_high_s")
    low, median, high = (times[name].to_numpy(dtype=float) for name in names)
    bars = np.maximum([median - low, high - median], 0)
    style = {**view.looks[series.kernel].drawn, "capsize": 2.5, "elinewidth": 1.2, "zorder": 3, **changes}
    axes.errorbar(times["seq_len"].to_numpy(dtype=float), median, yerr=bars, **style)
    mark_floors(axes, times["seq_len"], median, times["floor_verdict"])


def time_tick(value: float) -> str:
    """The label of a tick: "30 ms"."""
    return wording.seconds_tick(value)


def bytes_tick(value: float) -> str:
    """The label of a tick: "30 MB"."""
    return wording.amount_tick(value, "B")


def reason_at_end(left_out: pd.DataFrame, end: Point, color: str) -> Iterator[Label]:
    """Why a line ends at this point, if longer lengths are among the cases left out."""
    words = {**wording.OUTCOME_WORDS, "over_time": "time limit", "over_memory": "memory limit"}
    places = (
        # Beyond the mark of theory, where there is one.
        (12, 0),
        (8, 6),
        (8, -6),
        (8, 12),
        (8, -12),
        (-12, 12),
        (-30, 8),
        (-40, 4),
        (-30, 16),
        (-72, 8),
    )
    beyond = left_out[left_out["seq_len"] > end[0]].sort_values("seq_len")
    if len(beyond):
        yield Label(words[beyond["outcome"].iloc[0]], *end, color, places, "left")


def reference_slopes(
    axes: Axes, labeller: Labeller, high: Point, low: Point, shortest: float = 0, *, decode: bool = False
) -> None:
    """Light lines of slope 2 above one point and of slope 1 below another, from a shortest length on.

    Of a decode, which does not grow faster than N, slope 1 above the first alone.
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for power, (x, y), shift in [(1, high, 2.2)] if decode else [(2, high, 2.2), (1, low, 1 / 2.2)]:
        scale = shift * y / x**power
        start, end = max(left, (bottom / scale) ** (1 / power)), min(right, (top / scale) ** (1 / power))
        start = max(start, shortest)
        if end < 1.5 * start:
            continue
        ends = [scale * start**power, scale * end**power]
        axes.plot([start, end], ends, color=GUIDE, linewidth=1.4, zorder=1)
        for share in (0.5, 0.35, 0.65, 0.2, 0.8, 0.1, 0.9):
            x = start ** (1 - share) * end**share
            places, sides = (((-6, 9),), "right") if shift > 1 else (((6, -9),), "left")
            if labeller.write(Label(f"slope {power}", x, scale * x**power, GUIDE_TEXT, places, sides)):
                break


def write_ends(axes: Axes, view: View, mode: str, curves: Mapping[str, pd.DataFrame], amount: str) -> None:
    """Why each kernel's curve ends, beside its end, and guides of slope 1 and 2 past the flat and the steep.

    A curve is a kernel's cases, in the order of their lengths, with the column ``amount``.
    """
    lines = {kernel: (one["seq_len"].to_list(), one[amount].to_list()) for kernel, one in curves.items()}
    labeller = Labeller(axes, list(lines.values()))
    ends = {kernel: (x[-1], y[-1]) for kernel, (x, y) in lines.items()}
    for kernel in sorted(ends, key=lambda kernel: -ends[kernel][1]):
        left_out = view.cases[(view.cases["mode"] == mode) & (view.cases["kernel"] == kernel)]
        left_out = left_out[left_out["outcome"] != "measured"]
        for label in reason_at_end(left_out, ends[kernel], view.looks[kernel].color):
            labeller.write(label)
    if any(len(x) > 1 for x, _ in lines.values()):
        steep = max(ends.values(), key=lambda end: end[1] / end[0] ** 2)
        flat = min(ends.values(), key=lambda end: end[1] / end[0])
        reference_slopes(axes, labeller, steep, flat, decode=view.is_decode)
