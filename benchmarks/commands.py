"""The commands of `python -m benchmarks`: measure runs, and conclude from measured ones."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks import console
from benchmarks.analysis.history.writing import write_history
from benchmarks.analysis.output import try_folder
from benchmarks.analysis.reading.fields import HOW_TO_MEASURE, InputError
from benchmarks.analysis.reading.run_file import ENDINGS
from benchmarks.analysis.reading.texts import printable
from benchmarks.analysis.report.writing import write_report
from benchmarks.comparing import compare_files, compare_revisions
from benchmarks.noise_store import known_run_effect
from benchmarks.own.sessions import few_beside, measure_own, placed
from benchmarks.runs import SETTINGS_FILE, Plan, carry_out
from benchmarks.survival.journal import recovered
from benchmarks.survival.locks import hold_folder

DEFAULT_RUNS = 6
SHORT_RUN = ("--repetitions=1", "--layer-rounds=4")
"""Options of each of the runs that together take as long as one run of six repetitions."""


def report(options: argparse.Namespace, _: Sequence[str]) -> int:
    """Report measured runs; 1 where nothing had been measured."""
    folder = Path(options.output)
    try_folder(folder, "report")
    with hold_folder(folder):
        screen = console.screen(options.width)
        written = write_report(_recovered(options.files), folder, known_run_effect, screen)
    console.write(written.text)
    return 0 if written.measured else 1


def _recovered(files: Sequence[str]) -> list[Path]:
    """The files, after what runs that were killed had measured is turned into them; of folders all runs."""
    return [recovered(path, console.say) for file in files for path in _runs_in(Path(file))]


def _runs_in(path: Path) -> list[Path]:
    """The runs of a folder, in the order of their names; a path that is none stands for itself.

    Raises:
        InputError: The folder holds none.
    """
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.iterdir() if one.name.endswith(ENDINGS) and one.name != SETTINGS_FILE)
    if not found:
        raise InputError(f"the folder {path} holds no runs", HOW_TO_MEASURE)
    return found


def run(options: argparse.Namespace, pytest_options: Sequence[str]) -> int:
    """Measure several runs and report them; 1 where nothing was measured."""
    folder = Path(options.output)
    short = () if options.runs else SHORT_RUN
    told = (*short, *placed(pytest_options, Path.cwd()))
    plan = Plan(folder, options.runs or DEFAULT_RUNS, options.until, options.time_limit, told)
    with hold_folder(folder):
        files = carry_out(plan, lambda line: console.write(f"{printable(line)}\n"))
        if not files:
            raise InputError(f"no run was complete within the time limit; {folder} holds none")
        screen = console.screen(options.width)
        written = write_report(files, folder / "report", known_run_effect, screen)
    console.write(written.text)
    return 0 if written.measured else 1


def try_out(options: argparse.Namespace, pytest_options: Sequence[str]) -> int:
    """Measure functions of the user's own beside others and report; 1 where none of them was measured."""
    folder = Path(options.output)
    try_folder(folder, "report")
    with hold_folder(folder):
        file = measure_own(options.functions, options.against, pytest_options, folder, console.say)
        written = write_report([file], folder, known_run_effect, console.screen(options.width))
    console.write(written.text)
    return 0 if written.own_measured else 1


def compare(options: argparse.Namespace, pytest_options: Sequence[str]) -> int:
    """Compare files, or revisions measured now; 1 where something became worse."""
    output, margin, format = Path(options.output), options.margin, options.format
    screen = console.screen(options.width)
    try_folder(output, "comparison")
    with hold_folder(output):
        if options.rev:
            comparison = compare_revisions(
                options.rev,
                options.pairs,
                few_beside(placed(pytest_options, Path.cwd())),
                output,
                margin=margin,
                format=format,
                screen=screen,
                say=console.say,
            )
        else:
            sides = _recovered(options.base), _recovered(options.against)
            comparison = compare_files(
                *sides, output, margin=margin, format=format, screen=screen, say=console.say
            )
    console.write(comparison.text)
    return 1 if comparison.found.regressed else 0


def distributed(options: argparse.Namespace, _: Sequence[str]) -> int:
    """Be one rank of a session that measures a sequence on several; 1 where nothing was measured."""
    # torch is for measuring alone, and comes late.
    from benchmarks.distributed.options import plan_of
    from benchmarks.distributed.ranks import is_first
    from benchmarks.distributed.session import carry_out as carry_out_session

    say = console.say if is_first() else lambda line: None
    try:
        return carry_out_session(plan_of(options), say)
    except InputError:
        if is_first():
            raise
        return 2  # the first rank says why


def history(options: argparse.Namespace, _: Sequence[str]) -> int:
    """Find the steps in stored runs; 1 where something is worse than before."""
    folder = Path(options.output)
    try_folder(folder, "history")
    with hold_folder(folder):
        written = write_history(
            options.storage,
            folder,
            baseline=options.baseline,
            margin=options.margin,
            screen=console.screen(options.width),
        )
    console.write(written.text)
    return 1 if written.worse else 0
