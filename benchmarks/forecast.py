"""How long the rest of a session will take, by how long its cases took so far."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from attention import Case
from benchmarks.grid import series_of

Kind = Literal["first", "new", "again"]
CALLS: dict[Kind, float] = {"first": 5.0, "new": 5.0, "again": 1.5}
"""Calls of a case that are not timed: a new one is checked, counted, its memory read, and warmed up."""
SHARES: dict[Kind, tuple[tuple[Kind, float], ...]] = {
    "first": (("new", 2.0), ("again", 4.0)),
    "new": (("first", 0.5), ("again", 2.5)),
    "again": (("new", 0.4), ("first", 0.2)),
}
"""What a kind of visit takes beside its calls, as a multiple of that of another, until one was seen."""


RECENT = 24
"""Visits of a kind that tell what the next ones take: what else the machine does comes and goes."""


class Visit(NamedTuple):
    """One case in one repetition."""

    case: Case
    repetition: int


class Forecast:
    """What is left of a schedule.

    A visit takes its timed rounds, which are planned by the seconds of a call, a few calls more, and what its
    kind takes beside, which is learned: a series that is new is compared with an oracle, a length that is new
    is checked, and every visit makes its inputs.
    """

    def __init__(
        self,
        visits: Sequence[Visit],
        call_seconds: Callable[[Case], float | None],
        rounds: Callable[[Case, float, int], int],
        is_left_out: Callable[[Case, float | None], bool],
    ) -> None:
        """Nothing was visited yet.

        Args:
            visits: All of them, in their order.
            call_seconds: The seconds of a call of a case, known or predicted; None where nothing is known.
            rounds: How many rounds are timed of a case, by these seconds and its repetition.
            is_left_out: Whether a case is not measured, or will not be, by these seconds.
        """
        self._call_seconds, self._rounds, self._is_left_out = call_seconds, rounds, is_left_out
        self._kinds = _kinds(visits)
        self._visits = list(visits)
        self._beside: dict[Kind, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._again: dict[Case, list[float]] = defaultdict(list)
        self.done = 0

    def finish(self, seconds: float, once_s: float) -> None:
        """The next visit of the schedule is over.

        Args:
            seconds: How long it took.
            once_s: Those of them that no further visit of the case will take.
        """
        visit, kind = self._visits[self.done], self._kinds[self.done]
        call = self._call_seconds(visit.case)
        # The first one of all waits for what is imported, or for a worker to start.
        if self.done and call is not None and not self._is_left_out(visit.case, call):
            self._beside[kind].append(max(0.0, seconds - self._of_calls(visit, kind, call)))
            if kind == "again":
                self._again[visit.case].append(seconds)
            elif once_s:
                beside = seconds - once_s - self._of_calls(visit, "again", call)
                self._beside["again"].append(max(0.0, beside))
        self.done += 1

    def left(self) -> float | None:
        """Seconds of all visits that are not over; None before anything was learned."""
        if not any(self._beside.values()):
            return None
        beside = {kind: self._typical(kind) for kind in CALLS}
        calls = {visit.case: self._call_seconds(visit.case) for visit in self._visits[self.done :]}
        known = [
            self._of_calls(visit, kind, call)
            for visit, kind in zip(self._visits, self._kinds, strict=True)
            if (call := calls.get(visit.case)) is not None
        ]
        usual = fmean(known) if known else 0.0
        total = 0.0
        for visit, kind in zip(self._visits[self.done :], self._kinds[self.done :], strict=True):
            call = calls[visit.case]
            if self._is_left_out(visit.case, call):
                continue
            if seen := self._again.get(visit.case):
                total += fmean(seen)
            else:
                total += beside[kind] + (usual if call is None else self._of_calls(visit, kind, call))
        return total

    def _of_calls(self, visit: Visit, kind: Kind, call: float) -> float:
        return call * (CALLS[kind] + self._rounds(visit.case, call, visit.repetition))

    def _typical(self, kind: Kind) -> float:
        if self._beside[kind]:
            return fmean(self._beside[kind])
        return next(
            (share * fmean(self._beside[other]) for other, share in SHARES[kind] if self._beside[other]), 0.0
        )


def _kinds(visits: Sequence[Visit]) -> list[Kind]:
    """What each visit is the first of."""
    series, cases, kinds = set[Case](), set[Case](), list[Kind]()
    for visit in visits:
        of = series_of(visit.case)
        kinds.append("again" if visit.case in cases else "new" if of in series else "first")
        series.add(of)
        cases.add(visit.case)
    return kinds
