"""The style of all pictures: fonts and sizes, axes, marks, legends and headlines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation, Transform

from benchmarks.analysis import wording
from benchmarks.analysis.plots.looks import Look, Style, look

DPI = 150
INK, MUTED, FAINT = "#222222", "#666666", "#d9d9d9"
WORSE_INK, BETTER_INK, UNDECIDED_INK, ALIKE_INK = "#c1121f", "#2166ac", "#b07d00", "#8a8a8a"
"""Colours of verdicts, which no kernel has."""

RC: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#ececec",
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 3.2,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
}


IMPOSSIBLE: Style = {
    "marker": "x", "markersize": 10, "markeredgewidth": 2, "color": WORSE_INK, "linestyle": "none",
}  # fmt: skip
"""The mark of what is faster than its device allows, an error to be found and never a success."""
THEORY: Style = {"marker": "_", "markersize": 15, "markeredgewidth": 1.4, "linestyle": "none"}
"""The mark of what theory says, wider than the measured point that it should pass through."""
AT_FLOOR: Style = {
    "marker": "o", "markersize": 11, "markeredgewidth": 1.2, "markerfacecolor": "none", "color": MUTED,
    "linestyle": "none",
}  # fmt: skip
"""The mark of what is as fast as its device allows, as far as noise lets it be told."""
FLOOR_MARKS: Mapping[str, tuple[Style, str]] = {
    "at the floor within the noise": (AT_FLOOR, ""),
    "impossible": (IMPOSSIBLE, ": faster than its ceiling allows"),
}
"""The mark of each verdict of a floor that needs one, and what a legend adds to it; the worst comes last."""


def length_axis(axes: Axes, lengths: Sequence[int], most: int = 11) -> None:
    """A logarithmic axis of base 2 with a tick at the measured lengths, thinned where they would touch."""
    ticks = sorted(set(lengths))
    gap = np.log(ticks[-1] / ticks[0]) / most
    kept = ticks[-1:]
    for tick in reversed(ticks[:-1]):
        if np.log(kept[-1] / tick) >= gap:
            kept.append(tick)
    axes.set_xscale("log", base=2)
    axes.set_xlim(ticks[0] / 1.35, ticks[-1] * 1.35)
    axes.xaxis.set_major_locator(FixedLocator(sorted(kept)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: wording.length(value)))
    unit = "tokens, 1k = 1024" if any(tick >= 1024 and tick % 1024 == 0 for tick in kept) else "tokens"
    axes.set_xlabel(f"sequence length N ({unit})")


def log_axis(
    axes: Axes, low: float, high: float, *, words: Callable[[float], str], which: Literal["x", "y"] = "y"
) -> None:
    """A logarithmic axis with ticks at powers of ten, and between them where the range is short."""
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = axes.yaxis if which == "y" else axes.xaxis
    decades = np.log10(high / low)
    # Side by side there is room for fewer words than one above the other.
    few, some = (4, 2.5) if which == "y" else (2.5, 0.9)
    steps = (1,) if decades > few else (1, 3) if decades > some else (1, 2, 5)
    stride = 1 if which == "y" else 1 + int(decades // 6)
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1, stride)
    axis.set_major_locator(FixedLocator([step * power for power in powers for step in steps]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: words(value)))


def legend_handle(look: Look, **changes: Any) -> Line2D:
    """The sample of a line in a legend."""
    return Line2D([], [], **{**look.drawn, **changes})


def mark_kernel(
    axes: Axes, kernel: str, point: tuple[float, float], offset: tuple[float, float], transform: Transform
) -> None:
    """Draw the marker of a kernel beside its name, so many points right of and above a point."""
    shift = ScaledTranslation(offset[0] / 72, offset[1] / 72, axes.figure.dpi_scale_trans)
    style = {**look(kernel).drawn, "linestyle": "none", "clip_on": False}
    axes.plot([point[0]], [point[1]], **style, transform=transform + shift)


def mark_floors(axes: Axes, x: Any, y: Any, verdicts: Any) -> None:
    """Ring points at their floor, and cross out those that cannot be true, by the verdict of each."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    for verdict, (style, _) in FLOOR_MARKS.items():
        ours = np.asarray(verdicts, dtype=object) == verdict
        if ours.any():
            axes.plot(x[ours], y[ours], **style, zorder=7)


def theory_handle() -> Line2D:
    """The mark of theory in a legend."""
    return Line2D([], [], color=MUTED, **THEORY)


def floor_handles(verdicts: Iterable[object]) -> dict[str, Line2D]:
    """The entries of a legend for the marks of these verdicts."""
    found = set(verdicts)
    return {
        verdict + more: Line2D([], [], **{**style, "markersize": 8})
        for verdict, (style, more) in FLOOR_MARKS.items()
        if verdict in found
    }


def legend_below(figure: Figure, handles: Mapping[str, Any], columns: int = 5) -> None:
    """One legend for all panels below them, in rows of nearly equal length, no wider than the figure."""
    if not handles:
        return
    for most in range(min(columns, len(handles)), 0, -1):
        rows = math.ceil(len(handles) / most)
        legend = figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=math.ceil(len(handles) / rows),
        )
        if most == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def headline(figure: Figure, title: str, subtitle: str) -> None:
    """A title in bold, and beneath it where and how the picture's data were measured."""
    inches = figure.get_figheight()
    parts: tuple[tuple[str, float, dict[str, Any]], ...] = (
        (title, 0.1, {"fontsize": 13, "fontweight": "bold", "color": INK}),
        (subtitle, 0.4, {"fontsize": 9.5, "color": MUTED}),
    )
    for text, below, style in parts:
        figure.text(0.012, 1 - below / inches, text, ha="left", va="top", **style)
