"""The pictures of a report."""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial
from itertools import chain, count

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.analysis.plots.saving import Drawing
from benchmarks.analysis.report.conclusions import Summary
from benchmarks.analysis.report.pictures.decode import decode_picture, decode_views
from benchmarks.analysis.report.pictures.distributed import distributed_picture, rank_views
from benchmarks.analysis.report.pictures.energy import energy_picture
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
    "energy_scaling": energy_picture,
    "roofline": roofline_picture,
}


OF_DECODES = "decode_scaling"
OF_RANKS = "distributed_scaling"
OF_LAYERS = "self_attention_profiling"
STEMS = (*OF_OPERATORS, OF_DECODES, OF_RANKS, OF_LAYERS)
"""How the names of the pictures of a report begin."""


def drawings(summary: Summary, cases: pd.DataFrame) -> dict[str, Drawing]:
    """The pictures of every combination of phase, device, dtype, clock and shape.

    Args:
        summary: What `summary.summarise` concluded.
        cases: What `cases.case_table` made of the same records.

    Returns:
        How each is drawn, by the name of its file: see `views.views` and `layers.layer_views`. None where
        nothing was measured; a roofline without ceilings shows nothing.
    """
    found: dict[str, Drawing] = {}
    of_operators = views(summary, cases)
    for suffix, several in decode_views([view for _, view in of_operators]):
        found[free_name(f"{OF_DECODES}{suffix}", found)] = partial(decode_picture, several)
    for suffix, view in of_operators:
        for name, draw in OF_OPERATORS.items():
            found[free_name(f"{name}{suffix}", found)] = partial(draw, view)
    for suffix, shared in rank_views(summary.over_ranks):
        found[free_name(f"{OF_RANKS}{suffix}", found)] = partial(distributed_picture, shared)
    for suffix, layer in layer_views(cases):
        found[free_name(f"{OF_LAYERS}{suffix}", found)] = partial(profiling_picture, layer)
    return found


def free_name(stem: str, taken: Container[str], ending: str = "png") -> str:
    """The name of a file that no other has: devices may differ in what no name of a file shows."""
    stems = chain([stem], (f"{stem}-{number}" for number in count(2)))
    names = (f"{one}.{ending}" for one in stems)
    return next(name for name in names if name not in taken)
