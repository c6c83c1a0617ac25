"""The picture of a comparison: the ratio of every case with its interval, what changed first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.analysis import wording
from benchmarks.analysis.comparison.conclusions import CaseChange, Comparison
from benchmarks.analysis.comparison.naming import ORDER, by_verdict, change, commits, namer, share
from benchmarks.analysis.plots.style import (
    ALIKE_INK,
    BETTER_INK,
    INK,
    MUTED,
    UNDECIDED_INK,
    WORSE_INK,
    headline,
    legend_below,
    mark_kernel,
)
from benchmarks.analysis.scaling.units import Floats

MOST_ROWS = 40
COLORS = {"slower": WORSE_INK, "faster": BETTER_INK, "inconclusive": UNDECIDED_INK, "same": ALIKE_INK}
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Distances of the ticks, as shares of the time."""


def comparison_picture(comparison: Comparison) -> Figure:
    """A row per case, the changes first; beyond `MOST_ROWS` it says how many are not shown.

    Without a common case it says so.
    """
    cases = by_verdict(comparison.cases)
    shown = cases[:MOST_ROWS]
    places = _places(shown)
    height = 2.1 + 0.215 * (max(places, default=0) + 1)
    figure = Figure(
        figsize=(12, height), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - 0.75 / height), w_pad=0.12)
    )
    headline(
        figure,
        "Time of head over base, geometric means over the units, with 95 % intervals",
        _subtitle(comparison, len(shown)),
    )
    axes = figure.subplots()
    if not shown:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no case was measured on both sides", ha="center", color=MUTED)
        return figure
    _ratio_axis(axes, shown, comparison.margin)
    _draw_rows(axes, shown, places)
    name = namer(comparison)
    names = [(one.case.kernel, name(one.case.kernel, one.case.setting, one.case.seq_len)) for one in shown]
    _name_rows(axes, names, places)
    axes.set_ylim(max(places) + 0.8, -0.8)
    axes.grid(axis="y", visible=False)
    _name_groups(axes, shown, places, Counter(case.verdict for case in cases))
    legend_below(figure, _legend(comparison, shown), 5)
    return figure


def _subtitle(comparison: Comparison, shown: int) -> str:
    hidden = len(comparison.cases) - shown
    units, kind = comparison.units, comparison.unit
    many = f"{units.base}" if units.base == units.head else f"{units.base} and {units.head}"
    base, head = commits(comparison.base), commits(comparison.head)
    words = [f"{head} against {base}"] if base and head else []
    words += [f"units: {many} {kind}s" + (", tentative" if comparison.tentative else "")]
    words += [f"{wording.count(hidden, 'case')} not shown, in comparison.json"] if hidden else []
    return "; ".join(words)


def _places(cases: Sequence[CaseChange]) -> list[float]:
    """Heights of the rows, with a gap between verdicts."""
    places, place = [], 0.0
    for index, case in enumerate(cases):
        place += 0.0 if index == 0 else 1.0 if case.verdict == cases[index - 1].verdict else 2.0
        places.append(place)
    return places


def _limits(cases: Sequence[CaseChange], margin: float) -> tuple[float, float]:
    """Room for every ratio and most intervals; the widest interval shall not squeeze all others."""
    changes = [case.change for case in cases]
    ratios = [one.ratio for one in changes if one.ratio]
    widths = [one.high / one.ratio for one in changes if one.high and one.ratio]
    usual = float(np.quantile(widths, 0.75)) if widths else 1.0
    room = max(1.25 * usual - 0.25, 1 + 0.5 * margin)
    low, high = min([*ratios, 1 / (1 + margin)]) / room, max([*ratios, 1 + margin]) * room
    return max(low, 1e-3), min(high, 1e3)


