"""Kernels that ranks compute together: time, speedup, exchanged bytes and their exposed share over length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from benchmarks.analysis import wording
from benchmarks.analysis.plots.looks import Look, Style, look, looks
from benchmarks.analysis.plots.style import (
    INK,
    MUTED,
    THEORY,
    headline,
    legend_below,
    legend_handle,
    length_axis,
    log_axis,
    theory_handle,
)
from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.report.over_ranks import OverRanks, RankPoint
from benchmarks.analysis.report.pictures.canvas import GUIDE, GUIDE_TEXT, bytes_tick, time_tick
from benchmarks.analysis.report.pictures.views import COMBINATION, suffix

LIKE = {
    "linear-sequence-parallel": "linear-triton",
    "standard-context-parallel": "standard-sdpa",
    "standard-context-parallel-ring": "standard-sdpa-cudnn",
}
"""What ranks compute together looks like what one of them alone would call."""
PALEST = 0.45
"""The share of its colour that the line of the fewest ranks has."""
Value = Callable[[RankPoint], float | None]


@dataclass(frozen=True)
class RankView:
    """All modes and numbers of ranks of one setting, whose `mode` and `ranks` are None."""

    setting: Setting
    kernels: Mapping[str, Sequence[OverRanks]]
    looks: Mapping[str, Look]

    @property
    def subtitle(self) -> str:
        """The setting of the picture in words."""
        return f"{wording.phase(self.setting)}, {wording.place(self.setting)}"

    @property
    def lengths(self) -> list[int]:
        """All measured lengths."""
        return sorted(
            {point.seq_len for ours in self.kernels.values() for one in ours for point in one.points}
        )

    @property
    def ranks(self) -> list[int]:
        """All numbers of ranks."""
        return sorted({point.ranks for ours in self.kernels.values() for one in ours for point in one.points})

    def holds(self, setting: Setting) -> bool:
        """Whether a setting is one of this view."""
        return setting.ranks is not None and replace(setting, mode=None, ranks=None) == self.setting


def rank_views(found: Sequence[OverRanks]) -> list[tuple[str, RankView]]:
    """A view of each phase, device, dtype and shape, the most measured first, with its picture's suffix."""
    of_kernel = looks(one.kernel for one in found)
    of_kernel |= {name: look(LIKE[name]) for name in of_kernel if name in LIKE}
    settings: dict[Setting, dict[str, list[OverRanks]]] = {}
    for one in sorted(found, key=lambda one: str(one.setting.mode)):
        modes = settings.setdefault(replace(one.setting, mode=None), {})
        modes.setdefault(str(one.setting.mode), []).append(one)

    def prominence(setting: Setting) -> tuple[bool, int]:
        every = [one for ours in settings[setting].values() for one in ours]
        return setting.phase != "forward", -sum(len(one.points) for one in every)

    order = sorted(settings, key=prominence)
    return [
        (
            suffix(setting, order, COMBINATION) if index else "",
            RankView(setting, settings[setting], of_kernel),
        )
        for index, setting in enumerate(order)
    ]


def distributed_picture(view: RankView) -> Figure:
    """A row for each mode: four panels over the length of the whole sequence."""
    modes = list(view.kernels)
    height = 1.3 + 3.7 * len(modes)
    room = 0.75 / height
    figure = Figure(
        figsize=(16, height), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - room), w_pad=0.08)
    )
    headline(figure, "One sequence on several ranks: time, speedup, and what they exchange", view.subtitle)
    legend_below(figure, _legend(view))
    panels = figure.subplots(len(modes), 4, squeeze=False)
    for mode, row in zip(modes, panels, strict=True):
        for axes, draw in zip(row, (_times, _speedups, _received, _exposed), strict=True):
            length_axis(axes, view.lengths, most=6)
            draw(axes, view, view.kernels[mode])
            axes.set_title(f"{mode}: {axes.get_title(loc='left')}", loc="left", color=INK)
    return figure


