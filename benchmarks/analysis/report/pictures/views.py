"""The content of each picture of operators, and the name of its file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.plots.looks import BACKGROUND, Look, looks
from benchmarks.analysis.reading.roles import USUAL, Roles
from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.report.cases import agreeing
from benchmarks.analysis.report.ceilings import Ceiling, Roof, ceiling_of
from benchmarks.analysis.report.conclusions import PairCrossover, Series, Summary
from benchmarks.analysis.scaling.firmness import Unit

MODES = ("bidirectional", "causal")
COMBINATION = (
    "subject", "device", "phase", "dtype", "batch", "heads", "head_dim", "value_dim", "clock", "device_name",
    "machine",
)  # fmt: skip
"""Fields in which everything inside one picture agrees; the modes are its panels."""
SHORT = {"batch": "B", "heads": "H", "head_dim": "D", "value_dim": "Dv"}
"""Letters of the fields that a number alone would not tell, in names of files."""
MOST_COLOURS = 9
"""The most kernels of a picture that eyes tell apart; the others are grey."""
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
    """One view of the operator per combination of phase, device, dtype, clock and shape.

    With each comes the suffix of its files' names.

    The combination with the most measured cases, forward ones first, has no suffix. The others are
    told apart by as few fields as it takes, as in "-cpu" or "-cuda-forward_backward".
    """
    shown = [one for one in summary.series if one.is_attention and one.setting.subject == "operator"]
    own = summary.roles.own
    of_kernel = dict(sorted(looks(one.kernel for one in shown).items(), key=lambda item: item[0] not in own))
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
            {**of_kernel, **dict.fromkeys(in_the_background(ours, summary.roles), BACKGROUND)},
            ours[0].unit,
            ceiling_of(setting, summary.ceilings),
            summary.roles,
        )
        found.append((suffix(setting, settings, COMBINATION) if index else "", view))
    return found


def in_the_background(series: Sequence[Series], roles: Roles) -> list[str]:
    """The kernels of a picture that are drawn in grey, because more than `MOST_COLOURS` are in it.

    In colour stay a user's own, then the fastest at the longest length that they reach.
    """

    def place(kernel: str) -> tuple[bool, int, float]:
        ours = [one for one in series if one.kernel == kernel]
        return (
            kernel not in roles.own,
            -max(one.seq_lens[-1] for one in ours),
            min(one.median_s[-1] for one in ours),
        )

    return sorted({one.kernel for one in series}, key=place)[MOST_COLOURS:]


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
