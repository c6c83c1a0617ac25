"""The pictures of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.analysis.plot_scaling import scaling_picture
from benchmarks.analysis.plot_speedup import speedup_picture
from benchmarks.analysis.plot_theory import theory_picture
from benchmarks.analysis.style import (
    DPI,
    RC,
)
from benchmarks.analysis.views import View, views


def draw_pictures(summary: Mapping[str, Any], cases: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw the three pictures of every combination of phase, device, dtype, clock and shape.

    Args:
        summary: What `summary.summarise` concluded.
        cases: What `cases.case_table` made of the same records.
        folder: An existing folder.

    Returns:
        The files written, named by the rule of `views.views`; none where nothing was measured.
    """
    drawers: dict[str, Callable[[View], Figure]] = {
        "complexity_scaling": scaling_picture,
        "speedup_analysis": speedup_picture,
        "theoretical_vs_empirical": theory_picture,
    }
    files = []
    with mpl.rc_context(RC):
        for suffix, view in views(summary, cases):
            for name, draw in drawers.items():
                files.append(folder / f"{name}{suffix}.png")
                draw(view).savefig(files[-1], dpi=DPI)
    return files
