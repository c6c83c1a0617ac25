"""Two sets of runs to compare: without and with a planted change."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.analysis.comparison.answer import Judged
from benchmarks.analysis.reading.records import Records, load
from tests.synthetic import Law, Noise, Run

Content = dict[str, Any]
Found = TypeVar("Found", bound=Judged)
Edit = Callable[[Content], object]
NOISE = Noise(0.01, 0.01, 0.02)
MODES = ("bidirectional", "causal")
LAWS = {
    **{("standard-sdpa", mode): Law(1.2e-8, 2) for mode in MODES},
    **{("linear-explicit", mode): Law(4e-6, 1) for mode in MODES},
    **{("linear-chunked", mode): Law(1.6e-5, 1) for mode in MODES},
}
PLAIN = Run(LAWS, repetitions=2, rounds=3, noise=NOISE)


def slower(factor: float, *series: tuple[str, str]) -> Run:
    """The run PLAIN with some series, or all, slower by a factor."""
    laws = {
        name: replace(law, coefficient=law.coefficient * (factor if name in (series or LAWS) else 1))
        for name, law in LAWS.items()
    }
    return replace(PLAIN, laws=laws)


def write(folder: Path, side: str, run: Run, count: int = 4, edit: Edit | None = None) -> list[Path]:
    """Write runs of a side, dated in turn with those of the other: base, head, head, base, base ..."""
    files = []
    for pair in range(count):
        content = replace(run, seed=100 * (side == "head") + pair).content()
        second = (side == "head") != (pair % 2 == 1)
        content["datetime"] = f"2025-01-{pair + 1:02d}T{12 * second:02d}:00:00"
        content["commit_info"]["id"] = {"base": "a", "head": "b"}[side] * 40
        if edit:
            edit(content)
        files.append(folder / f"{side}-{pair}.json")
        files[-1].write_text(json.dumps(content))
    return files


def records(folder: Path, side: str, run: Run, count: int = 4, edit: Edit | None = None) -> Records:
    return load(write(folder, side, run, count, edit))


def infos(content: Content, kernel: str) -> list[dict[str, Any]]:
    return [row["extra_info"] for row in content["benchmarks"] if row["extra_info"]["kernel"] == kernel]


def having(rows: Sequence[Found], *verdicts: str) -> list[Found]:
    return [row for row in rows if row.verdict in verdicts]


def other_machine(content: Content) -> None:
    content["machine_info"]["cpu"]["brand_raw"] = "Another CPU"


def regressed_head(folder: Path) -> Records:
    """Records of a head of a 15 % slower kernel, one of twice the memory, and a lost case."""

    def grow(content: Content) -> None:
        for info in infos(content, "linear-explicit"):
            info["peak_bytes"] *= 2

    run = replace(
        slower(1.15, ("linear-chunked", "causal")),
        not_measured=[("standard-sdpa", "causal", 8192, "oom", "CUDA out of memory")],
    )
    return records(folder, "head", run, edit=grow)
