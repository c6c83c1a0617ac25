"""The options of pytest, and the cases that they choose."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pytest

from attention import Case
from attention.case import DTYPES, INFERENCE, MODES, PHASES
from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.reading.run_file import read_run
from benchmarks.grid import (
    build_cases,
    build_ceilings,
    build_layer_cases,
)
from benchmarks.own.options import add_own_options, in_modes_of
from benchmarks.selection import PRESETS, Preset, Selection, Shape
from benchmarks.words import amount_of, lengths_of, present_devices, refuse_absent, shapes_of, words_of

EVERY = (*PHASES, *INFERENCE)


def add_shared_options(parser: pytest.Parser) -> None:
    """The options that tests and benchmarks share, once: either may be collected without the other."""
    group = parser.getgroup("attention")
    try:
        group.addoption(
            "--device",
            metavar="DEVICES",
            help="cpu, cuda, or both with a comma. Benchmarks: every one present unless given; tests: cpu.",
        )
    except ValueError:
        return
    group.addoption(
        "--dtype",
        metavar="DTYPES",
        help=f"Out of {', '.join(DTYPES)}, several with commas. "
        "Benchmarks: float32 on the CPU and bfloat16 on CUDA unless given; tests: all.",
    )


def chosen(config: pytest.Config, option: str, known: list[str]) -> list[str] | None:
    """The words given to an option, each of them known; None where it was not given.

    Raises:
        pytest.UsageError: a word that is not known.
    """
    text = config.getoption(option)
    if text is None:
        return None
    return words_of(text, option.replace("_", "-"), known)


def chosen_devices(config: pytest.Config) -> list[str] | None:
    """The devices asked for.

    Raises:
        pytest.UsageError: an unknown device, or one that this machine does not have.
    """
    devices = chosen(config, "device", ["cpu", "cuda"])
    for device in devices or []:
        refuse_absent(device)
    return devices


def add_options(parser: pytest.Parser) -> None:
    """The options by which a run chooses what it measures, and how long."""
    add_shared_options(parser)
    add_own_options(parser)
    add = parser.getgroup("attention").addoption
    add(
        "--grid",
        choices=tuple(PRESETS),
        default="default",
        help="How much to measure: smoke (seconds), seed (the two experiments of a class, minutes), "
        "default (minutes), full (every kernel and phase).",
    )
    add(
        "--kernel",
        action="append",
        metavar="PATTERN",
        help="Kernels by name, as a shell pattern; repeatable. Example: --kernel 'linear-*'",
    )
    add("--mode", metavar="MODES", help=f"Out of {', '.join(MODES)}, with commas. Default: both.")
    add("--phase", metavar="PHASES", help=f"Out of {', '.join(EVERY)}, with commas. Default: forward.")
    add(
        "--seq-len",
        metavar="N,N,...",
        help="Lengths, those of its context for a decode. Default: 256 to 8192 by doubling, more on CUDA.",
    )
    add(
        "--shape",
        metavar="BxHxD,...",
        help="Batch, heads and head dimension; 1x32:8x128 has 8 heads of keys and values. "
        "Default: 1x8x64, on CUDA 4x8x64, of a decode the batches 1, 8 and 64.",
    )
    add("--query-len", metavar="Q,Q,...", help="Queries against N keys. Default: as many as keys.")
    add("--tokens", metavar="T,T,...", help="New tokens of a call of --phase decode. Default: 1.")
    add(
        "--repetitions",
        type=int,
        metavar="R",
        help="How often the whole grid is measured, in a new order each time. Default: 6.",
    )
    add(
        "--layer-rounds",
        type=int,
        default=20,
        metavar="R",
        help="Rounds of each case of the layer, spread over the repetitions. Default: 20.",
    )
    add("--shuffle-seed", type=int, metavar="SEED", help="Seed of that order. Default: a new one, recorded.")
    add(
        "--times-from",
        metavar="FILE",
        help="A run whose times predict those of this one; the first repetition is then shuffled as well.",
    )
    add(
        "--clock",
        choices=("device", "wall"),
        default="device",
        help="CUDA: device leaves launch latency out, wall holds it. A CPU has wall only. Default: device.",
    )
    add(
        "--energy",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="Measure the energy of each case once, in a pass of its own of half a second to some seconds.",
    )
    add("--case-seconds", type=float, metavar="S", help="Time for one case of one repetition. Default: 0.3.")
    add(
        "--rounds",
        type=int,
        metavar="R",
        help="Rounds of each case of the operator, spread over the repetitions. "
        "Default: those that --case-seconds allows; 10 with --grid seed.",
    )
    add(
        "--warmup",
        type=int,
        metavar="W",
        help="Untimed calls before the rounds of a case, in each repetition. "
        "Default: 4 on CUDA, 2 on a CPU, 1 if it takes over 0.1 s; 3 with --grid seed.",
    )
    add(
        "--round-seconds",
        type=float,
        metavar="S",
        help="A case predicted to take longer a round is left out. Default: 2.",
    )
    add(
        "--case-timeout",
        type=float,
        metavar="S",
        help="A case that has not ended after so long is stopped, and the run goes on. Default: 600, or "
        "twenty times --round-seconds if that is more.",
    )
    add(
        "--isolate",
        action="store_true",
        help="Measure in a process of its own: a case that crashes or hangs it costs that case only.",
    )


CHOOSING = (
    "grid", "device", "dtype", "kernel", "mode", "phase", "seq_len", "shape", "query_len", "tokens", "clock",
    "case_seconds", "round_seconds", "case_timeout", "isolate",
    "rounds", "layer_rounds", "warmup", "energy",
)  # fmt: skip
"""The options that decide which cases are measured, and how; not how often."""


def asked_options(config: pytest.Config) -> list[str]:
    """The words by which another session chooses the same cases, but for a user's own functions."""
    usual = {"grid": "default", "clock": "device"}
    words = []
    for name in CHOOSING:
        given, option = config.getoption(name), f"--{name.replace('_', '-')}"
        if given not in (None, False, usual.get(name)):
            several = given if isinstance(given, list) else [given]
            words += [option] if given is True else [f"{option}={one}" for one in several]
    return [*words, *(["-k", config.option.keyword] if config.option.keyword else [])]


