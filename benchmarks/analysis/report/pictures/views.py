"""What goes into one picture, and what the picture's file is called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.plots.looks import Look, looks
from benchmarks.analysis.reading.fields import FAMILIES
from benchmarks.analysis.report.ceilings import ceiling_of
from benchmarks.analysis.report.summary import agreeing, same

MODES = ("bidirectional", "causal")
COMBINATION = (
    "subject", "device", "phase", "dtype", "batch", "heads", "head_dim", "value_dim", "clock", "device_name",
    "machine",
)  # fmt: skip
"""Fields in which everything inside one picture agrees; the modes are its panels."""


@dataclass(frozen=True)
class View:
    """What one picture shows: one combination of phase, device, dtype, clock and shape."""

    combination: Mapping[str, Any]
    series: Mapping[str, list[dict[str, Any]]]
    crossovers: Sequence[Mapping[str, Any]]
    cases: pd.DataFrame
    looks: Mapping[str, Look]
    unit: str
    ceiling: Mapping[str, Any] | None = None

    @property
    def measured(self) -> pd.DataFrame:
        """The cases that have times."""
        return self.cases[self.cases["outcome"] == "measured"]

    @property
    def impossible(self) -> pd.DataFrame:
        """The measured cases that took less time than their floor."""
        return self.measured[self.measured["floor_share"] > 1]

    @property
    def lengths(self) -> list[int]:
        """All measured lengths."""
        return sorted(
            {length for series in self.series.values() for one in series for length in one["seq_lens"]}
        )

    @property
    def subtitle(self) -> str:
        """Where and how."""
        return f"{wording.phase(self.combination)}, {wording.place(self.combination)}"


def views(summary: Mapping[str, Any], cases: pd.DataFrame) -> list[tuple[str, View]]:
    """One view of the operator per combination of phase, device, dtype, clock and shape.

    With each comes the suffix of its files' names.

    The combination with the most measured cases, forward ones first, has no suffix. The others are
    told apart by as few fields as it takes, as in "-cpu" or "-cuda-forward_backward".
    """
    series = [one for one in summary["series"] if one["subject"] == "operator" and one["family"] in FAMILIES]
    of_kernel = looks(one["kernel"] for one in series)
    combinations = list({tuple(one[field] for field in COMBINATION): one for one in series}.values())

    def prominence(combination: Mapping[str, Any]) -> tuple[bool, int]:
        points = sum(len(one["seq_lens"]) for one in series if same(one, combination, COMBINATION))
        return combination["phase"] != "forward", -points

    combinations.sort(key=prominence)
    found = []
    for index, combination in enumerate(combinations):
        ours = [one for one in series if same(one, combination, COMBINATION)]
        modes = sorted({one["mode"] for one in ours}, key=lambda mode: (mode not in MODES, mode))
        view = View(
            {field: combination[field] for field in COMBINATION},
            {mode: [one for one in ours if one["mode"] == mode] for mode in modes},
            [one for one in summary["crossovers"] if same(one, combination, COMBINATION)],
            agreeing(cases, combination, COMBINATION),
            of_kernel,
            combination["unit"],
            ceiling_of(combination, summary["ceilings"]),
        )
        found.append((suffix(combination, combinations, COMBINATION) if index else "", view))
    return found


def suffix(
    combination: Mapping[str, Any], combinations: Sequence[Mapping[str, Any]], fields: tuple[str, ...]
) -> str:
    """The fewest of these fields, in their order, that no other combination shares, as a file's suffix."""
    short = {"batch": "B", "heads": "H", "head_dim": "D", "value_dim": "Dv"}
    others = [one for one in combinations if not same(one, combination, fields)]
    words = ""
    for field in fields:
        alike = [one for one in others if one[field] == combination[field]]
        if len(alike) < len(others):
            words += f"-{short.get(field, '')}" + re.sub(r"[^A-Za-z0-9_.]+", "_", str(combination[field]))
        others = alike
    return words
