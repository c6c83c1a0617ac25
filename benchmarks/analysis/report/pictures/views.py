"""The content of each picture of operators, and the name of its file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.plots.looks import BACKGROUND, OWN, Look, looks
from benchmarks.analysis.reading.roles import USUAL, Roles
from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.report.cases import agreeing
from benchmarks.analysis.report.ceilings import Ceiling, Roof, ceiling_of
from benchmarks.analysis.report.conclusions import PairCrossover, Series, Summary
from benchmarks.analysis.scaling.firmness import Unit

MODES = ("bidirectional", "causal")
COMBINATION = (
    "subject", "device", "phase", "query_len", "dtype", "batch", "heads", "kv_heads", "head_dim", "value_dim",
    "clock", "device_name", "machine",
)  # fmt: skip
"""Fields in which everything inside one picture agrees; the modes are its panels."""
SHORT = {
    "query_len": "Q", "batch": "B", "heads": "H", "kv_heads": "KV", "head_dim": "D", "value_dim": "Dv",
}  # fmt: skip
"""Letters of the fields that a number alone would not tell, in names of files."""
MOST_COLOURS = 9
"""The most kernels of a picture that eyes tell apart; the others are grey."""
MOST_BASELINES = 3
"""Baselines that stay in colour beside faster contenders."""
MOST_LETTERS = 40
"""Letters of the value of a field in the name of a file."""


@dataclass(frozen=True)
class View:
    """The content of one picture: all modes of one setting, whose own `mode` is None."""

    setting: Setting
    series: Mapping[str, list[Series]]
    crossovers: Sequence[PairCrossover]
    cases: pd.DataFrame
    looks: Mapping[str, Look]
    unit: Unit
    ceiling: Ceiling | None = None
    roles: Roles = USUAL

    def faded(self) -> View:
        """A view of these series in which the kernels beyond `MOST_COLOURS` have grey lines.

        In colour stay a user's own, the fastest baselines, and then the fastest contenders, at the longest
        length that each reaches.
        """
        every = [one for series in self.series.values() for one in series]

        def speed(kernel: str) -> tuple[int, float]:
            ours = [one for one in every if one.kernel == kernel]
            return -max(one.seq_lens[-1] for one in ours), min(one.median_s[-1] for one in ours)

        kernels = sorted({one.kernel for one in every}, key=speed)
        baselines = [kernel for kernel in kernels if self.roles.is_baseline(kernel)][:MOST_BASELINES]
        own = [kernel for kernel in self.roles.own if kernel in kernels]
        first = [*own[: MOST_COLOURS - MOST_BASELINES], *baselines, *own]
        grey = list(dict.fromkeys([*first, *kernels]))[MOST_COLOURS:]
        return replace(self, looks={**self.looks, **dict.fromkeys(grey, BACKGROUND)})

    @property
    def is_decode(self) -> bool:
        """Whether lengths are those of contexts."""
        return self.setting.phase == "decode"

    @property
    def measured(self) -> pd.DataFrame:
        """The cases that have times."""
        return self.cases[self.cases["outcome"] == "measured"]

    @property
    def roof(self) -> Roof | None:
        """The roof by the medians of the ceilings."""
        return self.ceiling.roof() if self.ceiling else None

    @property
    def lengths(self) -> list[int]:
        """All measured lengths."""
        return sorted(
            {length for series in self.series.values() for one in series for length in one.seq_lens}
        )

    @property
    def subtitle(self) -> str:
        """The setting of the picture in words."""
        return f"{wording.phase(self.setting)}, {wording.place(self.setting)}"


def views(summary: Summary, cases: pd.DataFrame) -> list[tuple[str, View]]:
    """One view of the operator per combination of phase, device, dtype, clock and shape, on one rank.

    With each comes the suffix of its files' names.

    The combination with the most measured cases, forward ones first, has no suffix. The others are
    told apart by as few fields as it takes, as in "-cpu" or "-cuda-forward_backward".
    """
    shown = [one for one in summary.series if one.is_attention and one.setting.subject == "operator"]
    shown = [one for one in shown if one.setting.ranks is None]
    own = summary.roles.own
    by_name = looks(one.kernel for one in shown)
    of_own = {kernel: one for kernel, one in zip(own, OWN, strict=False) if kernel in by_name}
    of_kernel = {**of_own, **by_name, **of_own}
    series: dict[Setting, list[Series]] = {}
    for one in shown:
        series.setdefault(_without_mode(one.setting), []).append(one)

    def prominence(setting: Setting) -> tuple[bool, int]:
        return setting.phase != "forward", -sum(len(one.seq_lens) for one in series[setting])

    settings = sorted(series, key=prominence)
    found = []
    for index, setting in enumerate(settings):
        ours = series[setting]
        modes = sorted({str(one.setting.mode) for one in ours}, key=lambda mode: (mode not in MODES, mode))
        view = View(
            setting,
            {mode: [one for one in ours if one.setting.mode == mode] for mode in modes},
            [pair for pair in summary.crossovers if _without_mode(pair.setting) == setting],
            agreeing(cases, setting, COMBINATION),
            of_kernel,
            ours[0].unit,
            ceiling_of(setting, summary.ceilings),
            summary.roles,
        )
        found.append((suffix(setting, settings, COMBINATION) if index else "", view))
    return found


def _without_mode(setting: Setting) -> Setting:
    return replace(setting, mode=None)


def suffix(setting: Setting, settings: Sequence[Setting], fields: Sequence[str]) -> str:
    """The fewest of these fields, in their order, that no other setting shares, as a file's suffix."""

    def differ(one: Setting) -> bool:
        return any(getattr(one, field) != getattr(setting, field) for field in fields)

    others = [one for one in settings if differ(one)]
    words = ""
    for field in fields:
        alike = [one for one in others if getattr(one, field) == getattr(setting, field)]
        if len(alike) < len(others):
            value = re.sub(r"[^A-Za-z0-9_.]+", "_", str(getattr(setting, field)))[:MOST_LETTERS]
            words += f"-{SHORT.get(field, '')}{value}"
        others = alike
    return words
