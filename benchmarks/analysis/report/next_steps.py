"""The commands that would make a report surer: more runs, and lengths between the measured ones."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from benchmarks.analysis import wording
from benchmarks.analysis.document import Command, Section
from benchmarks.analysis.reading.roles import Roles, option_words
from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.report.conclusions import PairCrossover, Runs, Summary
from benchmarks.analysis.scaling.crossover import Crossover
from benchmarks.analysis.scaling.firmness import FIRM_UNITS

COARSE = 1.3
"""The ratio of neighbouring lengths above which lengths between them are worth measuring."""
STEPS = 8
"""Steps in which all lengths around a crossover are measured: of 128 tokens between 1024 and 2048 alone."""
BENCHMARKS = {"operator": "test_attention", "layer": "test_self_attention"}
USUAL = {"cpu": ("float32", "1x8x64"), "cuda": ("bfloat16", "4x8x64")}
"""The dtype and the shape that a session takes on a device where its options name none."""
RUN = "python -m benchmarks run"


def next_steps(summary: Summary) -> Iterator[Section]:
    """A section for each kind of command; none where nothing would be surer."""
    firmness = [pair.firmness for pair in summary.crossovers if pair.setting.ranks is None]
    firmness += [one.exponent.firmness for one in summary.series if one.setting.ranks is None]
    if summary.runs.unit == "repetition" and "tentative" in firmness:
        known = " Give this command the options of this run:" if _options(summary.runs) is None else ""
        yield Section(
            "To make firm what is tentative",
            [
                "Six short runs, each a process of its own, take as long as one run of six repetitions, and "
                f"show what a run does.{known}"
            ],
            commands=[more_runs(summary.runs)],
        )
    commands = [
        Command([f"{RUN} -o finer-{number}/", *options])
        for number, options in enumerate(_finer(summary.crossovers, summary.roles), start=1)
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


def surer(summary: Summary, pairs: Sequence[PairCrossover]) -> Command | None:
    """The command that does most for these crossovers in time; None where nothing would be surer.

    More runs, where few of them leave one in doubt; else lengths around the one that is known worst. None,
    too, where the cases were measured by ranks, or by options that are not known: it would measure others.
    """
    runs = summary.runs
    pairs = [pair for pair in pairs if pair.setting.ranks is None]
    if not pairs and any(one.setting.ranks is not None for one in summary.series):
        return None
    few = runs.unit != "run" or runs.units < FIRM_UNITS
    if not pairs or (few and any(pair.firmness != "firm" for pair in pairs)):
        return more_runs(runs) if runs.unit and runs.options is not None else None
    for pair in sorted(pairs, key=lambda pair: -_relative_width(pair.found)):
        for options in _finer([pair], summary.roles):
            return Command([f"{RUN} -o finer/", *options])
    doubtful = runs.options is not None and any(pair.firmness != "firm" for pair in pairs)
    return more_runs(runs) if doubtful else None


def more_runs(runs: Runs) -> Command:
    """The command that measures the same cases in as many runs as show what a run does."""
    options = _options(runs)
    told = runs.roles.own_options if options is None else options
    whole = [] if runs.unit != "run" else [f"--runs {2 * max(FIRM_UNITS, runs.units)}"]
    folder = "more/" if whole else "runs/"
    return Command([f"{RUN} -o {folder}", *whole, *map(shlex.quote, told)])


def _options(runs: Runs) -> tuple[str, ...] | None:
    """The words of these options; None where they are not known."""
    return None if runs.options is None else option_words(runs.options, " ")


def _relative_width(found: Crossover) -> float:
    """How well a crossover is known: the width of its interval as a share of it; 0 where there is none."""
    if found.n is None:
        return 0.0
    return ((found.high or found.n) - (found.low or found.n)) / found.n


def _finer(crossovers: Iterable[PairCrossover], roles: Roles) -> Iterator[list[str]]:
    """The options that measure the lengths around each crossover in time between lengths far apart."""
    around: dict[tuple[Setting, tuple[int, ...]], dict[str, None]] = {}
    for pair in crossovers:
        alone = pair.setting.ranks is None  # pytest measures one process
        lengths = _around(pair.found) if pair.quantity == "time" and alone else ()
        if lengths:
            kernels = {pair.contender: None, pair.baseline: None}
            around.setdefault((pair.setting, lengths), {}).update(kernels)
    for (setting, lengths), kernels in around.items():
        yield [
            f"-k {BENCHMARKS[setting.subject]}",
            *(map(shlex.quote, roles.own_options) if not kernels.keys().isdisjoint(roles.own) else ()),
            *_place(setting),
            _option("mode", setting.mode),
            *([] if setting.phase == "forward" else [_option("phase", setting.phase)]),
            *_queries(setting),
            *([_option("clock", "wall")] if setting.device == "cuda" and setting.clock == "wall" else []),
            *(_option("kernel", kernel) for kernel in kernels if kernel not in roles.own),
            _option("seq-len", ",".join(map(str, lengths))),
        ]


def _place(setting: Setting) -> Iterator[str]:
    """The device, and the dtype and shape as far as they are not what is measured there anyway."""
    shape = f"{setting.batch}x{wording.heads(setting).removeprefix('H')}x{setting.head_dim}"
    usual_dtype, usual_shape = USUAL.get(str(setting.device), ("", ""))
    yield _option("device", setting.device)
    if setting.dtype != usual_dtype:
        yield _option("dtype", setting.dtype)
    if shape != usual_shape or setting.phase == "decode":
        yield _option("shape", shape)


def _queries(setting: Setting) -> Iterator[str]:
    if setting.query_len is not None and (setting.phase, setting.query_len) != ("decode", 1):
        yield _option("tokens" if setting.phase == "decode" else "query-len", str(setting.query_len))


def _option(name: str, value: str | None) -> str:
    """An option of a command as a shell takes it; a value that looks like an option itself is tied to it."""
    word = shlex.quote(str(value))
    return f"--{name}={word}" if word.startswith("-") else f"--{name} {word}"


def _around(found: Crossover) -> tuple[int, ...]:
    """Lengths in steps between the measured ones, far apart, that the interval of a crossover touches."""
    if found.n is None:
        return ()
    least, most = found.low or found.n, found.high or found.n
    gaps = [
        (low, high)
        for low, high in pairwise(found.seq_lens)
        if low < most and least < high and high > COARSE * low
    ]
    steps = max(2, STEPS // max(1, len(gaps)))
    wanted: set[int] = set()
    for low, high in gaps:
        spaced = np.linspace if high <= 2 * low else np.geomspace
        wanted.update(round(float(length)) for length in spaced(low, high, steps + 1))
    return tuple(sorted(wanted))
