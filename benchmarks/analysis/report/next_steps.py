"""The commands that would make a report surer: more runs, and lengths between the measured ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from benchmarks.analysis.document import Section
from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.report.conclusions import PairCrossover, Summary, best_linear

COARSE = 1.3
"""The ratio of neighbouring lengths above which lengths between them are worth measuring."""
STEPS = 8
"""Steps between two measured lengths: those of kernels that work in tiles of 128 from N = 1024 on."""
SHORT = 100
"""Columns of a line of a command."""
BENCHMARKS = {"operator": "test_attention", "layer": "test_self_attention"}


def next_steps(summary: Summary) -> Iterator[Section]:
    """A section for each kind of command; none where nothing would be surer."""
    firmness = [pair.firmness for pair in summary.crossovers]
    firmness += [series.exponent.firmness for series in summary.series]
    if summary.runs.unit == "repetition" and "tentative" in firmness:
        yield Section(
            "To make firm what is tentative",
            [
                "Six short runs, each a process of its own, take as long as one run of six repetitions, and "
                "show what a run does. Give this command the options of this run:"
            ],
            commands=["python -m benchmarks run -o runs/"],
        )
    commands = [command for setting, pairs in _crossing(summary) for command in _between(setting, pairs)]
    if commands:
        yield Section(
            "To narrow a crossover",
            [
                "Kernels work in tiles, so that their times are staircases: between lengths that double, a "
                "crossover is known to 5 % at best. This measures the lengths between:"
            ],
            commands=commands,
        )


def _crossing(summary: Summary) -> Iterator[tuple[Setting, list[PairCrossover]]]:
    """Each setting with the crossovers in time of its best linear kernel inside the lengths."""
    for setting in dict.fromkeys(one.setting for one in summary.series):
        best = best_linear([one for one in summary.series if one.setting == setting])
        pairs = [
            pair
            for pair in summary.crossovers
            if (pair.setting, pair.quantity, pair.linear) == (setting, "time", best) and pair.found.n
        ]
        yield setting, pairs


def _between(setting: Setting, pairs: Sequence[PairCrossover]) -> Iterator[str]:
    """The commands that measure the lengths around these crossovers, where they are far apart."""
    around: dict[tuple[int, int], dict[str, None]] = {}
    for pair in pairs:
        for low, high in pairwise(pair.found.seq_lens):
            if low <= (pair.found.n or 0) <= high and high > COARSE * low:
                around.setdefault((low, high), {}).update({pair.linear: None, pair.standard: None})
    for (low, high), kernels in around.items():
        lengths = sorted({round(low + (high - low) * step / STEPS) for step in range(STEPS + 1)})
        clock = ["--clock wall"] if setting.device == "cuda" and setting.clock == "wall" else []
        yield _command(
            f"python -m benchmarks run -o runs-{setting.mode}-{low}/",
            f"-k {BENCHMARKS[setting.subject]}",
            f"--device {setting.device}",
            f"--dtype {setting.dtype}",
            f"--shape {setting.batch}x{setting.heads}x{setting.head_dim}",
            f"--mode {setting.mode}",
            f"--phase {setting.phase}",
            *clock,
            *(f"--kernel {kernel}" for kernel in kernels),
            f"--seq-len {','.join(map(str, lengths))}",
        )


def _command(*parts: str) -> str:
    """A command over several lines of a shell, each of them short."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + 1 + len(part) > SHORT:
            lines.append(f"    {part}")
        else:
            lines[-1] += f" {part}"
    return " \\\n".join(lines)
