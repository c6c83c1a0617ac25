"""Measured times, the laws of theory, and where they cross."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from benchmarks.analysis import wording
from benchmarks.analysis.plots.labels import Label, Labeller
from benchmarks.analysis.plots.style import IMPOSSIBLE_WORDS, INK, impossible_handle, legend_handle, log_axis
from benchmarks.analysis.report.pictures.canvas import (
    draw_times,
    make_panels,
    time_range,
    time_tick,
    what_bars_span,
)
from benchmarks.analysis.report.pictures.views import View
from benchmarks.analysis.report.summary import best_linear
from benchmarks.analysis.scaling.laws import predict

Series = Mapping[str, Any]


def theory_picture(view: View) -> Figure:
    """Measured points, the law that theory gives each family, and the crossovers with their intervals."""
    figure, panels = make_panels(
        view, "Theory and measurement: c + a N², c + a N, and where they cross", view.lengths, 7.4
    )
    low, high = time_range(view, 5, 2.5)
    panels[0][1].set_ylabel(f"median time ({what_bars_span(view)})")
    for mode, axes in panels:
        log_axis(axes, low, high, words=time_tick)
        shown = _shown(view.series[mode])
        entries: list[tuple[Any, str]] = [_draw_law(axes, view, one) for one in shown]
        best, kernels = best_linear(view.series[mode]), [one["kernel"] for one in shown]
        crossovers = [
            one
            for one in view.crossovers
            if (one["mode"], one["quantity"], one["linear"]) == (mode, "time", best)
            and one["standard"] in kernels
        ]
        entries += [_crossover_entry(view, one) for one in crossovers]
        if (view.impossible["mode"] == mode).any():
            entries.append((impossible_handle(), IMPOSSIBLE_WORDS))
        axes.legend(
            *zip(*entries, strict=True), loc="upper left", bbox_to_anchor=(-0.02, -0.12), borderaxespad=0
        )
        _draw_crossovers(axes, view, mode, [one for one in crossovers if one["kind"] == "inside"])
    return figure


def _shown(series: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The textbook form and the best kernel of each family; more would hide the laws behind the lines."""
    standard = [one for one in series if one["family"] == "standard"]
    longest = max((one["seq_lens"][-1] for one in standard), default=0)
    rivals = [(one["median_s"][-1], one["kernel"]) for one in standard if one["seq_lens"][-1] == longest]
    names = {
        "standard-explicit",
        "linear-explicit",
        best_linear(series),
        min(rivals, default=(0, None))[1],
    }
    return sorted(
        (one for one in series if one["kernel"] in names), key=lambda one: one["family"] != "standard"
    )


def _draw_law(axes: Axes, view: View, series: Series) -> tuple[Line2D, str]:
    """Draw the points and the fit, and return the entry of the legend."""
    look, name = view.looks[series["kernel"]], "quadratic" if series["family"] == "standard" else "linear"
    draw_times(axes, view, series, linestyle="none")
    law = series["laws"][name]
    if law is None:
        return legend_handle(look, linestyle="none"), f"{series['kernel']}: too few lengths for a fit"
    lengths = np.geomspace(series["seq_lens"][0], series["seq_lens"][-1], 200)
    axes.plot(lengths, predict(name, law, lengths), color=look.color, linestyle=look.line, zorder=2)
    off = f"off by {100 * law['relative_error']:.0f} %" + (", untenable" if law["tenable"] is False else "")
    return legend_handle(look), f"{series['kernel']}: {wording.law(law)}  ({off})"


def _crossover_entry(view: View, crossover: Mapping[str, Any]) -> tuple[Patch, str]:
    color = view.looks[crossover["standard"]].color if crossover["kind"] == "inside" else "none"
    return Patch(facecolor=color, alpha=0.25, linewidth=0), wording.short_crossover(crossover)


def _draw_crossovers(axes: Axes, view: View, mode: str, crossovers: Sequence[Mapping[str, Any]]) -> None:
    """A ring where two measured lines meet, and a band over the interval of N*."""
    times = {one["kernel"]: one for one in view.series[mode]}
    labeller = Labeller(axes)
    for one in crossovers:
        color, n, standard = view.looks[one["standard"]].color, one["n"], times[one["standard"]]
        if one["low"] is not None:
            axes.axvspan(one["low"], one["high"], color=color, alpha=0.16, linewidth=0, zorder=0)
        axes.axvline(n, color=color, linewidth=1, linestyle=":", zorder=1)
        y = math.exp(np.interp(math.log(n), np.log(standard["seq_lens"]), np.log(standard["median_s"])))
        axes.plot([n], [y], marker="o", markersize=11, markerfacecolor="none", markeredgecolor=INK, zorder=5)
        words = f"N* = {wording.interval(n, one['low'], one['high'], '.0f')}"
        places = [(side, height) for side in (5, -130) for height in (12, 26, 40, 54)]
        label = Label(words, one["high"] or n, axes.get_ylim()[0], color, places, "left")
        labeller.write(label, must=True)
