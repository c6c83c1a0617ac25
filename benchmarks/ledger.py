"""The books of a run: every case asked for is measured, or stands here with an outcome and a reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf
from typing import Any

from attention import Case
from benchmarks.grid import series_of
from benchmarks.machine.memory import free_bytes
from benchmarks.predictions import extrapolate, over_memory, over_time, predict_seconds
from benchmarks.subjects import SUBJECTS, in_theory, input_bytes
from benchmarks.survival.journal import NOT_REACHED

MOST_RECORDED = 2**63 - 1
"""The largest amount that a record may hold: what reads it counts in 64 bits."""


class Ledger:
    """The state of each case of a run so far."""

    def __init__(self, cases: Iterable[Case]) -> None:
        self.cases = {case.key: case for case in cases}
        self.selected: set[str] = set()
        self.measured: set[str] = set()
        self._left_out: dict[str, tuple[str, str]] = {}
        self._in_theory: dict[str, dict[str, int]] = {}
        self._seconds: dict[Case, dict[int, float]] = defaultdict(dict)
        self._bytes: dict[Case, dict[int, float]] = defaultdict(dict)
        self._first_seconds: dict[Case, dict[int, float]] = defaultdict(dict)

    def leave_out(self, case: Case, outcome: str, reason: str) -> str:
        """Book a case under an outcome of the record; returns the reason."""
        self._left_out[case.key] = (outcome, reason)
        return reason

    def reason_left_out(self, case: Case) -> str | None:
        """Why the case was left out in an earlier repetition, if it was."""
        return self._left_out[case.key][1] if case.key in self._left_out else None

    def left_out(self) -> list[Case]:
        """The cases left out so far, the latest last."""
        return [self.cases[key] for key in self._left_out]

    def row_left_out(self, case: Case) -> dict[str, Any] | None:
        """The record of a case that was left out, if it was."""
        if case.key not in self._left_out:
            return None
        outcome, reason = self._left_out[case.key]
        known = self._in_theory.get(case.key, {})
        return {**case.fields(), **known, "outcome": outcome, "reason": reason}

    def longest(self, case: Case) -> int:
        """The longest length selected of the case's series."""
        return max(
            other.seq_len
            for key, other in self.cases.items()
            if series_of(other) == series_of(case) and (key in self.selected or other == case)
        )

    def learn_seconds(self, case: Case, seconds: float) -> None:
        """A call of the case takes about so long."""
        self._seconds[series_of(case)][case.seq_len] = seconds

    def learn_first_seconds(self, case: Case, seconds: float) -> None:
        """The first calls of a series took so long, which counts as long as nothing else is known.

        They may have been compiled meanwhile.
        """
        self._first_seconds[series_of(case)][case.seq_len] = seconds

    def learn_bytes(self, case: Case, peak: int | None) -> None:
        """A call of the case takes so much memory above its inputs."""
        if peak is not None and case.seq_len and case.batch:
            heads = case.batch * case.heads  # a comparison with the oracle has fewer
            self._bytes[_of_any_batch(case)][case.seq_len] = peak / heads

    def learn_from(self, known: Mapping[str, float]) -> None:
        """Seconds of calls, by the keys of their cases, in an earlier run."""
        for key in known.keys() & self.cases.keys():
            self.learn_seconds(self.cases[key], known[key])

    def known_seconds(self) -> dict[str, float]:
        """Seconds of a call of each case of which they are known, by its key."""
        return {key: seconds for key, case in self.cases.items() if (seconds := self.seconds_of(case))}

    def seconds_of(self, case: Case) -> float | None:
        """Seconds of a call of the case, where they are known."""
        return self._seconds[series_of(case)].get(case.seq_len)

    def predict_seconds(self, case: Case) -> float | None:
        """Seconds of a call, by the shorter lengths known, or by its own first calls if these were quicker.

        A first call may have been compiled meanwhile, and a shorter length may have hung.
        """
        series = series_of(case)
        first = self._first_seconds[series]
        known = self._seconds[series] if min(self._seconds[series], default=inf) <= case.seq_len else first
        costs = SUBJECTS[case.subject].costs
        found = predict_seconds(known, case.seq_len, lambda n: costs(replace(case, seq_len=n)))
        return None if found is None else min(found, first.get(case.seq_len, inf))

    def predict_bytes(self, case: Case) -> float:
        """Bytes of a case: its inputs, the gradient that enters a backward, and the peak above them."""
        costs = SUBJECTS[case.subject].costs(case)
        if costs:
            return input_bytes(case) + costs.peak_bytes
        peak = extrapolate(self._bytes[_of_any_batch(case)], case.seq_len) or 0.0
        return input_bytes(case) + case.batch * case.heads * peak

    def refuse(self, case: Case, round_seconds: float) -> str | None:
        """Book and return why the case is not to be run, or None.

        Raises:
            TypeError, ValueError: what its kernel says of its support or its costs cannot be.
        """
        unsupported = SUBJECTS[case.subject].supports(case)
        if unsupported:
            return self.leave_out(case, "unsupported", unsupported)
        costs = SUBJECTS[case.subject].costs(case)
        amounts = in_theory(costs) if costs else {}
        recordable = max(amounts.values(), default=0) <= MOST_RECORDED
        if recordable:
            self._in_theory[case.key] = amounts
        if found := over_memory(self.predict_bytes(case), free_bytes(case.device)):
            return self.leave_out(case, *found)
        if not recordable:
            raise ValueError(
                "its costs are beyond 2^63 - 1, which is more than any case takes that can be run"
            )
        seconds = None if case.key in self.measured else self.predict_seconds(case)
        if seconds is not None and (found := over_time(seconds, round_seconds)):
            self.learn_seconds(case, seconds)  # so that the longer ones of the series are left out as well
            return self.leave_out(case, *found)
        return None

    def never_reached(self) -> set[str]:
        """The keys of the cases that were selected, and neither measured nor left out."""
        return self.selected - self.measured - self._left_out.keys()

    def not_measured(self) -> list[dict[str, Any]]:
        """The record of the cases that were selected and not measured, and of those that failed."""
        rows = [row for key in self._left_out if (row := self.row_left_out(self.cases[key]))]
        never_reached = self.never_reached()
        rows += [
            {**case.fields(), "outcome": "failed", "reason": NOT_REACHED}
            for key, case in self.cases.items()
            if key in never_reached
        ]
        return rows


def _of_any_batch(case: Case) -> Case:
    """The series of a case, whatever its batch and heads; as many heads of queries share one of keys."""
    return replace(series_of(case), batch=1, heads=case.heads // case.key_heads, kv_heads=1)
