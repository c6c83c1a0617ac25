"""Lines over commits, those with steps first, with their segments and the names of their steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from benchmarks.analysis import wording
from benchmarks.analysis.history.changes import WORSE, difference
from benchmarks.analysis.history.levels import Segment
from benchmarks.analysis.history.text import ORDER, QUANTITY_WORDS, change_words, level
from benchmarks.analysis.history.traced import Traced
from benchmarks.analysis.plots.labels import Label, Labeller
from benchmarks.analysis.plots.saving import Drawing
from benchmarks.analysis.plots.style import (
    BETTER_INK,
    FAINT,
    INK,
    MUTED,
    WORSE_INK,
    headline,
    mark_kernel,
)

PANELS, COLUMNS = 12, 3
KEPT_FOR_EACH = 2
"""Panels for exponents and for crossovers, however many cases have steps."""
CROWD = 120
"""Beyond so many revisions points and bars grow thinner."""
MOVED_INK = "#8a4fbf"
TICKS = 5
ABOVE, PANEL, GAP, BELOW = 0.7, 1.7, 0.8, 0.35
"""Inches: the headline, the height of a panel, between two of them, the legend."""


def drawings(machines: Sequence[Sequence[Traced]]) -> dict[str, Drawing]:
    """The pictures of a history, by the names of their files.

    They are history.png of the machine with the most runs, and history-machine-2.png and so on of others; a
    machine with a single revision has no lines to draw.
    """
    several = [traced for traced in machines if traced and len(traced[0].timeline.revisions) > 1]
    suffixes = ["", *(f"-{traced[0].timeline.name.replace(' ', '-')}" for traced in several[1:])]
    return {
        f"history{suffix}.png": partial(history_picture, traced)
        for suffix, traced in zip(suffixes, several, strict=False)
    }


def history_picture(traced: Sequence[Traced]) -> Figure:
    """One panel for each of the most telling lines of a machine."""
    shown, timeline = choose(traced), traced[0].timeline
    rows = math.ceil(len(shown) / COLUMNS)
    height = ABOVE + rows * (PANEL + GAP) + BELOW
    figure = Figure(figsize=(15, height))
    figure.subplots_adjust(
        0.055, (BELOW + GAP / 2) / height, 0.975, 1 - (ABOVE + GAP / 2) / height, 0.27, GAP / PANEL
    )
    lines = [one for one in traced if one.line.quantity != "machine"]
    with_steps = sum(len(one.segments) > 1 for one in lines)
    headline(
        figure,
        f"History: {with_steps} of {len(lines)} lines have steps"
        + (f"; {len(shown)} lines are shown" if len(shown) < len(traced) else ""),
        f"{wording.count(timeline.runs, 'run')} of {wording.count(len(timeline.revisions), 'revision')} "
        f"in the order of commits; {timeline.fingerprint}"
        + ("; lines without what moved all times" if len(lines) < len(traced) else ""),
    )
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for panel in axes[len(shown) :]:
        panel.set_axis_off()
    for one, panel in zip(shown, axes, strict=False):
        _draw(panel, one)
        _name_steps(panel, one)
    figure.legend(handles=_legend(), loc="lower center", ncols=6)
    return figure


def choose(traced: Sequence[Traced]) -> list[Traced]:
    """Lines with steps first, the newest steps first of them, but always some exponents and crossovers.

    Of the lengths of a series the longest stands for those that have steps.
    """

    def prominence(one: Traced) -> tuple[bool, int, int, int]:
        stepped = len(one.segments) > 1
        newest = int(one.line.places[one.segments[-1].start]) if stepped else 0
        return not stepped, -newest, ORDER.index(one.line.quantity), -(one.line.name.seq_len or 0)

    ordered = sorted(traced, key=prominence)
    of_series = {(one.line.quantity, one.line.name.series): one for one in reversed(ordered)}
    leading = sorted(of_series.values(), key=prominence)
    scaling = [
        one
        for quantity in ("crossover", "exponent")
        for one in [one for one in leading if one.line.quantity == quantity][:KEPT_FOR_EACH]
    ]
    cases = [
        one
        for one in leading
        if one not in scaling and (one.line.quantity == "time" or len(one.segments) > 1)
    ]
    return cases[: PANELS - len(scaling)] + scaling


def _draw(axes: Axes, one: Traced) -> None:
    line, values, (low, high) = one.line, one.shown, one.bounds()
    _limit(axes, one)
    bottom, top = axes.get_ylim()
    thin = min(1, CROWD / len(values))
    axes.vlines(line.places, low, high, color=FAINT, linewidth=1.2 * thin, zorder=2)
    inside = (values >= bottom) & (values <= top)
    axes.plot(line.places[inside], values[inside], ".", color=MUTED, markersize=3.5 * thin**0.5, zorder=3)
    for beyond, edge, marker in ((values > top, top, "^"), (values < bottom, bottom, "v")):
        places = line.places[beyond]
        axes.plot(
            places, np.full(len(places), edge), marker, color=MUTED, markersize=4, clip_on=False, zorder=3
        )
    for color, place_0, place_1, value in levels(one):
        axes.plot(
            [place_0, place_1], [value, value], color=color, linewidth=2.4, solid_capstyle="butt", zorder=4
        )
    for _, place, _ in _steps(one):
        axes.axvline(place, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)), zorder=1)
    what = QUANTITY_WORDS.get(line.quantity, line.quantity)
    axes.set_title(f"{what}: {line.name.head}\n{line.name.tail}", loc="left", fontsize=8.5, color=INK)
    for index, marked in enumerate(reversed(line.name.kernels)):
        mark_kernel(axes, marked, (0, 1), (-9 - 11 * index, 21), axes.transAxes)
    revisions = one.timeline.revisions
    ticks = sorted({round(place) for place in np.linspace(0, len(revisions) - 1, TICKS)})
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: revisions[round(place)].name))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: level(line.quantity, value)))
    axes.tick_params(labelsize=8)


def _limit(axes: Axes, one: Traced) -> None:
    """All levels and nearly all values; stray ones are marked at the edge."""
    levels = [one.natural(segment.level) for segment in one.segments]
    low, high = np.quantile(one.shown, [0.02, 0.98])
    low, high = min(low, *levels), max(high, *levels)
    room = max(0.25 * (high - low), 0.02 * abs(high), 1e-12)
    axes.set_ylim(low - room, high + 1.8 * room)
    axes.set_xlim(-0.5, len(one.timeline.revisions) - 0.5)


def levels(one: Traced) -> Iterator[tuple[str, float, float, float]]:
    """Colour, ends and height of each segment."""
    color = INK
    edges = [-0.5, *(place for _, place, _ in _steps(one)), one.line.places[-1] + 0.5]
    for index, (segment, ends) in enumerate(zip(one.segments, pairwise(edges), strict=True)):
        if index:
            color = _color(difference(one, *one.steps[index - 1]).verdict)
        yield color, *ends, one.natural(segment.level)


def _color(verdict: str) -> str:
    if verdict in WORSE:
        return WORSE_INK
    return BETTER_INK if verdict in ("faster", "smaller") else MOVED_INK


def _steps(one: Traced) -> Iterator[tuple[Segment, float, Segment]]:
    """The level before each step, the place of the step, the level after it."""
    for old, new in one.steps:
        places = one.line.places
        yield old, (places[new.start - 1] + places[new.start]) / 2, new


def _name_steps(axes: Axes, one: Traced) -> None:
    """The size of each step, and the first commit that has it, at the top of the panel."""
    top = axes.get_ylim()[1]
    labeller = Labeller(axes)
    for old, place, new in reversed(list(_steps(one))):
        found = difference(one, old, new)
        size = change_words(one.line.quantity, found, interval=False)
        words = f"{size}\n{one.revision(new.start).name}"
        color = _color(found.verdict)
        right = place < 0.7 * len(one.timeline.revisions)
        offset, align = ((4, -12), "left") if right else ((-4, -12), "right")
        labeller.write(Label(words, place, top, color, (offset,), align))


def _legend() -> list[Line2D]:
    levels = {
        "level": INK,
        "slower or larger than before": WORSE_INK,
        "faster or smaller": BETTER_INK,
        "exponent or crossover moved": MOVED_INK,
    }
    return [
        Line2D([], [], color=MUTED, marker=".", linewidth=1.2, label="a revision, 95 % interval"),
        Line2D([], [], color=MUTED, marker="^", linestyle="none", label="stray, beyond the panel"),
        *(Line2D([], [], color=color, linewidth=2.4, label=words) for words, color in levels.items()),
    ]
