"""A session of ranks: what each of them does from its start to its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import cast

import torch

from benchmarks.analysis import wording
from benchmarks.distributed.book import Book
from benchmarks.distributed.cases import RankedCase, Selection, build_cases
from benchmarks.distributed.measuring import Measured, Measurer
from benchmarks.distributed.ranks import LostError, RankFailedError, Ranks
from benchmarks.distributed.watching import Limits
from benchmarks.grid import schedule, seed_of
from benchmarks.survival.endings import end_with_parent
from benchmarks.survival.locks import hold_folder
from benchmarks.survival.writing import INTERRUPTED

Say = Callable[[str], None]
Outcome = Measured | tuple[str, str]
"""What was measured, or an outcome of the record and its reason."""
MOST_WORDS = 300


@dataclass(frozen=True)
class Plan:
    """What a session does.

    Attributes:
        folder: Where the first rank writes.
        selection: What is measured.
        repetitions: How often the whole grid is measured.
        seed: Of the order; None draws one.
        case_seconds: Time for the rounds of one case of one repetition.
        round_seconds: Cases whose rounds are predicted to take longer are left out.
        case_timeout: Seconds after which a case, its comparison and its rounds, is given up.
        threads: Of each rank.
    """

    folder: Path
    selection: Selection
    repetitions: int
    seed: int | None
    case_seconds: float
    round_seconds: float
    case_timeout: float
    threads: int


def carry_out(plan: Plan, say: Say) -> int:
    """Be one rank of a session from its beginning to its end.

    Returns:
        The exit code: 0, or 1 where nothing was measured or ranks were lost.

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


def _book(plan: Plan, ranks: Ranks, seed: int) -> Book:
    run = {
        "grid": "distributed",
        "seed": seed,
        "repetitions": plan.repetitions,
        "clock": "wall",
        "ranks": ranks.count,
        "backend": ranks.backend,
    }
    return Book(_free_file(plan.folder, ranks.count), run, ranks.backend, ranks.device)


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
        self._book = _book(plan, ranks, seed) if ranks.first else None
        self._seed = seed
        self._now: RankedCase | None = None

    def measure(self, cases: list[RankedCase]) -> int:
        """Measure all cases; the exit code."""
        plan, book = self._plan, self._book
        measurer = Measurer(self._ranks, plan.case_seconds, plan.round_seconds)
        order = cast(list[tuple[RankedCase, int]], schedule(cases, plan.repetitions, self._seed))
        gone: set[str] = set()
        with Limits(self._give_up) as limits:
            for done, (case, repetition) in enumerate(order, 1):
                if case.key in gone:  # what failed once is not tried again
                    continue
                self._now = case
                limits.begin(plan.case_timeout)
                if book:
                    book.begin(case, repetition)
                try:
                    outcome = _one(measurer, self._ranks, case)
                except LostError as error:
                    limits.finish(str(error))
                limits.end()
                self._now = None
                if not isinstance(outcome, Measured):
                    gone.add(case.key)
                self._note(case, repetition, outcome, f"{done} of {len(order)}")
            if book:
                book.finish()
                self._say(f"{book.path} holds what was measured")
            return 0 if self._ranks.same(book is not None and book.measured) else 1

    def _note(self, case: RankedCase, repetition: int, outcome: Outcome, place: str) -> None:
        if self._book is None:
            return
        if isinstance(outcome, Measured):
            self._book.add(case, repetition, outcome)
            told = wording.seconds(median(outcome.seconds))
        else:
            self._book.leave_out(case, *outcome)
            told = ": ".join(outcome)
        self._say(f"{place}: {case.key}: {told}")

    def _give_up(self, reason: str) -> int:
        """The end of a rank whose others do not come: it is told, and what was measured is kept."""
        book, case = self._book, self._now
        if book:
            if case and not book.holds(case):
                book.leave_out(case, "failed", reason)
            book.finish(INTERRUPTED)
            at = f"{case.key}: " if case else ""
            self._say(f"the session stops: {at}{reason}; what was measured before is in {book.path}")
        return 1


def _one(measurer: Measurer, ranks: Ranks, case: RankedCase) -> Outcome:
    """The rounds of a case, or its outcome and reason; the same on all ranks.

    A rank that fails tells the others where they meet next; one that waits for it in a collective of the
    kernel ends at the time limit.

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
    except torch.OutOfMemoryError as error:
        return ranks.fail(("oom", _words(error)))
    except Exception as error:
        return ranks.fail(("failed", _words(error)))


def _words(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__}: {text}"[:MOST_WORDS]
