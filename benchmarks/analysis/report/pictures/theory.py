"""Measured times, the laws of theory, and where they cross."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from benchmarks.analysis import wording
from benchmarks.analysis.plots.labels import Label, Labeller
from benchmarks.analysis.plots.style import INK, floor_handles, legend_handle, log_axis
from benchmarks.analysis.report import sentences
from benchmarks.analysis.report.conclusions import PairCrossover, Series, best_linear
from benchmarks.analysis.report.pictures.canvas import (
    draw_times,
    make_panels,
    time_range,
    time_tick,
    what_bars_span,
)
from benchmarks.analysis.report.pictures.views import View
from benchmarks.analysis.scaling.fitted import FittedLaw
from benchmarks.analysis.scaling.forms import Coefficients


def theory_picture(view: View) -> Figure:
    """Measured points, the law that each kernel's FLOPs follow, and the crossovers with their intervals."""
    figure, panels = make_panels(
        view, "Theory and measurement: c + a N², c + a N, and where they cross", view.lengths, 7.4
    )
    low, high = time_range(view, 5, 2.5)
    panels[0][1].set_ylabel(f"median time ({what_bars_span(view)})")
    for mode, axes in panels:
        log_axis(axes, low, high, words=time_tick)
        shown = _shown(view.series[mode])
        entries: list[tuple[Any, str]] = [_draw_law(axes, view, one) for one in shown]
        best, kernels = best_linear(view.series[mode]), [one.kernel for one in shown]
        pairs = [
            pair
            for pair in view.crossovers
            if (pair.setting.mode, pair.quantity, pair.linear) == (mode, "time", best)
            and pair.standard in kernels
        ]
        entries += [_crossover_entry(view, pair) for pair in pairs]
        cases = view.measured[view.measured["mode"] == mode]
        entries += [(handle, words) for words, handle in floor_handles(cases["floor_verdict"]).items()]
        axes.legend(
            *zip(*entries, strict=True), loc="upper left", bbox_to_anchor=(-0.02, -0.12), borderaxespad=0
        )
        _draw_crossovers(axes, view, mode, pairs)
    return figure


def _shown(series: Sequence[Series]) -> list[Series]:
    """The textbook form and the best kernel of each family; more lines would hide the laws."""
    standard = [one for one in series if one.family == "standard"]
    longest = max((one.seq_lens[-1] for one in standard), default=0)
    finalists = [(one.median_s[-1], one.kernel) for one in standard if one.seq_lens[-1] == longest]
    best_standard = min(finalists)[1] if finalists else None
    names = {"standard-explicit", "linear-explicit", best_linear(series), best_standard}
    return sorted((one for one in series if one.kernel in names), key=lambda one: one.family != "standard")


def law_of_theory(series: Series) -> FittedLaw[Coefficients] | None:
    """The law that the FLOPs of a series follow, as fitted to its times; else that of its family."""
    of_family = "quadratic" if series.family == "standard" else "linear"
    return series.laws.bent or series.laws.known.get(series.laws.counted or of_family)


def _draw_law(axes: Axes, view: View, series: Series) -> tuple[Line2D, str]:
    """Draw the points and the fit, and return the entry of the legend."""
    look, law = view.looks[series.kernel], law_of_theory(series)
    draw_times(axes, view, series, linestyle="none")
    if law is None:
        return legend_handle(look, linestyle="none"), f"{series.kernel}: too few lengths for a fit"
    lengths = np.geomspace(series.seq_lens[0], series.seq_lens[-1], 200)
    seconds = law.coefficients.seconds(lengths)
    axes.plot(lengths, seconds, color=look.color, linestyle=look.line, zorder=2)
    untenable = f", untenable, {series.laws_firmness}" if law.tenable is False else ""
    off = f"off by {100 * law.relative_error:.0f} %{untenable}"
    words = f"{series.kernel}: {sentences.law(law.coefficients.terms)}  ({off})"
    return legend_handle(look), f"{words}\n{sentences.growth(series.exponent)} ({series.exponent.firmness})"


def _crossover_entry(view: View, pair: PairCrossover) -> tuple[Patch, str]:
    color = view.looks[pair.standard].color if pair.found.kind == "inside" else "none"
    return Patch(facecolor=color, alpha=0.25, linewidth=0), sentences.short_crossover(pair)


def _draw_crossovers(axes: Axes, view: View, mode: str, pairs: Sequence[PairCrossover]) -> None:
    """A ring where two measured lines meet, and a band over the interval of N*."""
    times = {one.kernel: one for one in view.series[mode]}
    labeller = Labeller(axes)
    for pair in pairs:
        n, low, high = pair.found.n, pair.found.low, pair.found.high
        if n is None:
            continue
        color, standard = view.looks[pair.standard].color, times[pair.standard]
        if low is not None and high is not None:
            axes.axvspan(low, high, color=color, alpha=0.16, linewidth=0, zorder=0)
        axes.axvline(n, color=color, linewidth=1, linestyle=":", zorder=1)
        y = math.exp(np.interp(math.log(n), np.log(standard.seq_lens), np.log(standard.median_s)))
        axes.plot([n], [y], marker="o", markersize=11, markerfacecolor="none", markeredgecolor=INK, zorder=5)
        words = f"N* = {wording.interval(n, low, high, '.0f')}"
        places = [(side, height) for side in (5, -130) for height in (12, 26, 40, 54)]
        label = Label(words, high or n, axes.get_ylim()[0], color, places, "left")
        labeller.write(label, must=True)
