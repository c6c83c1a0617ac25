"""The pictures of a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.analysis.plots.style import (
    DPI,
    RC,
)
from benchmarks.analysis.report.conclusions import Summary
from benchmarks.analysis.report.pictures.layers import layer_views
from benchmarks.analysis.report.pictures.memory import memory_picture
from benchmarks.analysis.report.pictures.profiling import profiling_picture
from benchmarks.analysis.report.pictures.roofline import roofline_picture
from benchmarks.analysis.report.pictures.scaling import scaling_picture
from benchmarks.analysis.report.pictures.speedup import speedup_picture
from benchmarks.analysis.report.pictures.theory import theory_picture
from benchmarks.analysis.report.pictures.views import View, views

OF_OPERATORS: dict[str, Callable[[View], Figure | None]] = {
    "complexity_scaling": scaling_picture,
    "speedup_analysis": speedup_picture,
    "theoretical_vs_empirical": theory_picture,
    "memory_scaling": memory_picture,
    "roofline": roofline_picture,
}


def draw_pictures(summary: Summary, cases: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw the pictures of every combination of phase, device, dtype, clock and shape.

    Args:
        summary: What `summary.summarise` concluded.
        cases: What `cases.case_table` made of the same records.
        folder: An existing folder.

    Returns:
        The files written, named by the rules of `views.views` and `layers.layer_views`; none where nothing
        was measured, no roofline without ceilings.
    """
    files = []
    with mpl.rc_context(RC):
        for suffix, view in views(summary, cases):
            files += [
                _save(draw(view), folder / f"{name}{suffix}.png") for name, draw in OF_OPERATORS.items()
            ]
        for suffix, layer in layer_views(cases):
            files.append(_save(profiling_picture(layer), folder / f"self_attention_profiling{suffix}.png"))
    return [file for file in files if file]


def _save(figure: Figure | None, path: Path) -> Path | None:
    if figure is None:
        return None
    figure.savefig(path, dpi=DPI)
    return path
