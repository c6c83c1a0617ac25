"""The commands that would make a report surer: more runs, and lengths between the measured ones."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from benchmarks.analysis import wording
from benchmarks.analysis.document import Section
from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.report.conclusions import Summary
from benchmarks.analysis.scaling.crossover import Crossover

COARSE = 1.3
"""The ratio of neighbouring lengths above which lengths between them are worth measuring."""
STEPS = 8
"""Steps in which the lengths around a crossover are measured: of 128 tokens between 1024 and 2048."""
SHORT = 100
"""Columns of a line of a command."""
BENCHMARKS = {"operator": "test_attention", "layer": "test_self_attention"}


def next_steps(summary: Summary) -> Iterator[Section]:
    """A section for each kind of command; none where nothing would be surer."""
    own = summary.roles.own_options if summary.roles.own else ()
    firmness = [pair.firmness for pair in summary.crossovers if pair.setting.ranks is None]
    firmness += [one.exponent.firmness for one in summary.series if one.setting.ranks is None]
    if summary.runs.unit == "repetition" and "tentative" in firmness:
        yield Section(
            "To make firm what is tentative",
            [
                "Six short runs, each a process of its own, take as long as one run of six repetitions, and "
                "show what a run does. Give this command the options of this run:"
            ],
            commands=[_command("python -m benchmarks run -o runs/", *map(shlex.quote, own))],
        )
    commands = [
        _command(f"python -m benchmarks run -o finer-{number}/", *options)
        for number, options in enumerate(_finer(summary), start=1)
    ]
    if commands:
        yield Section(
            "To narrow a crossover",
            [
                "Kernels work in tiles, so that their times are staircases: where lengths double, a "
                "crossover between two of them is known to 5 % at best. This measures lengths around it:"
            ],
            commands=commands,
        )


def _finer(summary: Summary) -> Iterator[list[str]]:
    """The options that measure the lengths around each crossover in time between lengths far apart."""
    roles = summary.roles
    around: dict[tuple[Setting, tuple[int, ...]], dict[str, None]] = {}
    for pair in summary.crossovers:
        alone = pair.setting.ranks is None  # pytest measures one process
        lengths = _around(pair.found) if pair.quantity == "time" and alone else ()
        if lengths:
            kernels = {pair.contender: None, pair.baseline: None}
            around.setdefault((pair.setting, lengths), {}).update(kernels)
    for (setting, lengths), kernels in around.items():
        heads = wording.heads(setting).removeprefix("H")
        shape = f"{setting.batch}x{heads}x{setting.head_dim}"
        queries = "tokens" if setting.phase == "decode" else "query-len"
        plain = setting.query_len is None or (setting.phase, setting.query_len) == ("decode", 1)
        wall = setting.device == "cuda" and setting.clock == "wall"
        yield [
            f"-k {BENCHMARKS[setting.subject]}",
            *(map(shlex.quote, roles.own_options) if not kernels.keys().isdisjoint(roles.own) else ()),
            _option("device", setting.device),
            _option("dtype", setting.dtype),
            _option("shape", shape),
            _option("mode", setting.mode),
            _option("phase", setting.phase),
            *([] if plain else [_option(queries, str(setting.query_len))]),
            *([_option("clock", "wall")] if wall else []),
            *(_option("kernel", kernel) for kernel in kernels if kernel not in roles.own),
            _option("seq-len", ",".join(map(str, lengths))),
        ]


def _option(name: str, value: str | None) -> str:
    """An option of a command as a shell takes it; a value that looks like an option itself is tied to it."""
    word = shlex.quote(str(value))
    return f"--{name}={word}" if word.startswith("-") else f"--{name} {word}"


def _around(found: Crossover) -> tuple[int, ...]:
    """Lengths in steps between the measured ones, far apart, that the interval of a crossover touches."""
    if found.n is None:
        return ()
    least, most = found.low or found.n, found.high or found.n
    wanted: set[int] = set()
    for low, high in pairwise(found.seq_lens):
        if low < most and least < high and high > COARSE * low:
            spaced = np.linspace if high <= 2 * low else np.geomspace
            wanted.update(round(float(length)) for length in spaced(low, high, STEPS + 1))
    return tuple(sorted(wanted))


def _command(*parts: str) -> str:
    """A command over several lines of a shell, each of them short."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + 1 + len(part) > SHORT:
            lines.append(f"    {part}")
        else:
            lines[-1] += f" {part}"
    return " \\\n".join(lines)
