"""The content of a picture of the layer, which holds all devices, unlike a picture of an operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.plots.looks import Look, Style, looks
from benchmarks.analysis.reading.setting import Setting, attention
from benchmarks.analysis.report.cases import agreeing
from benchmarks.analysis.report.pictures.memory import numbers
from benchmarks.analysis.report.pictures.views import suffix

COMBINATION = ("phase", "mode", "heads", "head_dim", "value_dim")
"""Fields in which everything inside one picture agrees."""
ENVIRONMENT = ("device", "device_name", "machine", "dtype", "clock", "batch")
"""Fields that tell lines of one kernel apart."""
NUMBERS = (
    "flops", "counted_flops", "peak_bytes", "predicted_peak_bytes", "peak_rss_bytes", "rounds_mean_s",
    "rounds_std_s", "rounds_stderr_s",
)  # fmt: skip
FILLS: tuple[Style, ...] = (
    {"markersize": 5.5},
    {"markersize": 9.5, "markerfacecolor": "white", "linewidth": 1.2, "markeredgewidth": 1.4},
    {"markersize": 9.5, "fillstyle": "left", "markerfacecoloralt": "white", "linewidth": 1.2},
    {"markersize": 9.5, "fillstyle": "top", "markerfacecoloralt": "white", "linewidth": 1.2},
)
"""Markers of the environments: a small full one inside a wide hollow one shows that both agree."""


@dataclass(frozen=True)
class Curve:
    """The measured cases of one kernel in one environment, and those beyond that are left out."""

    kernel: str
    environment: int
    look: Look
    cases: pd.DataFrame
    left_out: pd.DataFrame

    @property
    def in_theory(self) -> pd.DataFrame:
        """The cases left out whose FLOPs are known nevertheless, behind the last measured one."""
        known = self.left_out[self.left_out["flops"] > 0]
        return pd.concat([self.cases.tail(1), known]).sort_values("seq_len") if len(known) else known

    @property
    def drawn(self) -> Style:
        """The look as keyword arguments of matplotlib."""
        return {
            **self.look.drawn,
            **FILLS[self.environment % len(FILLS)],
            "zorder": 4 - self.environment / 10,
        }


@dataclass(frozen=True)
class LayerView:
    """One combination of phase, mode and shape, in one or more environments, each of them a setting."""

    environments: list[Setting]
    curves: list[Curve]
    looks: Mapping[str, Look]

    @property
    def lengths(self) -> list[int]:
        """All lengths that were measured, or of which theory tells the FLOPs."""
        shown = (cases for curve in self.curves for cases in (curve.cases, curve.in_theory))
        return sorted({int(length) for cases in shown for length in cases["seq_len"]})

    @property
    def subtitle(self) -> str:
        """The setting of the picture; its environment too, if there is a single one."""
        first = self.environments[0]
        width = (first.heads or 0) * (first.head_dim or 0)
        words = f"{wording.what(first)}, d_model {width}, {first.heads} heads"
        return words + (f", {self.name(0)}" if len(self.environments) == 1 else "")

    def name(self, environment: int) -> str:
        """One environment in words."""
        one = self.environments[environment]
        return f"{wording.machine(one)}, {one.dtype}, batch {one.batch}, {one.clock} clock"


def layer_views(cases: pd.DataFrame) -> list[tuple[str, LayerView]]:
    """One view per combination, the most measured forward one first, with the suffix of its file's name."""
    layers = attention(cases[cases["subject"] == "layer"])
    if layers.empty:
        return []
    layers = numbers(layers, *NUMBERS)
    found = [_view(group) for _, group in layers.groupby(list(COMBINATION), dropna=False)]
    found = [view for view in found if view.curves]
    found.sort(key=lambda view: (view.environments[0].phase != "forward", -len(view.lengths)))
    settings = [view.environments[0] for view in found]
    return [
        (suffix(setting, settings, COMBINATION) if index else "", view)
        for index, (setting, view) in enumerate(zip(settings, found, strict=True))
    ]


def _view(cases: pd.DataFrame) -> LayerView:
    measured = cases[cases["rounds_mean_s"].notna()]
    of_kernel = looks(measured["kernel"])
    groups = measured.groupby(list(ENVIRONMENT), dropna=False)
    environments = [Setting.of(group.iloc[0]) for _, group in groups]
    curves = [
        curve
        for index, environment in enumerate(environments)
        for curve in _curves(index, environment, cases, of_kernel)
    ]
    return LayerView(environments, curves, of_kernel)


def _curves(
    index: int, environment: Setting, cases: pd.DataFrame, of_kernel: Mapping[str, Look]
) -> Iterator[Curve]:
    here = agreeing(cases, environment, ENVIRONMENT)
    # In the order of the looks: dashed lines come after full ones, which would hide them.
    for kernel, look in of_kernel.items():
        group = here[here["kernel"] == kernel].sort_values("seq_len")
        measured, left_out = group[group["rounds_mean_s"].notna()], group[group["outcome"] != "measured"]
        if len(measured):
            yield Curve(kernel, index, look, measured, left_out)