def _legend(view: RankView) -> dict[str, Line2D]:
    handles = {name: legend_handle(look) for name, look in view.looks.items()}
    for ranks in view.ranks:
        style = _style(view, Look(MUTED, "o", "-"), ranks)
        handles[wording.count(ranks, "rank")] = Line2D([], [], **style)
    law = any(
        point.predicted_exchanged_bytes
        for ours in view.kernels.values()
        for one in ours
        for point in one.points
    )
    return {**handles, **({"bytes by the law": theory_handle()} if law else {})}


def shade(view: RankView, look: Look, ranks: int) -> Look:
    """The look of a line of so many ranks: paler for fewer."""
    place = view.ranks.index(ranks) / max(1, len(view.ranks) - 1)
    share = PALEST + (1 - PALEST) * place if len(view.ranks) > 1 else 1.0
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(look.color))
    return replace(look, color=to_hex((red, green, blue)))


def _style(view: RankView, look: Look, ranks: int) -> Style:
    """The shade of so many ranks, hollow for one."""
    hollow = {"markerfacecolor": "white"} if ranks == 1 else {}
    return {**shade(view, look, ranks).drawn, **hollow}


def _draw(
    axes: Axes, view: RankView, kernels: Sequence[OverRanks], value: Value, least: int = 1
) -> list[float]:
    """A line for each kernel and number of ranks of at least so many; all values that were drawn."""
    drawn: list[float] = []
    for one in kernels:
        for ranks in view.ranks:
            points = [(point.seq_len, value(point)) for point in one.at(ranks) if ranks >= least]
            known = [(n, y) for n, y in points if y is not None]
            if known:
                axes.plot(*zip(*known, strict=True), **_style(view, view.looks[one.kernel], ranks), zorder=3)
                drawn += [y for _, y in known]
    if not drawn:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=MUTED)
    return drawn


def _times(axes: Axes, view: RankView, kernels: Sequence[OverRanks]) -> None:
    axes.set_title("time of the slowest rank", loc="left")
    drawn = _draw(axes, view, kernels, lambda point: point.median_s)
    log_axis(axes, min(drawn) / 1.8, max(drawn) * 1.8, words=time_tick)


def _speedups(axes: Axes, view: RankView, kernels: Sequence[OverRanks]) -> None:
    axes.set_title("time of one rank over it", loc="left")
    drawn = _draw(axes, view, kernels, lambda point: point.speedup, least=2)
    for ranks in view.ranks if drawn else []:
        axes.axhline(ranks, color=GUIDE, linewidth=1.2, zorder=1)
        # Short sequences lie near break-even, and long ones near the most.
        words, at, side = (
            ("break-even", 0.98, "right") if ranks == 1 else (f"{ranks}x, all of {ranks} ranks", 0.02, "left")
        )
        axes.text(
            at,
            ranks,
            words,
            transform=axes.get_yaxis_transform(),
            ha=side,
            color=GUIDE_TEXT,
            fontsize=8,
            va="bottom",
        )
    axes.set_ylim(0, max([1.0, *view.ranks, *drawn]) * 1.15)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))


def _received(axes: Axes, view: RankView, kernels: Sequence[OverRanks]) -> None:
    axes.set_title("bytes that a rank receives", loc="left")
    drawn = _draw(axes, view, kernels, lambda point: point.exchanged_bytes or None, least=2)
    for one in kernels:
        law = [(point.seq_len, point.predicted_exchanged_bytes) for point in one.points if point.ranks > 1]
        law = [(n, y) for n, y in law if y]
        if law:
            axes.plot(*zip(*law, strict=True), color=view.looks[one.kernel].color, **THEORY, zorder=5)
    if drawn:
        log_axis(axes, min(drawn) / 4, max(drawn) * 4, words=bytes_tick)


def _exposed(axes: Axes, view: RankView, kernels: Sequence[OverRanks]) -> None:
    axes.set_title("share of it that is exposed", loc="left")
    drawn = _draw(axes, view, kernels, lambda point: point.exposed_share, least=2)
    axes.axhline(0, color=GUIDE, linewidth=1.2, zorder=1)
    axes.set_ylim(min([0.0, *drawn]) - 0.05, max([0.2, *drawn]) * 1.15)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