def case_timeout(round_seconds: float) -> float:
    """Seconds after which a case is stopped, unless they are given."""
    return max(600.0, 20 * round_seconds)


def positive(config: pytest.Config, option: str, default: float) -> float:
    """The number given to an option, or the default.

    Raises:
        pytest.UsageError: A number that is not above 0, or above `MOST`.
    """
    value = config.getoption(option)
    return default if value is None else amount_of(value, option.replace("_", "-"))


def fixed_rounds(config: pytest.Config, preset: Preset, repetitions: int) -> dict[str, int]:
    """The rounds of a case over all repetitions, by the subjects where no time decides on them.

    Raises:
        pytest.UsageError: Fewer rounds than repetitions.
    """
    found = {"layer": int(positive(config, "layer_rounds", 20))}
    by_time = config.getoption("case_seconds") is not None
    rounds = int(positive(config, "rounds", 0 if by_time else preset.rounds or 0))
    if 0 < rounds < repetitions:
        raise pytest.UsageError(
            f"{rounds} rounds of a case cannot be spread over {repetitions} repetitions; give --rounds "
            f"{repetitions} or more, or --repetitions {rounds} or fewer"
        )
    return found | ({"operator": rounds} if rounds else {})


def _lengths(config: pytest.Config, option: str, example: str = "256,512") -> list[int] | None:
    text = config.getoption(option.replace("-", "_"))
    return None if text is None else lengths_of(text, option, example)


def _shapes(config: pytest.Config) -> list[Shape] | None:
    text = config.getoption("shape")
    return None if text is None else shapes_of(text)


def known_seconds(config: pytest.Config) -> dict[str, float]:
    """Seconds of each case, by its key, in the run that --times-from names; empty without one.

    Raises:
        pytest.UsageError: The file is no run of this suite.
    """
    file = config.getoption("times_from")
    if file is None:
        return {}
    try:
        return {one.fields["key"]: one.median_s for one in read_run(Path(file)).measured}
    except InputError as error:
        raise pytest.UsageError(f"--times-from: {error}") from None


def selected_cases(config: pytest.Config, own: Sequence[str] = ()) -> dict[str, list[Case]]:
    """The cases of each subject that the options choose.

    Args:
        config: The options.
        own: Kernels of the user's, which are measured whatever other kernels are asked for.

    Raises:
        pytest.UsageError: An option that says nothing, or a choice without a case.
    """
    selection = Selection(
        preset=PRESETS[config.getoption("grid")],
        devices=chosen_devices(config) or present_devices(),
        dtypes=chosen(config, "dtype", list(DTYPES)),
        kernels=config.getoption("kernel"),
        own=own,
        modes=chosen(config, "mode", list(MODES)),
        phases=chosen(config, "phase", list(EVERY)),
        seq_lens=_lengths(config, "seq-len"),
        shapes=_shapes(config),
        query_lens=_lengths(config, "query-len"),
        tokens=_lengths(config, "tokens", "1,4"),
    )
    trying = config.getoption("grid") == "try"
    try:
        cases = build_cases(selection)
        return {
            "operator": in_modes_of(own, cases) if trying and not selection.modes else cases,
            "layer": build_layer_cases(selection),
            "ceiling": build_ceilings(selection),
        }
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
