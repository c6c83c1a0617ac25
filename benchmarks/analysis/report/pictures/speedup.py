"""Speedup of linear over standard attention."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from benchmarks.analysis import wording
from benchmarks.analysis.plots.labels import Label, Labeller
from benchmarks.analysis.plots.looks import Style
from benchmarks.analysis.plots.style import (
    INK,
    MUTED,
    floor_handles,
    legend_below,
    legend_handle,
    log_axis,
    mark_floors,
)
from benchmarks.analysis.reading.roles import role_words
from benchmarks.analysis.report.pictures.canvas import make_panels
from benchmarks.analysis.report.pictures.compared import LINES, Speedup, speedups_of, verdict_of
from benchmarks.analysis.report.pictures.views import View

FEW_LINES = 3
"""With up to so many lines every point can carry its value; with more, only the outermost lines can."""
MOST_BARS = 12
"""The most bars of a panel whose labels stand side by side."""
OPAQUE = 0.85


def speedup_picture(view: View) -> Figure | None:
    """Speedup of the first contenders over every baseline; None where no two kernels can be compared."""
    speedups = {mode: list(speedups_of(view, mode)) for mode in view.series}
    shown = [mode for mode in view.series if speedups[mode]]
    if not shown:
        return None
    everything = [one for lines in speedups.values() for one in lines]
    lengths = sorted({length for one in everything for length in one.lengths})
    contender, baseline = role_words((one.contender, one.baseline) for one in everything)
    usual = contender == "linear"
    title = "Speedup of linear over standard attention" if usual else "Speedup over the baselines"
    figure, panels = make_panels(view, title, lengths, modes=shown)
    ratios = [1.0, *(ratio for one in everything for ratio in one.ratios)]
    panels[0][1].set_ylabel(f"time of {baseline} / time of {contender} (geometric mean over the units)")
    barred = _fit_bars([speedups[mode] for mode in shown])
    legend_below(figure, _legend_of_bars(view, everything) if barred else _legend(view, everything), 4)
    for mode, axes in panels:
        log_axis(axes, min(ratios) / 2.2, max(ratios) * 2.2, words=lambda value: f"{value:g}x")
        names = list(dict.fromkeys(one.contender for one in speedups[mode] if one.line in LINES))
        axes.set_title(f"{mode}: speedup of {wording.listed(names)}", loc="left", color=INK)
        bar_above = barred and speedups[mode][0].ratios[-1] > 1
        _draw_break_even(axes, contender, baseline, words_below=bar_above)
    for mode, axes in panels:
        (_draw_bars if barred else _draw_speedups)(axes, view, mode, speedups[mode])
    return figure


def _legend(view: View, speedups: Sequence[Speedup]) -> dict[str, Line2D]:
    def name(one: Speedup) -> str:
        alone = one.is_first and len(view.roles.own) < 2
        return f"over {one.baseline}" if alone else f"{one.contender} over {one.baseline}"

    handles = {
        name(one): legend_handle(view.looks[one.colored_by], linestyle=one.line)
        for one in sorted(speedups, key=lambda one: not one.is_first)
    }
    return {**handles, **floor_handles(view.measured["floor_verdict"])}


def _draw_speedups(axes: Axes, view: View, mode: str, speedups: Sequence[Speedup]) -> None:
    for one in speedups:
        look = {**view.looks[one.colored_by].drawn, "linestyle": one.line}
        axes.plot(one.lengths, one.ratios, **look, zorder=3)
        mark_floors(axes, one.lengths, one.ratios, [verdict_of(view, mode, one, n) for n in one.lengths])
    reached = min(one.lengths[-1] for one in speedups)
    labelled = sorted(speedups, key=lambda one: -one.up_to(reached))
    if len(speedups) > FEW_LINES:
        outermost = [one for one in labelled if one.is_first]
        labelled = [outermost[0], outermost[-1]]
    break_even = (axes.get_xlim(), (1, 1))
    labeller = Labeller(axes, [*((one.lengths, one.ratios) for one in speedups), break_even])
    above, below = ((0, 9), (-6, 10), (-10, 8)), ((0, -10), (6, -10), (10, -8))
    for index, one in enumerate(labelled):
        places = (*below, *above) if 0 < index == len(labelled) - 1 else (*above, *below)
        for length, ratio in zip(one.lengths, one.ratios, strict=True):
            labeller.write(
                Label(wording.times(ratio), length, ratio, view.looks[one.colored_by].color, places)
            )


def _fit_bars(panels: Sequence[Sequence[Speedup]]) -> bool:
    """Whether each panel compares a single pair, at lengths that leave room for a bar and its label."""
    return all(len(speedups) == 1 for speedups in panels) and all(
        log(one.lengths[-1] / one.lengths[0]) <= log(_step(one.lengths)) * (MOST_BARS - 1)
        for (one,) in panels
    )


def _step(lengths: Sequence[int]) -> float:
    """The least ratio of neighbouring lengths."""
    return min((after / before for before, after in pairwise(lengths)), default=2.0)


def _draw_bars(axes: Axes, view: View, mode: str, speedups: Sequence[Speedup]) -> None:
    """A bar from the break-even to each ratio, in the colour of the faster kernel, with its label."""
    for one in speedups:
        half = _step(one.lengths) ** 0.3
        for length, ratio in zip(one.lengths, one.ratios, strict=True):
            faster = one.contender if ratio >= 1 else one.baseline
            left, width = length / half, length * (half - 1 / half)
            color = view.looks[faster].color
            axes.bar(left, ratio - 1, width, 1, align="edge", color=color, alpha=OPAQUE, zorder=3)
            axes.annotate(
                wording.times(ratio), (length, ratio), (0, 7 if ratio >= 1 else -7),
                textcoords="offset points", ha="center", va="center", fontsize=8, color=INK, zorder=6,
            )  # fmt: skip
        mark_floors(axes, one.lengths, one.ratios, [verdict_of(view, mode, one, n) for n in one.lengths])


def _legend_of_bars(view: View, speedups: Sequence[Speedup]) -> dict[str, Any]:
    won = {
        **{one.contender: None for one in speedups if max(one.ratios) >= 1},
        **{one.baseline: None for one in speedups if min(one.ratios) < 1},
    }
    handles = {f"{kernel} is faster": Patch(color=view.looks[kernel].color, alpha=OPAQUE) for kernel in won}
    return {**handles, **floor_handles(view.measured["floor_verdict"])}


def _draw_break_even(axes: Axes, contender: str, baseline: str, *, words_below: bool) -> None:
    axes.axhspan(axes.get_ylim()[0], 1, color="#f5f5f5", zorder=0)
    axes.axhline(1, color=INK, linewidth=1, zorder=2)
    axes.text(
        0.015, 0.975, f"↑ {contender} is faster", transform=axes.transAxes, va="top", fontsize=9, color=MUTED
    )
    axes.text(
        0.985, 0.025, f"↓ {baseline} is faster", transform=axes.transAxes, ha="right", fontsize=9, color=MUTED
    )  # fmt: skip
    place: Style = {"xytext": (0, -4), "va": "top"} if words_below else {"xytext": (0, 3)}
    axes.annotate(
        "break-even", (0.99, 1), xycoords=axes.get_yaxis_transform(), textcoords="offset points", ha="right",
        fontsize=8, color=INK, **place,
    )  # fmt: skip
