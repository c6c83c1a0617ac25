"""A complete run of known laws, and the conclusions from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.analysis.document import as_text
from benchmarks.analysis.layout import WIDTH, Screen
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.report.cases import case_table
from benchmarks.analysis.report.conclusions import Summary
from benchmarks.analysis.report.summary import summarise
from benchmarks.analysis.report.text import sections
from benchmarks.analysis.serialization import json_value
from tests.synthetic import Law, Noise, Run

MODES = ("bidirectional", "causal")
SETTING = Setting("operator", "causal", "forward", "cpu", "A CPU", "", "float32", "wall", 1, 8, 64, 64)
NOISE = Noise(0.01, 0.01, 0.02)

PLAIN_FILES = {
    "complexity_scaling.png", "speedup_analysis.png", "theoretical_vs_empirical.png", "memory_scaling.png",
    "complexity_analysis.csv", "complexity_analysis_wide.csv", "summary.json", "summary.md", "report.html",
}  # fmt: skip

LAWS = {
    **{("standard-explicit", mode): Law(4e-8, 2) for mode in MODES},
    **{("standard-sdpa", mode): Law(1.2e-8, 2) for mode in MODES},
    **{("linear-explicit", mode): Law(4e-4 if mode == "causal" else 1e-5, 1) for mode in MODES},
    **{("linear-chunked", mode): Law(1.6e-5, 1) for mode in MODES},
}
LEFT_OUT = [("standard-explicit", mode, 8192, "over_time", "predicted 5.2 s a round") for mode in MODES]
FULL = Run(LAWS, noise=NOISE, not_measured=LEFT_OUT)


def concluded(*paths: Path) -> tuple[Summary, pd.DataFrame]:
    """The conclusions from files and the table of their cases, made once for files that stay as they are."""
    return _concluded(tuple((path, path.read_bytes()) for path in paths))


@lru_cache(maxsize=8)
def _concluded(files: tuple[tuple[Path, bytes], ...]) -> tuple[Summary, pd.DataFrame]:
    records = load([path for path, _ in files])
    cases = case_table(records)
    return summarise(records, cases=cases), cases


def conclude(*paths: Path) -> dict[str, Any]:
    """Content of summary.json concluded from files."""
    summary: dict[str, Any] = json_value(concluded(*paths)[0])
    return summary


def console(*paths: Path, width: int = WIDTH) -> str:
    """The text of a report on a screen of this width."""
    return as_text(sections(*concluded(*paths)), Screen(width))


def find(items: Sequence[Mapping[str, Any]], **fields: Any) -> Mapping[str, Any]:
    (found,) = [one for one in items if all(one[name] == value for name, value in fields.items())]
    return found
