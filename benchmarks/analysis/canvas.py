"""What the pictures of time share: panels, points with bars, and their axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from benchmarks.analysis import wording
from benchmarks.analysis.style import (
    INK,
    headline,
    length_axis,
)
from benchmarks.analysis.views import View

Series = Mapping[str, Any]


def make_panels(
    view: View, title: str, lengths: Sequence[int], height: float = 6.4
) -> tuple[Figure, list[tuple[str, Axes]]]:
    """A figure with its title and one panel per measured mode."""
    figure = Figure(figsize=(12, height), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 0.9), w_pad=0.12))
    axes = figure.subplots(1, len(view.series), sharey=True, squeeze=False)[0]
    headline(figure, title, view.subtitle)
    panels = list(zip(view.series, axes, strict=True))
    for mode, panel in panels:
        panel.set_title(mode, loc="left", color=INK)
        length_axis(panel, lengths)
    return figure, panels


def time_range(view: View, below: float, above: float) -> tuple[float, float]:
    """Limits of the axis in seconds, with so much room below and above the measured times."""
    return view.measured["median_s"].min() / below, view.measured["median_s"].max() * above


def _ends(cases: pd.DataFrame) -> tuple[str, str]:
    """What the bars span: all units, or with a single unit the middle half of its rounds."""
    return ("unit_low_s", "unit_high_s") if cases["units"].max() > 1 else ("q25_s", "q75_s")


def what_bars_span(view: View) -> str:
    """What the bars mean, for the axis."""
    several = _ends(view.measured)[0] == "unit_low_s"
    return f"bars: lowest to highest {view.unit}" if several else "bars: quartiles of the rounds"


def draw_times(axes: Axes, view: View, series: Series, **changes: Any) -> None:
    """Draw the measured medians of one series with their bars."""
    cases = view.measured
    ours = (cases["kernel"] == series["kernel"]) & (cases["mode"] == series["mode"])
    times = cases[ours].sort_values("seq_len")
    low, median, high = (
        times[name].to_numpy(dtype=float) for name in (_ends(times)[0], "median_s", _ends(times)[1])
    )
    bars = np.maximum([median - low, high - median], 0)
    style = {**view.looks[series["kernel"]].drawn, "capsize": 2.5, "elinewidth": 1.2, "zorder": 3, **changes}
    axes.errorbar(times["seq_len"].to_numpy(dtype=float), median, yerr=bars, **style)


def time_tick(value: float) -> str:
    """The label of a tick: "30 ms"."""
    number, unit = wording.seconds(value).split()
    return f"{float(number):g} {unit}"
