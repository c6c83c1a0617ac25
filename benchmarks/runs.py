"""More runs, more certainty: fresh processes one after another, each with a JSON file of its own.

Rounds and repetitions of one process share what is particular to it (where its memory lies, what else
the machine was doing); only further processes tell how much that is.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.report.summary import summarise
from benchmarks.analysis.scaling.crossover import Crossover
from benchmarks.cache import replacing
from benchmarks.survival.children import how_ended, run_child
from benchmarks.survival.leftovers import RUN, complete, set_in_order

ROOT = Path(__file__).resolve().parent.parent
SETTINGS_FILE = "settings.json"
# With two units Student's t is 12.7: an interval from them says little about where it will end.
LEAST_RUNS_FOR_INTERVALS = 3


@dataclass(frozen=True)
class Plan:
    """A run of runs: how many, until when, with which options of pytest, and where the files go."""

    folder: Path
    runs: int
    until: float | None = None
    time_limit_s: float | None = None
    pytest_options: Sequence[str] = ()

    def file(self, number: int) -> Path:
        """The JSON of one run, counted from 1."""
        return self.folder / f"run-{number:03d}.json"

    def finished(self) -> list[Path]:
        """The files of the runs that are complete, once `set_in_order` has seen to the folder."""
        return sorted(file for file in self.folder.glob("run-*.json*") if RUN.fullmatch(file.name))


def carry_out(plan: Plan, say: Callable[[str], None] = print) -> list[Path]:
    """Measure what is missing of a plan.

    Only complete runs count, so that a plan that was killed continues with what is missing.

    Args:
        plan: What to do.
        say: Takes a line of progress.

    Returns:
        The files of all runs, the resumed ones included.

    Raises:
        InputError: The folder holds runs of other options, or a run was not measured to its end.
    """
    _remember_options(plan)
    set_in_order(plan.folder, say)
    began, measured_here = time.monotonic(), 0
    number = 0
    while True:
        number += 1
        done = plan.finished()
        if any(file.name.startswith(plan.file(number).name) for file in done):
            continue
        reason = _reason_to_stop(plan, done, time.monotonic() - began, measured_here)
        if reason:
            say(reason)
            return done
        say(_progress(plan, len(done), time.monotonic() - began, measured_here))
        _measure(plan, number)
        measured_here += 1


def _remember_options(plan: Plan) -> None:
    """Runs of different options are not units of one sample, so a folder holds one set of options."""
    settings = plan.folder / SETTINGS_FILE
    options = list(plan.pytest_options)
    plan.folder.mkdir(parents=True, exist_ok=True)
    if settings.exists():
        try:
            if not settings.is_file():
                raise OSError
            earlier = json.loads(settings.read_text())["pytest_options"]
        except (OSError, ValueError, TypeError, KeyError):
            raise InputError(
                f"{settings} is damaged, so that nobody knows with which options the runs beside it were "
                "measured; remove it to go on with the options given, or name another folder with -o"
            ) from None
        if earlier != options:
            raise InputError(
                f"{plan.folder} holds runs measured with the options {earlier}, but {options} were given; "
                "name another folder with -o, or give the same options to continue"
            )
    with replacing(settings) as provisional:
        provisional.write_text(json.dumps({"pytest_options": options}, indent=2) + "\n")


def _reason_to_stop(plan: Plan, done: Sequence[Path], seconds: float, measured_here: int) -> str | None:
    spent = plan.time_limit_s is not None and seconds >= plan.time_limit_s
    if plan.until is None:
        if len(done) >= plan.runs:
            return f"{len(done)} runs are complete."
    elif len(done) >= max(plan.runs, LEAST_RUNS_FOR_INTERVALS):
        widest = widest_interval(done)
        if widest is None:
            return f"After {len(done)} runs no crossover lies inside the measured lengths: nothing to narrow."
        if widest <= plan.until:
            return f"The widest crossover interval is ±{widest:.1%} after {len(done)} runs, as asked for."
        resolved = resolution(done)
        if resolved > plan.until:
            return (
                f"The widest crossover interval is ±{widest:.1%} after {len(done)} runs, and no number of "
                f"runs narrows it below ±{resolved:.1%}, which is what its lengths resolve: measure lengths "
                "between them, with --seq-len."
            )
        if spent:
            return (
                f"The time limit is reached after {len(done)} runs; "
                f"the widest crossover interval is ±{widest:.1%}, not yet ±{plan.until:.1%}."
            )
    if spent:
        return f"The time limit is reached after {len(done)} runs."
    return None


def widest_interval(files: Sequence[Path]) -> float | None:
    """The largest half-width, relative to N*, among the time crossovers inside the measured lengths."""
    widths = [width for width in map(_relative_half_width, _crossovers(files)) if width is not None]
    return max(widths, default=None)


def resolution(files: Sequence[Path]) -> float:
    """The largest half-width, relative to N*, that these crossovers keep whatever further runs say."""
    return max((one.resolution or 0.0 for one in _crossovers(files)), default=0.0)


def _crossovers(files: Sequence[Path]) -> list[Crossover]:
    return [pair.found for pair in summarise(load(files)).crossovers if pair.quantity == "time"]


def _relative_half_width(crossover: Crossover) -> float | None:
    """Infinite where the measured lengths clip the interval: nobody knows how far it reaches."""
    lengths, n, low, high = crossover.lengths, crossover.n, crossover.low, crossover.high
    if lengths is None or n is None or low is None or high is None:
        return None
    clipped = (lengths[0] in crossover.within_noise and low <= lengths[0]) or (
        lengths[1] in crossover.within_noise and high >= lengths[1]
    )
    return math.inf if clipped else (high - low) / (2 * n)


def _progress(plan: Plan, done: int, seconds: float, measured_here: int) -> str:
    goal = str(plan.runs) if plan.until is None else f"{plan.runs} or more"
    text = f"run {done + 1} of {goal}"
    return text + (time_left(seconds, measured_here, plan.runs - done) if plan.until is None else "")


def time_left(seconds: float, measured: int, missing: int) -> str:
    """The time left with its comma, as in ", about 3 min left"; empty before anything was measured."""
    if not measured:
        return ""
    left = seconds / measured * missing
    return f", about {left / 60:.0f} min left" if left >= 90 else f", about {left:.0f} s left"


def _measure(plan: Plan, number: int) -> None:
    known = [f"--times-from={file.resolve()}" for file in plan.finished()[:1]]
    measure(plan.file(number), [*plan.pytest_options, *known])


def measure(
    file: Path,
    pytest_options: Sequence[str],
    root: Path = ROOT,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Measure one run in a fresh process.

    Args:
        file: Where its JSON goes; its log is written beside it.
        pytest_options: What else pytest is told.
        root: The folder that holds the benchmark code.
        environment: The process's variables; this process's own unless given.

    Raises:
        InputError: The process did not measure to its end; the sentence names what it left.
    """
    log = file.with_suffix(".log")
    command = [
        *(sys.executable, "-m", "pytest", "benchmarks", "-q", "--benchmark-quiet"),
        *pytest_options,
        f"--benchmark-json={file.resolve()}",
    ]
    try:
        code = run_child(command, log, root, environment)
    except OSError as error:
        raise InputError(f"{log} cannot be written ({error.strerror}); name another folder with -o") from None
    # 1 says that a test failed: its outcome stands in the file, and the rest was measured.
    if code in (0, 1) and complete(file):
        return
    left: list[str] = []
    set_in_order(file.parent, left.append)
    tail = " ".join(log.read_text(errors="replace").split()[-30:])
    raise InputError(" ".join([
        f"{file.stem} ended with {how_ended(code)} and was not measured to its end; {log} ends: {tail}",
        *left,
    ]))  # fmt: skip
