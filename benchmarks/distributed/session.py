"""A session of ranks: what each of them does from its start to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Timer
from typing import cast

import torch

from benchmarks import console
from benchmarks.analysis import wording
from benchmarks.analysis.reading.fields import InputError
from benchmarks.distributed.book import Book
from benchmarks.distributed.cases import RankedCase, Selection, build_cases
from benchmarks.distributed.measuring import Measured, Measurer, series_of
from benchmarks.distributed.ranks import LostError, Outcome, RankFailedError, Ranks
from benchmarks.distributed.watching import Limits
from benchmarks.grid import schedule, seed_of
from benchmarks.outcomes import outcome_of
from benchmarks.survival.endings import end_with_parent
from benchmarks.survival.locks import hold_folder
from benchmarks.survival.writing import INTERRUPTED, try_target

Say = Callable[[str], None]
Found = Measured | Outcome
"""What was measured, or why it was not."""
TOLD_AFTER_S = 2.0


@dataclass(frozen=True)
class Plan:
    """What a session does.

    Attributes:
        folder: Where the first rank writes.
        selection: What is measured.
        repetitions: How often the whole grid is measured.
        seed: Of the order; None draws one.
        clock: "device" or "wall", one that the device has.
        case_seconds: Time for the rounds of one case of one repetition.
        round_seconds: Cases whose rounds are predicted to take longer are left out.
        case_timeout: Seconds after which a case, its comparison and its rounds, is given up.
        threads: Of each rank.
    """

    folder: Path
    selection: Selection
    repetitions: int
    seed: int | None
    clock: str
    case_seconds: float
    round_seconds: float
    case_timeout: float
    threads: int


def carry_out(plan: Plan, say: Say) -> int:
    """Be one rank of a session from its beginning to its end.

    Returns:
        The exit code: 0, 1 where nothing was measured or ranks were lost, or `console.OUR_FAULT` where the
        file is not where it was asked for.

    Raises:
        InputError: What was asked for cannot be measured here.
    """
    end_with_parent()
    torch.set_num_threads(plan.threads)
    ranks = Ranks.meet(plan.selection.device, plan.case_timeout)
    cases = build_cases(plan.selection, ranks.count)
    seed = ranks.same(seed_of(plan.seed))
    with hold_folder(plan.folder) if ranks.first else nullcontext():
        try:
            code = _Session(plan, ranks, seed, say).measure(cases)
        except LostError as error:  # behind the last case
            say(f"the session stops: {error}")
            return 1
    ranks.part()
    return code


def _book(plan: Plan, ranks: Ranks, seed: int, say: Say) -> Book:
    run = {
        "grid": "distributed",
        "seed": seed,
        "repetitions": plan.repetitions,
        "clock": plan.clock,
        "ranks": ranks.count,
        "backend": ranks.backend,
    }
    file = _free_file(plan.folder, ranks.count)
    try:
        try_target(file)
    except OSError as error:
        raise InputError(f"{error}; nothing was measured", "name another folder with -o") from None
    return Book(file, run, ranks.backend, ranks.device, say)


def _free_file(folder: Path, ranks: int) -> Path:
    """ranks-2-001.json, or the next number that is free."""
    number = 1
    while (path := folder / f"ranks-{ranks}-{number:03d}.json").exists():
        number += 1
    return path


class _Session:
    """What one rank does; only the first one has a book."""

    def __init__(self, plan: Plan, ranks: Ranks, seed: int, say: Say) -> None:
        self._plan, self._ranks, self._say = plan, ranks, say
        self._book = _book(plan, ranks, seed, say) if ranks.first else None
        self._seed = seed
        self._now: RankedCase | None = None

    def measure(self, cases: list[RankedCase]) -> int:
        """Measure all cases; the exit code."""
        plan, book = self._plan, self._book
        measurer = Measurer(self._ranks, plan.clock, plan.case_seconds, plan.round_seconds)
        planned = schedule(cases, plan.repetitions, self._seed, series=series_of)
        order = cast(list[tuple[RankedCase, int]], planned)
        gone: set[str] = set()
        with Limits(self._give_up, self._ranks.cause) as limits:
            for done, (case, repetition) in enumerate(order, 1):
                if case.key in gone:  # what failed once is not tried again
                    continue
                self._now = case
                limits.begin(plan.case_timeout)
                if book:
                    book.begin(case, repetition)
                try:
                    found = _one(measurer, self._ranks, case, plan.case_timeout)
                except LostError as error:
                    limits.finish(str(error))
                limits.end()
                self._now = None
                if not isinstance(found, Measured):
                    gone.add(case.key)
                self._note(case, repetition, found, f"{done} of {len(order)}")
            return int(self._ranks.same(self._finish(book) if book else None))

    def _finish(self, book: Book) -> int:
        """Write the book a last time; the exit code."""
        if not book.finish():
            return console.OUR_FAULT
        self._say(f"{book.file} holds what was measured")
        return 0 if book.measured else 1

    def _note(self, case: RankedCase, repetition: int, found: Found, place: str) -> None:
        if self._book is None:
            return
        if isinstance(found, Measured):
            self._book.add(case, repetition, found)
            told = wording.seconds(median(found.seconds))
        else:
            self._book.leave_out(case, *found)
            told = ": ".join(found)
        self._say(f"{place}: {case.key}: {told}")

    def _give_up(self, reason: str) -> int:
        """The end of a rank whose others do not come: it is told, and what was measured is kept."""
        book, case = self._book, self._now
        if not book:
            return 1
        at = f"{case.key}: " if case else ""
        self._say(f"the session stops: {at}{reason}")
        if case and not book.holds(case):
            book.leave_out(case, "failed", reason)
        if not book.finish(INTERRUPTED):
            return console.OUR_FAULT
        self._say(f"{book.file} holds what was measured before")
        return 1


def _one(measurer: Measurer, ranks: Ranks, case: RankedCase, limit_s: float) -> Found:
    """The rounds of a case, or its outcome and reason; the same on all ranks.

    A rank that fails tells the others where they meet next. Over Gloo those that wait for it in a collective
    of the kernel are set free; over NCCL they end at the time limit.

    Raises:
        LostError: Another rank does not answer.
    """
    try:
        found = measurer.refusal(case) or measurer.measure(case)
        ranks.every(None)
        return found
    except LostError:
        raise
    except RankFailedError as error:
        return error.outcome
    except Exception as error:
        outcome = outcome_of(error, limit_s)
    # Out of the block above nothing refers to what the case held, nor to the group that it used.
    with _told_soon(f"{case.key}: {ranks.failed(outcome)}; waiting for the others"):
        return ranks.fail(outcome)


@contextmanager
def _told_soon(sentence: str) -> Iterator[None]:
    """Tell a sentence, on any rank, if the block takes longer than ranks need to meet."""
    telling = Timer(TOLD_AFTER_S, console.say, [sentence])
    telling.start()
    try:
        yield
    finally:
        telling.cancel()
