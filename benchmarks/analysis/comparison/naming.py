"""How a comparison names its cases, and how their changes read: in its text and in its picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.analysis import wording
from benchmarks.analysis.reading.setting import Setting

Row = Mapping[str, Any]

ORDER = ("slower", "faster", "inconclusive", "same")
"""Verdicts on time, what is worth reading first."""
LABEL: dict[str, Callable[[Row], str]] = {
    "kernel": lambda row: str(row["kernel"]),
    "mode": lambda row: str(row["mode"]),
    "phase": lambda row: str(row["phase"]).replace("forward_backward", "forward+backward"),
    "subject": lambda row: "" if row["subject"] == "operator" else str(row["subject"]),
    "device": lambda row: str(row["device"]),
    "machine": lambda row: str(row["machine"]),
    "dtype": lambda row: str(row["dtype"]),
    "shape": lambda row: wording.shape(Setting.of(row)),
    "clock": lambda row: f"{row['clock']} clock",
}
"""The parts of a case's name. The kernel is always named, the others where they differ between cases."""


def namer(comparison: Mapping[str, Any]) -> Callable[[Row], str]:
    """How the cases of a comparison are called: by what tells them apart."""
    rows = [*comparison["cases"], *comparison["outcomes"]]
    telling = [
        part
        for part, word in LABEL.items()
        if part == "kernel" or len({word(row) for row in rows if row["heads"]}) > 1
    ]

    def name(row: Row) -> str:
        parts = [word(row) for part, word in LABEL.items() if part in telling and part in (*row, "shape")]
        return " ".join([*filter(None, parts), *([f"N={row['seq_len']}"] if "seq_len" in row else [])])

    return name


def by_verdict(cases: Sequence[Row]) -> list[Row]:
    """Changes first, the largest ones first; then by how far a change may yet go."""

    def rank(case: Row) -> tuple[int, float]:
        ratio = case["ratio"] or 1.0
        reach = max(case["high"] or 1e9, 1 / (case["low"] or 1e-9))
        return ORDER.index(case["verdict"]), -(reach if case["verdict"] == "inconclusive" else abs(ratio - 1))

    return sorted(cases, key=rank)


def change(ratio: float | None, low: float | None, high: float | None) -> str:
    """A ratio and its interval: "+10.3 % [+8.1, +12.6]", large ones "2.31x [2.20, 2.43]"."""
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


def commits(side: Row) -> str:
    """The commits of a side in short, as far as they are known, and whether they were changed."""
    known = wording.listed([str(commit)[:9] for commit in side["commits"] if commit])
    return f"{known}+changes" if known and side.get("dirty") else known
