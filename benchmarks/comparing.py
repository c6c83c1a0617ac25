"""Compare from the command line: files measured before, or revisions measured now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

from benchmarks.analysis.comparison.noise_floor import NoiseFloor, share_of
from benchmarks.analysis.comparison.writing import WrittenComparison, write_comparison
from benchmarks.analysis.layout import Screen
from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.reading.machines import Machine
from benchmarks.analysis.reading.run_file import read_run
from benchmarks.noise_store import store_floor, stored_floor
from benchmarks.own.sessions import own_repository
from benchmarks.revisions import Pairs, describe, measure_pairs, plan_pairs
from benchmarks.runs import ROOT

LEAST_PAIRS = 3
"""Fewer pairs tell more of their number than of the machine's noise."""


def compare_files(
    base: Sequence[str | Path],
    head: Sequence[str | Path],
    output: Path,
    *,
    margin: float,
    format: str,
    say: Callable[[str], None],
    screen: Screen | None = None,
    paired: bool | None = None,
) -> WrittenComparison:
    """Compare files by a margin that is not below the known noise of their machine.

    Args:
        base: JSON files of runs.
        head: JSON files of the runs compared with them.
        output: Folder for what is written.
        margin: The share by which times may differ and be called the same.
        format: Of the comparison's text.
        say: Takes a line about where the noise is known from.
        screen: See `write_comparison`.
        paired: See `regression.compare`.

    Raises:
        InputError: The files cannot be used or compared.
    """
    floor = stored_floor(_machine(base[0]))
    if floor:
        say(
            f"A/A noise of this machine: {floor.share:.1%}, by {floor.pairs} pairs of runs and {floor.cases} "
            f"cases of {floor.date}; `compare --rev HEAD --rev HEAD` measures it again."
        )
    noise = floor.share if floor else None
    return write_comparison(
        base, head, output, margin=margin, paired=paired, noise=noise, format=format, screen=screen
    )


def compare_revisions(
    names: Sequence[str],
    pairs: int,
    pytest_options: Sequence[str],
    output: Path,
    *,
    margin: float,
    format: str,
    say: Callable[[str], None],
    screen: Screen | None = None,
    root: Path = ROOT,
) -> WrittenComparison:
    """Measure two revisions in pairs of runs, and compare them.

    Where both hold the same kernels, what they differ by is stored as the noise of this machine.

    Args:
        names: The base, and the revision compared with it.
        pairs: How many runs of each.
        pytest_options: What else the runs are told.
        output: Folder for the runs and what is written about them.
        margin: The share by which times may differ and be called the same.
        format: Of the comparison's text.
        say: Takes a line of progress.
        screen: See `write_comparison`.
        root: The tree run from, in its repository; functions of a user's own in another repository are
            compared in the revisions of that one.

    Raises:
        InputError: A revision cannot be found, checked out or measured, or nothing is comparable.
    """
    root = own_repository(pytest_options, root) or root
    plan = plan_pairs(names, pairs, pytest_options, output, root)
    say(describe(plan, root))
    measure_pairs(plan, say, root)
    files = plan.files("base"), plan.files("head")
    if not plan.same_code:
        return compare_files(
            *files, output, margin=margin, format=format, say=say, screen=screen, paired=True
        )
    comparison = write_comparison(*files, output, margin=margin, paired=True, format=format, screen=screen)
    _remember_noise(plan, comparison, say)
    return comparison


def _machine(file: str | Path) -> Machine:
    return read_run(Path(file)).run.machine


def _remember_noise(plan: Pairs, comparison: WrittenComparison, say: Callable[[str], None]) -> None:
    ratios = [case.change.ratio for case in comparison.found.cases if case.change.ratio]
    if plan.pairs < LEAST_PAIRS or not ratios:
        say(f"The noise is not stored: it takes {LEAST_PAIRS} pairs of runs to tell that of a machine.")
        return
    floor = NoiseFloor(share_of(ratios), len(ratios), plan.pairs, date.today().isoformat())
    try:
        file = store_floor(_machine(plan.file("base", 1)), floor)
    except InputError as error:
        say(f"warning: {error}")
        return
    say(
        f"A/A noise of this machine: 19 of 20 cases changed by {floor.share:.1%} or less, although "
        "nothing had. Comparisons on it take this for their margin where it is the larger one; it is stored "
        f"in {file}."
    )
