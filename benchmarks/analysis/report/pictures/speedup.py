"""Speedup of linear over standard attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.analysis import wording
from benchmarks.analysis.plots.labels import Label, Labeller
from benchmarks.analysis.plots.style import (
    FLOOR_MARKS,
    INK,
    MUTED,
    floor_handles,
    legend_below,
    legend_handle,
    log_axis,
    mark_floors,
)
from benchmarks.analysis.reading.roles import role_words
from benchmarks.analysis.report.conclusions import headline_kernel
from benchmarks.analysis.report.pictures.canvas import make_panels
from benchmarks.analysis.report.pictures.views import View

LINES = ("-", "--", "-.")
"""The lines of the first contenders."""
TEXTBOOK = ("linear-explicit", "standard-explicit")
FEW_LINES = 3
"""With up to so many lines every point can carry its value; with more, only the outermost lines can."""


class Speedup(NamedTuple):
    """One line of the picture, in the colour of its baseline; where all have the same, of its contender."""

    contender: str
    baseline: str
    line: str
    colored_by: str
    lengths: list[int]
    ratios: list[float]

    @property
    def is_first(self) -> bool:
        """Whether it is of the first contender, whose lines are full."""
        return self.line == LINES[0]

    def up_to(self, length: int) -> float:
        """The ratio at the longest length that is not beyond this one."""
        points = zip(self.lengths, self.ratios, strict=True)
        return max((point for point in points if point[0] <= length), default=(0, 0.0))[1]


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
    legend_below(figure, _legend(view, everything), 4)
    for mode, axes in panels:
        log_axis(axes, min(ratios) / 2.2, max(ratios) * 2.2, words=lambda value: f"{value:g}x")
        names = list(dict.fromkeys(one.contender for one in speedups[mode] if one.line in LINES))
        axes.set_title(f"{mode}: speedup of {wording.listed(names)}", loc="left", color=INK)
        _draw_break_even(axes, contender, baseline)
    for mode, axes in panels:
        _draw_speedups(axes, view, mode, speedups[mode])
    return figure


def speedups_of(view: View, mode: str) -> Iterator[Speedup]:
    """The first contenders over every baseline, then the textbook forms, at their common lengths.

    The first contenders are a user's own, else the one of the headline.
    """
    pairs = [pair for pair in view.crossovers if (pair.setting.mode, pair.quantity) == (mode, "time")]
    compared = {pair.contender for pair in pairs}
    own = [kernel for kernel in view.roles.own if kernel in compared]
    one_baseline = len({pair.baseline for pair in pairs}) == 1
    first = headline_kernel(view.series[mode], view.roles)
    lines = dict(zip(own or ([first] if first else []), LINES, strict=False))
    pairs.sort(key=lambda pair: pair.contender not in lines)
    for pair in pairs:
        known = {
            length: ratio
            for length, ratio in zip(pair.found.seq_lens, pair.found.ratios, strict=True)
            if ratio is not None
        }
        textbook = not view.roles.own and (pair.contender, pair.baseline) == TEXTBOOK
        line = lines.get(pair.contender, ":" if textbook else None)
        if known and line:
            by = pair.contender if one_baseline and own else pair.baseline
            yield Speedup(pair.contender, pair.baseline, line, by, list(known), list(known.values()))


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
        mark_floors(axes, one.lengths, one.ratios, [_verdict(view, mode, one, n) for n in one.lengths])
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


def _verdict(view: View, mode: str, pair: Speedup, length: int) -> str | None:
    """The worse of the verdicts that the floors give both sides of a ratio."""
    cases = view.measured
    ours = (cases["mode"] == mode) & cases["kernel"].isin([pair.contender, pair.baseline])
    found = set(cases.loc[ours & (cases["seq_len"] == length), "floor_verdict"])
    return next((verdict for verdict in reversed(list(FLOOR_MARKS)) if verdict in found), None)


def _draw_break_even(axes: Axes, contender: str, baseline: str) -> None:
    axes.axhspan(axes.get_ylim()[0], 1, color="#f5f5f5", zorder=0)
    axes.axhline(1, color=INK, linewidth=1, zorder=2)
    axes.text(
        0.015, 0.975, f"↑ {contender} is faster", transform=axes.transAxes, va="top", fontsize=9, color=MUTED
    )
    axes.text(
        0.985, 0.025, f"↓ {baseline} is faster", transform=axes.transAxes, ha="right", fontsize=9, color=MUTED
    )  # fmt: skip
    axes.annotate(
        "break-even", (0.99, 1), (0, 3), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
        ha="right", fontsize=8, color=INK,
    )  # fmt: skip
