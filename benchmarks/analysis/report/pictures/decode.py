"""Decode over context: the time of a token at each batch, and the bytes that are kept of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from benchmarks.analysis import wording
from benchmarks.analysis.plots.labels import Label, Labeller
from benchmarks.analysis.plots.style import INK, MUTED, floor_handles, headline, length_axis, log_axis
from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.report.conclusions import headline_kernel
from benchmarks.analysis.report.inference import fastest_baseline
from benchmarks.analysis.report.pictures.canvas import (
    bytes_tick,
    draw_times,
    kernels_below,
    of_contexts,
    reason_at_end,
    time_range,
    time_tick,
    what_bars_span,
)
from benchmarks.analysis.report.pictures.views import COMBINATION, View, suffix

MOST_BATCHES = 4
"""Panels that fit side by side beside that of the bytes."""
WITHOUT_BATCH = tuple(field for field in COMBINATION if field != "batch")
MODE = "causal"


def decode_views(views: Sequence[View]) -> list[tuple[str, list[View]]]:
    """The views of decodes that differ in their batch alone, ascending, with the suffix of their picture."""
    found: dict[Setting, list[View]] = {}
    for view in views:
        if view.is_decode and MODE in view.series:
            found.setdefault(replace(view.setting, batch=None), []).append(view)
    settings = list(found)
    return [
        (
            suffix(setting, settings, WITHOUT_BATCH) if index else "",
            sorted(ours, key=lambda view: view.setting.batch or 0)[:MOST_BATCHES],
        )
        for index, (setting, ours) in enumerate(found.items())
    ]


def decode_picture(views: Sequence[View]) -> Figure:
    """A panel of time for each batch, and one of the bytes kept."""
    views = [_by_token(view.faded()) for view in views]
    figure = Figure(
        figsize=(3.9 * (len(views) + 1), 6.2), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 0.9), w_pad=0.1)
    )
    *panels, last = figure.subplots(1, len(views) + 1, squeeze=False)[0]
    first = views[0].setting
    queries = first.query_len or 1
    token = "a token" + ("" if queries == 1 else f", in steps of {queries}")
    where = f"{wording.machine(first)}, {first.dtype}, {wording.heads(first)} D{first.head_dim}"
    headline(
        figure,
        f"Decode: the time of {token}, and the bytes kept, over the context",
        f"causal {wording.phase(first)}, {where}, {first.clock} clock",
    )
    verdicts = [verdict for view in views for verdict in view.measured["floor_verdict"]]
    kernels_below(figure, views[0], floor_handles(verdicts), _kernels(views))
    ranges = [time_range(view, 2.2, 2.2) for view in views]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    lengths = sorted({length for view in views for length in view.lengths})
    for view, axes in zip(views, panels, strict=True):
        _draw_batch(axes, view, lengths, (low, high))
    panels[0].set_ylabel(f"median time of {token}\n({what_bars_span(views[0])})")
    for axes in panels[1:]:
        axes.tick_params(labelleft=False)
    _draw_kept(last, views, lengths)
    return figure


def _by_token(view: View) -> View:
    """The view with the times of a step divided by its tokens."""
    queries, times = view.setting.query_len or 1, ["interval_low_s", "median_s", "interval_high_s"]
    cases = view.cases.assign(**{name: view.cases[name] / queries for name in times})
    series = {
        mode: [replace(one, median_s=[seconds / queries for seconds in one.median_s]) for one in several]
        for mode, several in view.series.items()
    }
    return replace(view, cases=cases, series=series)


def _kernels(views: Sequence[View]) -> set[str]:
    return {one.kernel for view in views for one in view.series[MODE]}


def _context_axis(axes: Axes, lengths: Sequence[int]) -> None:
    length_axis(axes, lengths, most=5)
    of_contexts(axes)


def _draw_batch(axes: Axes, view: View, lengths: Sequence[int], limits: tuple[float, float]) -> None:
    """The times at one batch, and where the kernels that are spoken of first cross."""
    batch = view.setting.batch
    axes.set_title(f"batch {batch}", loc="left", color=INK)
    _context_axis(axes, lengths)
    log_axis(axes, *limits, words=time_tick)
    series = view.series[MODE]
    for one in series:
        draw_times(axes, view, one)
    labeller = Labeller(axes, ((one.seq_lens, one.median_s) for one in series))
    for one in sorted(series, key=lambda one: -one.median_s[-1]):
        left_out = view.cases[(view.cases["outcome"] != "measured") & (view.cases["kernel"] == one.kernel)]
        end = one.seq_lens[-1], one.median_s[-1]
        for label in reason_at_end(left_out, end, view.looks[one.kernel].color):
            labeller.write(label)
    contender, baseline = headline_kernel(series, view.roles), fastest_baseline(series, view.roles)
    for pair in view.crossovers:
        n, low, high = pair.found.n, pair.found.low, pair.found.high
        if (pair.contender, pair.baseline, pair.quantity) != (contender, baseline, "time") or n is None:
            continue
        color = view.looks[pair.baseline].color
        if low is not None and high is not None:
            axes.axvspan(low, high, color=color, alpha=0.16, linewidth=0, zorder=0)
        axes.axvline(n, color=color, linewidth=1, linestyle=":", zorder=1)
        places = [(side, height) for height in (12, 26, 40) for side in (5, -78)]
        labeller.write(Label(f"N* = {n:.0f}", high or n, limits[0], color, places, "left"), must=True)


CACHE, STATE = "keys and values", "state"


def _draw_kept(axes: Axes, views: Sequence[View], lengths: Sequence[int]) -> None:
    """Bytes kept of one sequence in one layer: of what grows with the context, and of what does not."""
    axes.set_title("bytes kept of one sequence, a layer", loc="left", color=INK)
    _context_axis(axes, lengths)
    curves = _kept(views)
    if not curves:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=MUTED)
        return
    every = [y for _, _, kept in curves.values() for y in kept]
    log_axis(axes, min(every) / 3, max(every) * 3, words=bytes_tick)
    for name, (color, ns, kept) in curves.items():
        axes.plot(ns, kept, color=color, linewidth=2.2, linestyle="--" if name == STATE else "-", zorder=3)
    labeller = Labeller(axes, ((ns, kept) for _, ns, kept in curves.values()))
    for name, (color, ns, kept) in curves.items():
        middle = len(ns) // 2
        words = f"{name}\n{wording.amount(kept[-1], 'B')}" + ("" if name == STATE else f" at N = {ns[-1]}")
        places = [(x, y) for y in (-20, 20, -32, 32) for x in (14, -60, -100)]
        labeller.write(Label(words, ns[middle], kept[middle], color, places, "left"), must=True)
    if {CACHE, STATE} <= curves.keys():
        (_, ns, kept), (_, _, state) = curves[CACHE], curves[STATE]
        even = state[0] * ns[0] / kept[0]
        if lengths[0] <= even <= lengths[-1]:
            ring = {"markersize": 11, "markerfacecolor": "none", "markeredgecolor": INK, "zorder": 5}
            axes.plot([even], [state[0]], marker="o", **ring)  # type: ignore[arg-type]
            places = [(10, -12), (10, 12), (-70, 14)]
            labeller.write(Label(f"N = {even:.0f}", even, state[0], INK, places, "left"))


def _kept(views: Sequence[View]) -> dict[str, tuple[str, list[int], list[float]]]:
    """By what is kept its colour, contexts and bytes of one sequence, where they are known the farthest."""
    found: dict[str, tuple[str, list[int], list[float]]] = {}
    for view in views:
        first = (
            headline_kernel(view.series[MODE], view.roles),
            fastest_baseline(view.series[MODE], view.roles),
        )
        for one in sorted(view.series[MODE], key=lambda one: one.kernel not in first):
            points = [(n, x) for n, x in zip(one.seq_lens, one.cache_bytes, strict=False) if x]
            if len(points) > 1:
                ns, kept = [n for n, _ in points], [x / (view.setting.batch or 1) for _, x in points]
                name = CACHE if kept[-1] > kept[0] else STATE
                if name not in found or len(ns) > len(found[name][1]):
                    found[name] = view.looks[one.kernel].color, ns, kept
    return found
