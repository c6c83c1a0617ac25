"""Achieved FLOP/s over arithmetic intensity, under the measured roof."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.analysis import wording
from benchmarks.analysis.plots.labels import Label, Labeller
from benchmarks.analysis.plots.style import INK, MUTED, floor_handles, log_axis, mark_floors
from benchmarks.analysis.report.ceilings import Ceiling
from benchmarks.analysis.report.pictures.canvas import Point, kernels_below, make_panels
from benchmarks.analysis.report.pictures.memory import numbers
from benchmarks.analysis.report.pictures.views import View

Places = tuple[tuple[float, float], ...]

BESIDE: Places = tuple((side * 16, height) for height in (0, 8, -8, 16, -16) for side in (1, -1))
AROUND: Places = ((0, -10), (0, 10), (0, -20), (0, 20))
"""Where a length can be named, in points from its mark."""
REACH = (9, 5)
"""Half the width and half the height of a label of a length, in points."""


def roofline_picture(view: View) -> Figure | None:
    """Every case under the roof of its device and dtype; None where no ceilings were measured for it."""
    view = view.faded()
    if view.ceiling is None or view.roof is None:
        return None
    cases = numbers(view.measured, "flops", "min_bytes")
    cases = cases.assign(
        intensity=cases["flops"] / cases["min_bytes"], rate=cases["flops"] / cases["median_s"]
    )
    cases = cases[np.isfinite(cases["intensity"]) & (cases["rate"] > 0)].sort_values("seq_len")
    if cases.empty:
        return None
    bandwidth, most = view.roof.bandwidth, view.roof.matrix_rate
    figure, panels = make_panels(view, "Roofline: what was achieved of what this device can do", None, 7)
    ridge = most / bandwidth
    left, right = min(cases["intensity"].min() / 3, ridge / 10), max(cases["intensity"].max(), ridge) * 3
    panels[0][1].set_ylabel("achieved rate: FLOPs / median time")
    kernels_below(figure, view, floor_handles(cases["floor_verdict"]), set(cases["kernel"]))
    for _, axes in panels:
        log_axis(axes, left, right, words=lambda value: f"{value:g}", which="x")
        log_axis(axes, cases["rate"].min() / 3, max(most, cases["rate"].max()) * 3, words=_rate_tick)
        axes.set_xlabel("arithmetic intensity: FLOPs / least bytes moved (FLOP per byte)")
        _draw_roof(axes, view.ceiling)
    for mode, axes in panels:
        axes.set_title(f"{mode} (numbers: first and last N of a kernel)", loc="left", color=INK)
        _draw_cases(axes, view, cases[cases["mode"] == mode], bandwidth, most)
    return figure


def _rate_tick(value: float) -> str:
    return wording.amount_tick(value, "FLOP/s")


def _draw_roof(axes: Axes, ceiling: Ceiling) -> None:
    """Draw the roof, and shade what lies above the roof of the fastest units."""
    x = np.geomspace(*axes.get_xlim(), 200)
    median, fastest = ceiling.roof(), ceiling.roof("high")
    assert median and fastest
    axes.plot(x, np.minimum(median.bandwidth * x, median.matrix_rate), color=INK, linewidth=1.6, zorder=2)
    roof = np.minimum(fastest.bandwidth * x, fastest.matrix_rate)
    axes.fill_between(x, roof, axes.get_ylim()[1], color="#f5f5f5", linewidth=0, zorder=0)


def _draw_cases(axes: Axes, view: View, cases: pd.DataFrame, bandwidth: float, most: float) -> None:
    """A line per kernel through its lengths, of which the first and the last are named."""
    curves = {}
    for kernel, group in cases.groupby("kernel"):
        x, y = group["intensity"].to_numpy(), group["rate"].to_numpy()
        curves[str(kernel)] = (x, y, group["seq_len"].to_list())
        axes.plot(x, y, **view.looks[str(kernel)].drawn, zorder=3)
        mark_floors(axes, x, y, group["floor_verdict"])
    axes_x = np.geomspace(*axes.get_xlim(), 100)
    roof = (list(axes_x), list(np.minimum(bandwidth * axes_x, most)))
    labeller = Labeller(axes, [*((list(x), list(y)) for x, y, _ in curves.values()), roof])
    _name_roof(axes, labeller, bandwidth, most)
    for end in (-1, 0):
        for kernel, (x, y, lengths) in curves.items():
            upright = max(x) < 1.2 * min(x)
            places = (*BESIDE, *AROUND) if upright else (*AROUND, *BESIDE)
            if y[end] <= min(bandwidth * x[end], most):
                places = _beneath_roof(axes, (x[end], y[end]), places, bandwidth, most)
            if places and (end == -1 or len(lengths) > 1):
                name = wording.length(lengths[end])
                labeller.write(Label(name, x[end], y[end], view.looks[kernel].color, places))


def _beneath_roof(axes: Axes, point: Point, places: Places, bandwidth: float, most: float) -> Places:
    """The places from which a short label does not reach above the roof: there it would seem impossible."""
    corners = np.asarray(places) + (-REACH[0], REACH[1])
    at = axes.transData.transform(point) + corners * axes.figure.dpi / 72
    x, y = axes.transData.inverted().transform(at).T
    beneath = y < np.minimum(bandwidth * x, most)
    return tuple(place for place, kept in zip(places, beneath, strict=True) if kept)


def _name_roof(axes: Axes, labeller: Labeller, bandwidth: float, most: float) -> None:
    """Write the two ceilings along their lines, the matrix rate where no case is in its way."""
    left, right = axes.get_xlim()
    ridge = most / bandwidth
    places = (((-4, 8), right, "right"), ((4, 8), ridge, "left"), ((-4, 26), right, "right"))
    words = f"matrix product {wording.amount(most, 'FLOP/s')}"
    for offset, x, align in places:
        if labeller.write(Label(words, x, most, MUTED, (offset,), align)):
            break
    start, end = axes.transData.transform([(left, bandwidth * left), (ridge, most)])
    angle = math.degrees(math.atan2(*(end - start)[::-1]))
    bottom = max(left, axes.get_ylim()[0] / bandwidth)
    crowd = [x for line in axes.lines[1:] for x in np.asarray(line.get_xdata(), dtype=float)]
    along = [bottom ** (1 - share) * ridge**share for share in (0.5, 0.65, 0.35, 0.8, 0.2)]
    # The farther from any case, the better: of equals the first.
    x = max(along, key=lambda x: min(2.0, *(max(x, one) / min(x, one) for one in crowd)))
    text = axes.annotate(
        f"copy {wording.amount(bandwidth, 'B/s')}", (x, bandwidth * x), (-6, 6), textcoords="offset points",
        rotation=angle, rotation_mode="anchor", ha="center", va="center", fontsize=8, color=MUTED,
    )  # fmt: skip
    labeller.taken.append(text.get_window_extent())
