"""The self-attention layer in four panels: time, memory and FLOPs over length, and time over FLOPs."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from benchmarks.analysis import wording
from benchmarks.analysis.plots.labels import Label, Labeller
from benchmarks.analysis.plots.looks import Style
from benchmarks.analysis.plots.style import (
    INK,
    MUTED,
    THEORY,
    floor_handles,
    headline,
    legend_below,
    legend_handle,
    length_axis,
    log_axis,
    mark_floors,
    theory_handle,
)
from benchmarks.analysis.report.pictures.canvas import (
    GUIDE,
    GUIDE_TEXT,
    bytes_tick,
    reason_at_end,
    reference_slopes,
    time_tick,
)
from benchmarks.analysis.report.pictures.layers import FILLS, Curve, LayerView

Line = tuple[list[float], list[float]]
TIME, MEMORY, FLOPS = "rounds_mean_s", "peak_bytes", "flops"
BESIDE = {MEMORY: "predicted_peak_bytes", FLOPS: "counted_flops"}
"""Columns marked beside a line: the prediction of a measured quantity, or the count of a predicted one."""
PROCESS = "peak_rss_bytes"
OF_PROCESS: Style = {"linestyle": ":", "linewidth": 1.2, "marker": ".", "markersize": 5}
"""The line of the memory of the whole process, beside that of the tensors."""
IN_THEORY: Style = {"linestyle": (0, (4, 2)), "linewidth": 1.2, "markerfacecolor": "white"}
"""The line of what was not measured, and is known from its closed form."""


def flops_tick(value: float) -> str:
    """The label of a tick: "30 GFLOP"."""
    return wording.amount_tick(value, "FLOP")


TICKS = {TIME: time_tick, MEMORY: bytes_tick, FLOPS: flops_tick}
WORDS = {
    TIME: "mean time (bars: ± one standard error over rounds)",
    MEMORY: "peak memory above the inputs (1 MB = 10⁶ bytes)",
    FLOPS: "FLOPs in theory (closed form)",
}


def profiling_picture(view: LayerView) -> Figure:
    """Four log-log panels of one layer, every kernel in every environment a line."""
    figure = Figure(figsize=(12, 10.5), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 0.94), w_pad=0.12))
    headline(figure, "A whole self-attention layer: time, memory and FLOPs", view.subtitle)
    legend_below(figure, _legend(view), 3)
    panels = figure.subplots(2, 2).ravel()
    for axes, field, title in zip(panels, (TIME, MEMORY, FLOPS), ("Time", "Memory", "FLOPs"), strict=False):
        length_axis(axes, view.lengths)
        log_axis(axes, *_range(view, field), words=TICKS[field])
        axes.set_ylabel(WORDS[field])
        axes.set_title(f"{title} over sequence length", loc="left", color=INK)
    last = panels[3]
    log_axis(last, *_range(view, FLOPS), words=TICKS[FLOPS], which="x")
    log_axis(last, *_range(view, TIME), words=TICKS[TIME])
    last.set(xlabel=WORDS[FLOPS], ylabel=WORDS[TIME])
    last.set_title("Time over FLOPs", loc="left", color=INK)
    for axes, x, y in zip(panels, ("seq_len",) * 3 + (FLOPS,), (TIME, MEMORY, FLOPS, TIME), strict=True):
        _draw(axes, view, x, y)
    return figure


def _range(view: LayerView, field: str) -> tuple[float, float]:
    tables = [table for curve in view.curves for table in (curve.cases, curve.in_theory)]
    values = pd.concat([table[name] for table in tables for name in (field, BESIDE.get(field, field))])
    values = values[values > 0]
    if values.empty:
        return 1, 10
    # A process grows by a page or by none where it uses again what it held: that sets no lower end.
    process = max(table[PROCESS].max() for table in tables) if field == MEMORY else 0.0
    return values.min() / 3, float(np.fmax(values.max(), process)) * 3


def _draw(axes: Axes, view: LayerView, x: str, y: str) -> None:
    """One panel: the lines, why they end, and guides."""
    lines = [line for curve in view.curves for line in _draw_curve(axes, curve, x, y)]
    more = [line for curve in view.curves for line in _draw_more(axes, curve, x, y)]
    labeller = Labeller(axes, [*lines, *more])
    if x == FLOPS:
        _rates(axes, labeller, lines)
        return
    if y == TIME:
        for curve in view.curves:
            for label in reason_at_end(curve.left_out, _end(curve), curve.look.color):
                labeller.write(label)
    # Over the last decade only: across four of them the guides would cross all lines.
    start = max((length for at, _ in lines for length in at), default=0) / 10
    points = [point for line in lines for point in zip(*line, strict=True) if point[0] >= start]
    if points and len(view.lengths) > 1:
        steep = max(points, key=lambda point: point[1] / point[0] ** 2)
        reference_slopes(axes, labeller, steep, min(points, key=lambda point: point[1] / point[0]), start)


def _draw_curve(axes: Axes, curve: Curve, x: str, y: str) -> Iterator[Line]:
    """Draw one line with its bars and the marks beside it."""
    cases = curve.cases[curve.cases[[x, y]].gt(0).all(axis=1)]
    if cases.empty:
        return
    at, values = cases[x].to_numpy(dtype=float), cases[y].to_numpy()
    errors = cases["rounds_stderr_s"].to_numpy() if y == TIME else None
    axes.errorbar(at, values, yerr=errors, capsize=2.5, **curve.drawn)
    if y in BESIDE:
        axes.plot(at, cases[BESIDE[y]].to_numpy(), color=curve.look.color, **THEORY, zorder=5)
    if y == TIME:
        mark_floors(axes, at, values, cases["floor_verdict"])
    yield list(at), list(values)


def _draw_more(axes: Axes, curve: Curve, x: str, y: str) -> Iterator[Line]:
    """Draw the memory of the process, and what is known of lengths that were left out."""
    if x == FLOPS or y == TIME:
        return
    if y == MEMORY:
        grown = curve.cases[curve.cases[PROCESS] > 0]
        yield _plot(axes, grown[x], grown[PROCESS], {"color": curve.look.color, **OF_PROCESS})
    field = BESIDE[y] if y == MEMORY else y
    gone = curve.in_theory
    yield _plot(axes, gone[x], gone[field], {**curve.drawn, **IN_THEORY, "zorder": 2})


def _plot(axes: Axes, x: pd.Series, y: pd.Series, style: Style) -> Line:
    at, values = x.astype(float).to_list(), y.to_list()
    axes.plot(at, values, **style)
    return at, values


def _end(curve: Curve) -> tuple[float, float]:
    last = curve.cases.iloc[-1]
    return float(last["seq_len"]), float(last[TIME])


def _rates(axes: Axes, labeller: Labeller, lines: list[Line]) -> None:
    """Light lines of constant FLOP/s, at every second power of ten that was reached."""
    reached = [math.log10(flops / time) for x, y in lines for flops, time in zip(x, y, strict=True)]
    if not reached:
        return
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for power in range(math.floor(min(reached)), math.ceil(max(reached)) + 1):
        rate = 10.0**power
        start, end = max(left, bottom * rate), min(right, top * rate)
        if power % 2 or end <= start:
            continue
        axes.plot([start, end], [start / rate, end / rate], color=GUIDE, linewidth=1.2, zorder=1)
        for share in (0.93, 0.07, 0.85, 0.15, 0.75, 0.25, 0.5):
            x = start ** (1 - share) * end**share
            words = wording.amount_tick(rate, "FLOP/s")
            if labeller.write(Label(words, x, x / rate, GUIDE_TEXT, ((-5, 8), (5, -8)), "right")):
                break


def _legend(view: LayerView) -> dict[str, Line2D]:
    handles = {name: legend_handle(look) for name, look in view.looks.items()}
    if len(view.environments) > 1:
        for index in range(len(view.environments)):
            fill = FILLS[index % len(FILLS)]
            handles[view.name(index)] = Line2D([], [], color=MUTED, marker="o", linestyle="none", **fill)
    cases = pd.concat([curve.cases for curve in view.curves])
    words = {"predicted_peak_bytes": "memory predicted", "counted_flops": "FLOPs counted"}
    known = [words[column] for column in words if cases[column].notna().any()]
    if known:
        handles[", ".join(known)] = theory_handle()
    if (cases[PROCESS] > 0).any():
        handles["memory of the whole process (RSS)"] = Line2D([], [], color=MUTED, **OF_PROCESS)
    if any(len(curve.in_theory) for curve in view.curves):
        handles["not measured, known in theory"] = Line2D([], [], color=MUTED, marker="o", **IN_THEORY)
    return {**handles, **floor_handles(cases["floor_verdict"])}
