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
    """The command that measures the lengths around these crossovers, where they are far apart."""
    wanted: set[int] = set()
    kernels: dict[str, None] = {}
    for pair in pairs:
        for low, high in pairwise(pair.found.seq_lens):
            if low <= (pair.found.n or 0) <= high and high > COARSE * low:
                wanted.update(round(low + (high - low) * step / STEPS) for step in range(STEPS + 1))
                kernels |= {pair.linear: None, pair.standard: None}
    if wanted:
        shape = f"{setting.batch}x{setting.heads}x{setting.head_dim}"
        clock = " --clock wall" if setting.device == "cuda" and setting.clock == "wall" else ""
        yield (
            f"python -m benchmarks run -k {BENCHMARKS[setting.subject]} -o runs-{setting.mode}/ \\\n"
            f"    --device {setting.device} --dtype {setting.dtype} --shape {shape} --mode {setting.mode} "
            f"--phase {setting.phase}{clock} \\\n"
            f"    {' '.join(f'--kernel {kernel}' for kernel in kernels)} \\\n"
            f"    --seq-len {','.join(map(str, sorted(wanted)))}"
        )
