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
from benchmarks.analysis.plots.looks import Style
from benchmarks.analysis.plots.style import INK, MUTED, floor_handles, legend_handle, log_axis
from benchmarks.analysis.reading.roles import Roles
from benchmarks.analysis.report import sentences
from benchmarks.analysis.report.conclusions import PairCrossover, Series, headline_kernel
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
    laws = "c + a N, c alone" if view.is_decode else "c + a N², c + a N"
    figure, panels = make_panels(
        view, f"Theory and measurement: {laws}, and where they cross", view.lengths, 7.4
    )
    low, high = time_range(view, 5, 2.5)
    panels[0][1].set_ylabel(f"median time ({what_bars_span(view)})")
    for mode, axes in panels:
        log_axis(axes, low, high, words=time_tick)
        shown = shown_series(view.series[mode], view.roles)
        entries: list[tuple[Any, str]] = [_draw_law(axes, view, one) for one in shown]
        best, kernels = headline_kernel(view.series[mode], view.roles), [one.kernel for one in shown]
        pairs = [
            pair
            for pair in view.crossovers
            if (pair.setting.mode, pair.quantity, pair.contender) == (mode, "time", best)
            and pair.baseline in kernels
        ]
        entries += [_crossover_entry(view, pair) for pair in pairs]
        if any(map(law_of_theory, shown)):
            entries.append((Line2D([], [], color=MUTED, **EXTRAPOLATED), EXTRAPOLATED_WORDS))
        cases = view.measured[view.measured["mode"] == mode]
        entries += [(handle, words) for words, handle in floor_handles(cases["floor_verdict"]).items()]
        axes.legend(
            *zip(*entries, strict=True), loc="upper left", bbox_to_anchor=(-0.02, -0.12), borderaxespad=0
        )
        _draw_crossovers(axes, view, mode, pairs)
    return figure


BEYOND = 1.2
"""How far fits are drawn beyond the longest length of their series, as a factor."""
EXTRAPOLATED: Style = {"linestyle": (0, (2, 2)), "linewidth": 1.1, "alpha": 0.8}
EXTRAPOLATED_WORDS = f"extrapolated, to {BEYOND:g} times the longest N"
MOST_SHOWN = 5
"""The most kernels of one panel; more lines would hide the laws."""


def shown_series(series: Sequence[Series], roles: Roles) -> list[Series]:
    """A user's own kernels, the textbook forms, the best contender and baseline, and what bends."""
    baselines = [one for one in series if roles.is_baseline(one.kernel)]
    longest = max((one.seq_lens[-1] for one in baselines), default=0)
    finalists = [(one.median_s[-1], one.kernel) for one in baselines if one.seq_lens[-1] == longest]
    best_baseline = min(finalists)[1] if finalists else None
    own = sorted((one.kernel for one in series if one.kernel in roles.own), key=roles.order)
    wanted = [
        *own[: MOST_SHOWN - 2],
        best_baseline,
        headline_kernel(series, roles),
        "standard-explicit",
        "linear-explicit",
    ]
    wanted += [one.kernel for one in series if one.laws.bent]
    names = list(dict.fromkeys(wanted))[: MOST_SHOWN if own else None]
    found = [one for one in series if one.kernel in names]
    return sorted(found, key=lambda one: (roles.order(one.kernel)[:2], not roles.is_baseline(one.kernel)))


def law_of_theory(series: Series) -> FittedLaw[Coefficients] | None:
    """The law that the FLOPs of a series follow, fitted to its times; else N or N², whichever is likelier."""
    likelier = "quadratic" if _is_quadratic(series) else "linear"
    return series.laws.bent or series.laws.known.get(series.laws.counted or likelier)


def _draw_law(axes: Axes, view: View, series: Series) -> tuple[Line2D, str]:
    """Draw the points and the fit, and return the entry of the legend."""
    look, law = view.looks[series.kernel], law_of_theory(series)
    draw_times(axes, view, series, linestyle="none")
    if law is None:
        return legend_handle(look, linestyle="none"), f"{series.kernel}: too few lengths for a fit"
    first, last = series.seq_lens[0], series.seq_lens[-1]
    measured: Style = {"linestyle": look.line}
    for start, end, style in ((first, last, measured), (last, BEYOND * last, EXTRAPOLATED)):
        lengths = np.geomspace(start, end, 200)
        axes.plot(lengths, law.coefficients.seconds(lengths), color=look.color, **style, zorder=2)
    growth = f"{sentences.growth(series.exponent)} ({series.exponent.firmness}){_by_bytes(series)}"
    return legend_handle(look), f"{law_words(series, law)}\n{growth}"


def law_words(series: Series, law: FittedLaw[Coefficients]) -> str:
    """A law that was fitted to a series, and by how much it misses."""
    untenable = f", untenable, {series.laws_firmness}" if law.tenable is False else ""
    off = f"off by {100 * law.relative_error:.0f} %{untenable}"
    return f"{series.kernel}: {sentences.law(law.coefficients.terms)}  ({off})"


def _by_bytes(series: Series) -> str:
    """The power that theory gives a decode: that of the bytes which it reads and writes."""
    if series.setting.phase != "decode" or series.min_bytes_exponent is None:
        return ""
    return f"; theory, by the bytes moved, p = {series.min_bytes_exponent:.2f}"


def _is_quadratic(series: Series) -> bool:
    """Whether theory gives a kernel N²: by its FLOPs, else by its family, else by what it was found to be."""
    if series.flops_exponent is not None:
        return series.flops_exponent > 1.5
    return series.family == "standard" or series.exponent.verdict in ("quadratic", "like quadratic")


def _crossover_entry(view: View, pair: PairCrossover) -> tuple[Patch, str]:
    color = view.looks[pair.baseline].color if pair.found.kind == "inside" else "none"
    return Patch(facecolor=color, alpha=0.25, linewidth=0), sentences.short_crossover(pair)


def _draw_crossovers(axes: Axes, view: View, mode: str, pairs: Sequence[PairCrossover]) -> None:
    """A ring where two measured lines meet, and a band over the interval of N*."""
    times = {one.kernel: one for one in view.series[mode]}
    labeller = Labeller(axes)
    for pair in pairs:
        n, low, high = pair.found.n, pair.found.low, pair.found.high
        if n is None:
            continue
        color, standard = view.looks[pair.baseline].color, times[pair.baseline]
        if low is not None and high is not None:
            axes.axvspan(low, high, color=color, alpha=0.16, linewidth=0, zorder=0)
        axes.axvline(n, color=color, linewidth=1, linestyle=":", zorder=1)
        y = math.exp(np.interp(math.log(n), np.log(standard.seq_lens), np.log(standard.median_s)))
        axes.plot([n], [y], marker="o", markersize=11, markerfacecolor="none", markeredgecolor=INK, zorder=5)
        words = f"N* = {wording.interval(n, low, high, '.0f')}"
        places = [(side, height) for side in (5, -130) for height in (12, 26, 40, 54)]
        label = Label(words, high or n, axes.get_ylim()[0], color, places, "left")
        labeller.write(label, must=True)
