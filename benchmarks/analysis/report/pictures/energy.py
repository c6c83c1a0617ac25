"""Energy of a call over length."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.analysis import wording
from benchmarks.analysis.plots.labels import Labeller
from benchmarks.analysis.plots.style import log_axis
from benchmarks.analysis.report.energies import ENERGY, ERROR
from benchmarks.analysis.report.pictures.canvas import (
    kernels_below,
    make_panels,
    reason_at_end,
    reference_slopes,
)
from benchmarks.analysis.report.pictures.memory import numbers
from benchmarks.analysis.report.pictures.views import View


def energy_picture(view: View) -> Figure | None:
    """Energy of a call over length, every kernel a line with its errors; None where no energy is known."""
    view = view.faded()
    cases = numbers(view.measured, ENERGY, ERROR)
    cases = cases[cases[ENERGY] > 0].sort_values("seq_len")
    if cases.empty:
        return None
    lengths = sorted({int(length) for length in cases["seq_len"]})
    figure, panels = make_panels(view, "Energy of one attention call over sequence length", lengths)
    panels[0][1].set_ylabel("energy of a call (bars: its error)")
    kernels_below(figure, view, {}, set(cases["kernel"]))
    for mode, axes in panels:
        log_axis(axes, cases[ENERGY].min() / 3.5, cases[ENERGY].max() * 3.5, words=wording.joules_tick)
        ours = {str(kernel): group for kernel, group in cases[cases["mode"] == mode].groupby("kernel")}
        _draw(axes, view, mode, {kernel: ours[kernel] for kernel in view.looks if kernel in ours})
    return figure


def _draw(axes: Axes, view: View, mode: str, curves: dict[str, pd.DataFrame]) -> None:
    for kernel, cases in curves.items():
        errors = np.nan_to_num(cases[ERROR].to_numpy(dtype=float))
        style = {**view.looks[kernel].drawn, "capsize": 2.5, "elinewidth": 1.2, "zorder": 3}
        axes.errorbar(cases["seq_len"].to_numpy(dtype=float), cases[ENERGY].to_numpy(), yerr=errors, **style)
    lines = [(cases["seq_len"].to_list(), cases[ENERGY].to_list()) for cases in curves.values()]
    labeller = Labeller(axes, lines)
    ends = {kernel: (x[-1], y[-1]) for kernel, (x, y) in zip(curves, lines, strict=True)}
    for kernel in sorted(ends, key=lambda kernel: -ends[kernel][1]):
        left_out = view.cases[(view.cases["mode"] == mode) & (view.cases["kernel"] == kernel)]
        left_out = left_out[left_out["outcome"] != "measured"]
        for label in reason_at_end(left_out, ends[kernel], view.looks[kernel].color):
            labeller.write(label)
    if any(len(x) > 1 for x, _ in lines):
        steep = max(ends.values(), key=lambda end: end[1] / end[0] ** 2)
        flat = min(ends.values(), key=lambda end: end[1] / end[0])
        reference_slopes(axes, labeller, steep, flat, decode=view.is_decode)
