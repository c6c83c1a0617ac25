"""Energy of a call over length."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.analysis import wording
from benchmarks.analysis.plots.style import log_axis
from benchmarks.analysis.report.energies import ENERGY, ERROR
from benchmarks.analysis.report.pictures.canvas import (
    kernels_below,
    make_panels,
    write_ends,
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
    write_ends(axes, view, mode, curves, ENERGY)
