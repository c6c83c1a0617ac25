"""Each case is measured so that whatever it does costs nothing but itself, and is written down."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from attention import Case
from attention.profiler import count_flops
from benchmarks.machine.conditions import Watch
from benchmarks.machine.process_state import put_back
from benchmarks.measure import Measurer
from benchmarks.outcomes import CaseError, outcome_of, showable
from benchmarks.survival.endings import Stop, TimedOut, time_limit
from benchmarks.survival.journal import Journal


class Guard:
    """Measures in this process.

    Attributes:
        journal: Takes what becomes of each case.
        stop: Whether a signal asked this process to end.
    """

    def __init__(self, measurer: Measurer, watch: Watch, timeout_s: float) -> None:
        """Nothing is measured yet.

        Args:
            measurer: How a case is timed.
            watch: The sensors of the machine.
            timeout_s: The time limit of a case.
        """
        self.measurer, self.watch, self.timeout_s = measurer, watch, timeout_s
        self.ledger, self.timer = measurer.ledger, measurer.timer
        self.journal, self.stop = Journal(), Stop(patient=True)
        self._written = 0

    @property
    def once_s(self) -> float:
        """Seconds of the last case that went into what no repetition of it does again."""
        return self.measurer.once_s

    def measure(self, benchmark: BenchmarkFixture, case: Case, repetition: int) -> None:
        """Measure a case once, or skip it with the reason that the ledger then holds.

        A failing kernel fails the test; the ledger holds that too. What a case changes in the process is
        put back.
        """
        if self.stop.asked:  # and a kernel went on
            raise KeyboardInterrupt
        if reason := self.ledger.reason_left_out(case):
            pytest.skip(reason)
        self.watch.before_case(repetition)
        _import_counter()
        self.journal.append({"begins": case.key})
        try:
            with put_back(benchmark.extra_info, case.device):
                reason = self._measure(benchmark, case, repetition)
        finally:
            self.stop.renew()
            self._write_down(benchmark, case)
        if reason:
            pytest.skip(reason)

    def _measure(self, benchmark: BenchmarkFixture, case: Case, repetition: int) -> str | None:
        """Measure a case; returns the reason if it is left out."""
        try:
            self.stop.insistent = True
            with time_limit(self.timeout_s):
                return self.measurer.measure(benchmark, case, repetition)
        except BaseException as error:
            self.stop.insistent = False
            if self.stop.asked:
                if benchmark.stats and benchmark.stats.stats.data:
                    self.ledger.measured.add(case.key)
                else:
                    # A benchmark without a round would break the file of those that have some.
                    benchmark.has_error = True
                raise KeyboardInterrupt from None  # whatever a kernel made of it
            return self._book(benchmark, case, error)
        finally:
            self.stop.insistent = False

    def _book(self, benchmark: BenchmarkFixture, case: Case, error: BaseException) -> str:
        """Book what a kernel raised; returns the reason where the test is to be skipped and not to fail."""
        benchmark.has_error = True
        outcome, reason = outcome_of(error, self.timeout_s)
        self.ledger.leave_out(case, outcome, reason)
        if isinstance(error, TimedOut):
            self.measurer.never_ended(case, self.timeout_s, reason)
        if outcome == "oom" and case.device == "cuda":
            torch.cuda.empty_cache()
        if outcome in ("oom", "unsupported"):
            return reason
        if showable(error):
            raise error
        raise CaseError(reason) from None

    def _write_down(self, benchmark: BenchmarkFixture, case: Case) -> None:
        timed = benchmark.stats if benchmark.stats and not benchmark.has_error else None
        self.journal.append({
            "benchmark": timed.as_dict(include_data=True) if timed else None,
            "left_out": self.ledger.row_left_out(case),
            "readings": self._unwritten(),
            "once_s": self.once_s,
        })  # fmt: skip

    def _unwritten(self) -> list[dict[str, Any]]:
        before, self._written = self._written, len(self.watch.readings)
        return self.watch.readings[before:]

    def end(self) -> None:
        """Read the machine's sensors once more."""
        self.watch.end()
        self.journal.append({"readings": self._unwritten()})


@cache
def _import_counter() -> None:
    """Let torch import what it imports at its first counted product: its compiler, in seconds.

    That changes the environment, and is no case's own; and a time limit that ended it half-way would leave
    torch useless to all later cases.
    """
    count_flops(lambda: torch.ones(1, 1) @ torch.ones(1, 1))
