"""The words of `python -m benchmarks`: its commands and their options."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from benchmarks import commands
from benchmarks.analysis.comparison.regression import MARGIN
from benchmarks.analysis.comparison.writing import FORMATS
from benchmarks.analysis.layout import LEAST_WIDTH, MOST_WIDTH, WIDTH
from benchmarks.analysis.reading.texts import printable

NO_VALUE = re.compile(r"--[^=]+=--|-[^-]=?--")
"""An option whose value argparse, here and in pytest, takes for the end of all options, and fails."""
MOST = 10**6
"""The most runs or pairs that can be asked for."""
WIDEST = 1000
"""The most columns that can be asked for."""
OTHER_EXIT_CODES = "2 wrong usage or input; 3 a fault of this suite"
EXIT_CODES = (
    f"exit codes: 0 a report was written; 1 it was, but nothing had been measured; {OTHER_EXIT_CODES}"
)
COMPARE_EXIT_CODES = (
    "exit codes: 0 nothing became slower or larger; 1 something did, or can no longer be measured; "
    f"{OTHER_EXIT_CODES}"
)


def carry_out_command(words: Sequence[str]) -> int:
    """Carry out a command and return its exit code.

    Args:
        words: The command and its options.

    Raises:
        InputError: What it names cannot be used.
        SystemExit: The words are wrong, which is told, or ask for help.
    """
    # Beside revisions there are no files, whose place the values of pytest's options would take.
    revisions = any(word.partition("=")[0] == "--rev" for word in words)
    parser = _parser(revisions)
    if odd := [word for word in words if NO_VALUE.fullmatch(word)]:
        parser.error(f"argument {odd[0]}: '--' is no value of an option")
    options, rest = parser.parse_known_args(words)
    if revisions and "--against" in rest:
        parser.error("--rev measures both sides and --against names files; give one of them")
    if revisions and (files := [word for word in rest if word.endswith((".json", ".json.gz"))]):
        parser.error(f"--rev measures both sides and {files[0]} is a file; give one of them")
    if rest and not (options.command in (commands.run, commands.try_out) or revisions):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    # A file may hold any numbers: what they overflow to is null in the conclusions.
    with np.errstate(all="ignore"):
        return int(options.command(options, rest))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def _share(text: str) -> float:
    """2% or 0.02."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 100 %")
    return value


