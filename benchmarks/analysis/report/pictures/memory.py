"""Peak memory over length, measured beside predicted."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.analysis.plots.looks import Style
from benchmarks.analysis.plots.style import THEORY, log_axis, theory_handle
from benchmarks.analysis.report.pictures.canvas import (
    bytes_tick,
    kernels_below,
    make_panels,
    write_ends,
)
from benchmarks.analysis.report.pictures.views import View

ALIKE = 1.1
"""Peaks closer than this factor would hide each other: they are nested, the first the widest."""


def memory_picture(view: View) -> Figure | None:
    """Peak memory over length, every kernel a line; None where no peak is known."""
    view = view.faded()
    cases = numbers(view.measured, "peak_bytes", "predicted_peak_bytes")
    cases = cases[cases["peak_bytes"] > 0].sort_values("seq_len")
    if cases.empty:
        return None
    lengths = sorted({int(length) for length in cases["seq_len"]})
    figure, panels = make_panels(view, "Peak memory of one attention call over sequence length", lengths)
    panels[0][1].set_ylabel("peak memory above the inputs (1 MB = 10⁶ bytes)")
    known = cases["predicted_peak_bytes"].notna().any()
    kernels_below(figure, view, {"predicted": theory_handle()} if known else {})
    peaks = pd.concat([cases["peak_bytes"], cases["predicted_peak_bytes"]]).dropna()
    for mode, axes in panels:
        log_axis(axes, peaks[peaks > 0].min() / 3.5, peaks.max() * 3.5, words=bytes_tick)
        ours = {str(kernel): group for kernel, group in cases[cases["mode"] == mode].groupby("kernel")}
        _draw_peaks(axes, view, mode, {kernel: ours[kernel] for kernel in view.looks if kernel in ours})
    return figure


def numbers(cases: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The cases with these columns as floats, NaN where a record does not hold them."""
    known = {name: cases[name] if name in cases else pd.Series(np.nan, cases.index) for name in names}
    return cases.assign(**{name: pd.to_numeric(column).astype(float) for name, column in known.items()})


def _draw_peaks(axes: Axes, view: View, mode: str, curves: dict[str, pd.DataFrame]) -> None:
    for kernel, cases in curves.items():
        later = list(curves)[list(curves).index(kernel) + 1 :]
        inside = sum(_alike(cases, curves[other]) for other in later)
        look = view.looks[kernel]
        lengths = cases["seq_len"].to_numpy(dtype=float)
        sizes: Style = {"linewidth": 1.8 + 1.7 * inside, "markersize": 5.5 + 2.6 * inside}
        axes.plot(lengths, cases["peak_bytes"].to_numpy(), **look.drawn, **sizes, zorder=3)
        theory = {**THEORY, "markersize": THEORY["markersize"] + 2.6 * inside, "color": look.color}
        axes.plot(lengths, cases["predicted_peak_bytes"].to_numpy(), **theory, zorder=4)
    write_ends(axes, view, mode, curves, "peak_bytes")


def _alike(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two curves lie on each other wherever both were measured."""
    peaks, others = (dict(zip(cases["seq_len"], cases["peak_bytes"], strict=True)) for cases in (one, other))
    ratios = [peaks[length] / others[length] for length in peaks if length in others]
    return bool(ratios) and max(max(ratios), 1 / min(ratios)) < ALIKE
