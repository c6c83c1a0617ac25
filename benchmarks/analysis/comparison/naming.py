"""How a comparison names its cases, and how their changes read: in its text and in its picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from benchmarks.analysis import wording
from benchmarks.analysis.comparison.conclusions import (
    CaseChange,
    Comparison,
    EnergyVerdict,
    OutcomeVerdict,
    Ratio,
    SideSummary,
    TimeVerdict,
)
from benchmarks.analysis.reading.setting import Setting

ORDER: tuple[TimeVerdict, ...] = ("slower", "faster", "inconclusive", "same")
"""Verdicts on time, what is worth reading first."""
ENERGY_ORDER: tuple[EnergyVerdict, ...] = ("larger", "smaller", "inconclusive", "same")
"""Verdicts on energy, what is worth reading first."""
QUANTITIES = {
    "flops": ("FLOPs", "FLOP"),
    "macs": ("MACs", "MAC"),
    "min_bytes": ("least bytes", "B"),
    "peak_bytes": ("peak memory", "B"),
    "counted_flops": ("counted FLOPs", "FLOP"),
    "predicted_peak_bytes": ("predicted peak memory", "B"),
}
OUTCOMES: dict[OutcomeVerdict, str] = {
    "lost": "no longer measured, a regression",
    "left out": "left out now",
    "gained": "measured only now",
    "vanished": "not asked for in the head",
    "new": "not asked for in the base",
    "incomparable": "incomparable, measured on another machine or by another clock",
}
PARTS: tuple[Callable[[Setting], str], ...] = (
    lambda setting: str(setting.mode),
    lambda setting: str(setting.phase).replace("forward_backward", "forward+backward"),
    lambda setting: "" if setting.query_len is None else f"Q={setting.query_len}",
    lambda setting: "" if setting.subject == "operator" else setting.subject,
    lambda setting: str(setting.device),
    lambda setting: setting.machine,
    lambda setting: str(setting.dtype),
    wording.shape,
    lambda setting: f"{setting.clock} clock",
    wording.ranks,
)
"""The parts of a case's name behind its kernel, each named where cases differ in it."""


class Namer(Protocol):
    """Names a case by its kernel, its setting and, if there is one, its length."""

    def __call__(self, kernel: str, setting: Setting, seq_len: int | None = None) -> str: ...


def namer(comparison: Comparison) -> Namer:
    """The names of the cases of a comparison, by what tells them apart."""
    settings = {one.case.setting for one in comparison.cases} | {
        one.case.setting for one in comparison.outcomes
    }
    known = [setting for setting in settings if setting.heads]
    telling = [part for part in PARTS if len({part(setting) for setting in known}) > 1]

    def name(kernel: str, setting: Setting, seq_len: int | None = None) -> str:
        length = [] if seq_len is None else [f"N={seq_len}"]
        return " ".join([kernel, *filter(None, (part(setting) for part in telling)), *length])

    return name


def by_verdict(cases: Sequence[CaseChange]) -> list[CaseChange]:
    """Changes first, the largest ones first; then by how far a change may yet go."""

    def rank(case: CaseChange) -> tuple[int, float]:
        ratio = case.change.ratio or 1.0
        reach = max(case.change.high or 1e9, 1 / (case.change.low or 1e-9))
        return ORDER.index(case.verdict), -(reach if case.verdict == "inconclusive" else abs(ratio - 1))

    return sorted(cases, key=rank)


def change(found: Ratio) -> str:
    """A ratio and its interval: "+10.3 % [+8.1, +12.6]", large ones "2.31x [2.20, 2.43]"."""
    ratio, low, high = found.ratio, found.low, found.high
    if ratio is None:
        return "-"
    if low is None or high is None:
        return f"{100 * (ratio - 1):+.1f} %"
    if 0.5 <= ratio <= 2 and high <= 10:
        return f"{100 * (ratio - 1):+.1f} % [{100 * (low - 1):+.1f}, {100 * (high - 1):+.1f}]"
    return f"{wording.digits(ratio)}x [{wording.digits(low)}, {wording.digits(high)}]"


def share(value: float) -> str:
    """A margin: "5 %", "2.1 %"."""
    return f"{100 * value:.2g} %"


def commits(side: SideSummary) -> str:
    """The commits of a side in short, as far as they are known, and whether they were changed."""
    known = wording.listed([commit[:9] for commit in side.commits if commit])
    return f"{known}+changes" if known and side.dirty else known