def _seconds(text: str) -> float:
    """90, 90s, 15m or 2h."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match or not math.isfinite(float(match[1])):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 90s, 15m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= float(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1 and at most {MOST}")
    return int(text)


def _columns(text: str) -> int:
    if not text.isdecimal() or not LEAST_WIDTH <= float(text) <= WIDEST:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of columns from {LEAST_WIDTH} to {WIDEST}"
        )
    return int(text)


def _folder(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("an empty name is no folder")
    return text


def _parser(revisions: bool) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m benchmarks", description="Measure runs, and conclude from measured ones."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_report(commands.add_parser(
        "report",
        help="tables, pictures, exponents and crossovers of one or more runs",
        description="Print the conclusions, and write them with their pictures and tables into a folder.",
        epilog=EXIT_CODES,
    ))  # fmt: skip
    _add_run(commands.add_parser(
        "run",
        help="measure several runs in fresh processes, and report over all of them",
        description="Measure runs one after another, each a fresh process with a JSON file of its own. "
        "Every option not listed here goes to pytest. The same command continues what was interrupted.",
        epilog=EXIT_CODES,
        allow_abbrev=False,
    ))  # fmt: skip
    _add_try(commands.add_parser(
        "try",
        help="measure a function of your own beside others, check it, and report",
        description="Measure functions of your own beside the kernels that they are compared with, find out "
        "what they compute, and report. Every option not listed here goes to pytest.",
        epilog=EXIT_CODES,
        allow_abbrev=False,
    ))  # fmt: skip
    _add_compare(commands.add_parser(
        "compare",
        help="did it change? runs before against runs after, or one commit against another",
        usage="%(prog)s BASE.json [...] --against HEAD.json [...] [options]\n"
        "       %(prog)s --rev BASE --rev HEAD [--pairs N] [options] [options of pytest]",
        description="Compare the times, counts, exponents and crossovers of two sets of runs: of files, "
        "or with --rev of two commits, measured now in turn; then every option not listed here goes to "
        "pytest, and the same command continues what was interrupted.",
        epilog=COMPARE_EXIT_CODES,
        allow_abbrev=False,
    ), revisions)  # fmt: skip
    _add_history(commands.add_parser(
        "history",
        help="what changed at which commit, over all runs in a storage folder",
        description="Find the steps in the times, counts, exponents and crossovers of stored runs, in the "
        "order of their commits.",
        epilog="exit codes: 0 nothing is worse than the baseline; 1 something is slower, larger or lost; "
        f"{OTHER_EXIT_CODES}",
    ))  # fmt: skip
    _add_distributed(commands.add_parser(
        "distributed",
        help="measure one sequence on several ranks; started by torchrun",
        usage="torchrun --nproc-per-node P -m benchmarks distributed [options]",
        description="Measure linear attention whose ranks exchange states beside torch's context "
        "parallelism, one process a rank: over NCCL on cards, over Gloo on CPUs.",
        epilog="exit codes: 0 something was measured; 1 nothing was, or ranks were lost; "
        f"{OTHER_EXIT_CODES}, or its file had to be written elsewhere",
    ))  # fmt: skip
    return parser


def _add_output(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument(
        "-o", "--output", type=_folder, default=default, metavar="DIR", help="default: %(default)s"
    )
    command.add_argument(
        "--width",
        type=_columns,
        metavar="N",
        help=f"columns of the text; default: those of the terminal, at most {MOST_WIDTH}; of a file {WIDTH}",
    )


def _add_report(report: argparse.ArgumentParser) -> None:
    report.add_argument(
        "files",
        nargs="+",
        metavar="out.json",
        help="written by `pytest benchmarks --benchmark-json`, or a folder of these",
    )
    _add_output(report, "report")
    report.set_defaults(command=commands.report)


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "--runs",
        type=_count,
        metavar="N",
        help=f"how many whole runs; default: {commands.DEFAULT_RUNS} short ones, of one repetition each",
    )
    run.add_argument(
        "--until",
        type=_share,
        metavar="2%",
        help="go on, beyond --runs, until every crossover's interval is within this share of it",
    )
    run.add_argument("--time-limit", type=_seconds, metavar="30m", help="start no further run after so long")
    _add_output(run, "runs")
    run.set_defaults(command=commands.run)


def _add_try(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "functions",
        nargs="+",
        metavar="FILE:FUNCTION",
        help="my.py:my_attention, or a module:function; function(q, k, v, *, causal) of [B, H, N, D]",
    )
    parser.add_argument(
        "--against",
        action="append",
        metavar="PATTERN",
        help="kernels that it is measured beside and compared with; repeatable; default: a fast standard "
        "one, and the fastest linear one",
    )
    _add_output(parser, "try")
    parser.set_defaults(command=commands.try_out)


def _add_compare(compare: argparse.ArgumentParser, revisions: bool) -> None:
    if not revisions:
        compare.add_argument("base", nargs="+", metavar="BASE.json", help="runs before the change")
        compare.add_argument(
            "--against", nargs="+", required=True, metavar="HEAD.json", help="runs after the change"
        )
    compare.add_argument(
        "--rev",
        action="append",
        metavar="COMMIT",
        help="given twice, base and head: measure their kernels by this tree's benchmarks; . is the working "
        "tree with its changes; the same one twice measures the noise of this machine",
    )
    compare.add_argument(
        "--pairs", type=_count, default=6, metavar="N", help="runs of each revision; default: %(default)s"
    )
    compare.add_argument(
        "--margin", type=_share, default=MARGIN, metavar="5%", help="smaller changes are none; default: 5%%"
    )
    compare.add_argument("--format", choices=FORMATS, default="text", help="default: %(default)s")
    _add_output(compare, "comparison")
    compare.set_defaults(command=commands.compare)


def _add_distributed(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), help="default: cuda where there are cards")
    add("--dtype", help="default: float32 on the CPU, bfloat16 on cards")
    add("--kernel", action="append", metavar="PATTERN", help="as a shell pattern; repeatable; default: all")
    add("--mode", metavar="MODES", help="bidirectional, causal, or both with a comma; default: both")
    add("--phase", metavar="PHASES", help="forward, forward_backward, or both; default: both")
    add("--seq-len", metavar="N,N,...", help="tokens of the whole sequence, of weak cases on each rank")
    add("--shape", metavar="BxHxD,...", help="as of pytest benchmarks; default: 1x8x64, on cards 1x32:8x128")
    add("--parallelism", default="strong", metavar="KINDS", help="strong, weak, or both; default: strong")
    add("--repetitions", type=_count, default=3, metavar="R", help="default: %(default)s")
    add("--shuffle-seed", type=int, metavar="SEED", help="of the order of the cases; default: a new one")
    add(
        "--clock",
        choices=("device", "wall"),
        default="device",
        help="on cards device leaves launch latency out, wall holds it; a CPU has wall only; default: device",
    )
    add("--case-seconds", type=_seconds, default=0.5, metavar="S", help="time for a case of a repetition")
    add("--round-seconds", type=_seconds, default=10.0, metavar="S", help="longer rounds are left out")
    add("--case-timeout", type=_seconds, default=120.0, metavar="S", help="ranks that are later are given up")
    add("--threads", type=_count, default=1, metavar="T", help="of each rank; default: %(default)s")
    _add_output(parser, "runs")
    parser.set_defaults(command=commands.distributed)


def _add_history(history: argparse.ArgumentParser) -> None:
    history.add_argument(
        "storage",
        type=_folder,
        metavar="STORAGE",
        help="folder of runs, like the .benchmarks of --benchmark-autosave",
    )
    _add_output(history, "history")
    history.add_argument(
        "--baseline", metavar="REV", help="commit id to compare with; default: the level before the last step"
    )
    history.add_argument(
        "--margin",
        type=_share,
        default="3%",
        metavar="3%",
        help="the smallest step to be named; default: %(default)s",
    )
    history.set_defaults(command=commands.history)