def _ratio_axis(axes: Axes, cases: Sequence[CaseChange], margin: float) -> None:
    low, high = _limits(cases, margin)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.axvspan(1 / (1 + margin), 1 + margin, color="#efefef", zorder=0)
    axes.axvline(1, color=INK, linewidth=1, zorder=1)
    if high / low > 8:
        ticks = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        ticks = np.concatenate([ticks, 2 * ticks, 5 * ticks])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    else:
        step = next((step for step in STEPS if (high - low) / step <= 11), STEPS[-1])
        ticks = step * np.arange(np.ceil(low / step), np.floor(high / step) + 1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value)))
    axes.xaxis.set_major_locator(FixedLocator(_thinned(ticks[(ticks >= low) & (ticks <= high)], high / low)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("← faster     time of head against base     slower →")


def _percent(ratio: float) -> str:
    return "0 %" if abs(ratio - 1) < 1e-9 else f"{100 * (ratio - 1):+.0f} %"


def _thinned(ticks: Floats, span: float) -> list[float]:
    """The ticks whose labels do not touch, from 1 outward."""
    kept: list[float] = []
    for tick in sorted(map(float, ticks), key=lambda tick: abs(np.log(tick))):
        if all(abs(np.log(tick / other)) > 0.07 * np.log(span) for other in kept):
            kept.append(tick)
    return sorted(kept)


def _draw_rows(axes: Axes, cases: Sequence[CaseChange], places: Sequence[float]) -> None:
    left, right = axes.get_xlim()
    for case, place in zip(cases, places, strict=True):
        ratio = case.change.ratio
        if ratio is None:
            continue
        color, hollow = COLORS[case.verdict], case.verdict == "inconclusive"
        low, high = case.change.low or ratio, case.change.high or ratio
        axes.plot([max(low, left), min(high, right)], [place, place], color=color, linewidth=1.6, zorder=2)
        for end, beyond, marker in ((left, low < left, "<"), (right, high > right, ">")):
            if beyond:
                axes.plot(end, place, marker=marker, color=color, markersize=5, clip_on=False, zorder=3)
        axes.plot(
            ratio, place, marker="o", color=color, markersize=5, zorder=4,
            markerfacecolor="white" if hollow else color,
        )  # fmt: skip
        words = change(case.change)
        axes.annotate(
            words, (1.015, place), xycoords=axes.get_yaxis_transform(), va="center", fontsize=8,
            color=color if case.verdict in ("slower", "faster") else MUTED, annotation_clip=False,
        )  # fmt: skip


def _name_rows(axes: Axes, names: Sequence[tuple[str, str]], places: Sequence[float]) -> None:
    """The name of each case at the left of its row, with the marker of its kernel."""
    axes.set_yticks(places, [name for _, name in names], fontsize=8)
    axes.tick_params(axis="y", length=0, pad=18)
    for (kernel, _), place in zip(names, places, strict=True):
        mark_kernel(axes, kernel, (0, place), (-12, 0), axes.get_yaxis_transform())


def _name_groups(
    axes: Axes, cases: Sequence[CaseChange], places: Sequence[float], all_cases: Mapping[str, int]
) -> None:
    """The verdict above its first row, with how many of its cases are shown."""
    for verdict in ORDER:
        ours = [place for case, place in zip(cases, places, strict=True) if case.verdict == verdict]
        if ours:
            hidden = all_cases[verdict] - len(ours)
            words = f"{verdict}: {len(ours)}" + (f" of {all_cases[verdict]} shown" if hidden else "")
            axes.annotate(
                words, (0.004, ours[0] - 0.55), xycoords=axes.get_yaxis_transform(), va="bottom", fontsize=8,
                color=COLORS[verdict], fontweight="bold",
            )  # fmt: skip


def _legend(comparison: Comparison, cases: Sequence[CaseChange]) -> dict[str, Any]:
    verdicts = [verdict for verdict in ORDER if any(case.verdict == verdict for case in cases)]
    handles: dict[str, Any] = {
        verdict: Line2D(
            [], [], color=COLORS[verdict], marker="o",
            markerfacecolor="white" if verdict == "inconclusive" else COLORS[verdict],
        )
        for verdict in verdicts
    }  # fmt: skip
    margin = share(comparison.margin)
    return {**handles, f"margin {margin}": Patch(color="#efefef")}
