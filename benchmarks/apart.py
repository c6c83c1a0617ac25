"""Cases measured by a worker process, whose times this process takes over as if they were its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from attention import Case
from benchmarks.guard import Guard
from benchmarks.ledger import Ledger
from benchmarks.machine.conditions import Watch
from benchmarks.survival.endings import Stop
from benchmarks.survival.isolation import Entry, Replay, Worker, WorkerError
from benchmarks.survival.journal import Journal


class Apart:
    """Has a worker measure, as `Guard` does in its own process.

    Attributes:
        journal: Takes what the worker's would.
        stop: Whether a signal asked this process to end.
        once_s: See `Guard`; 0 where the worker did not tell it.
    """

    def __init__(
        self, worker: Worker, ledger: Ledger, watch: Watch, round_seconds: float, timeout_s: float
    ) -> None:
        """Nothing is measured yet.

        Args:
            worker: The process that measures.
            ledger: The books of the run.
            watch: Takes the readings of the worker's sensors.
            round_seconds: A case that is predicted to take longer a round is left out.
            timeout_s: The time limit of a case.
        """
        self.worker, self.ledger, self.watch = worker, ledger, watch
        self.round_seconds, self.timeout_s = round_seconds, timeout_s
        self.journal, self.stop = Journal(), Stop(patient=True)
        self.once_s = 0.0
        self._replay = Replay()

    def timer(self, device: str) -> Callable[[], Any]:
        """The callable that repeats the times which the worker took."""
        return self._replay

    def measure(self, benchmark: BenchmarkFixture, case: Case, repetition: int) -> None:
        """Have a case measured once; skip it or fail as the worker does, or because that ended."""
        if self.stop.asked:
            raise KeyboardInterrupt
        if reason := self.ledger.reason_left_out(case):
            pytest.skip(reason)
        if reason := self.ledger.refuse(case, self.round_seconds):
            self._write_left_out(case)
            pytest.skip(reason)
        self.stop.insistent = True
        try:
            for entry in self.worker.measure(benchmark.fullname, self.ledger.known_seconds(), self.timeout_s):
                self._take_over(entry, benchmark, case)
        except (WorkerError, OSError, ValueError) as error:
            benchmark.has_error = True
            self.ledger.leave_out(case, "failed", str(error))
            if isinstance(error, WorkerError) and error.hung:
                self.ledger.learn_seconds(case, self.timeout_s)  # the longer lengths take longer still
            self._write_left_out(case)
            notes = error.notes if isinstance(error, WorkerError) else ()
            pytest.fail("\n".join([str(error), *notes]), pytrace=False)
        finally:
            self.stop.insistent = False

    def _write_left_out(self, case: Case) -> None:
        self.journal.append({"left_out": self.ledger.row_left_out(case)})

    def _take_over(self, entry: Entry, benchmark: BenchmarkFixture, case: Case) -> None:
        if "outcome" in entry:
            if entry["outcome"] == "skipped":
                pytest.skip(entry["text"])
            if entry["outcome"] == "failed":
                pytest.fail(entry["text"], pytrace=False)
            return
        self.journal.append(entry)
        self.once_s = float(entry.get("once_s", 0.0))
        self.watch.readings += entry.get("readings", ())
        if row := entry.get("left_out"):
            self.ledger.leave_out(case, row["outcome"], row["reason"])
        if timed := entry.get("benchmark"):
            self._repeat(timed, benchmark, case)

    def _repeat(self, timed: Entry, benchmark: BenchmarkFixture, case: Case) -> None:
        """Have pytest-benchmark take the times once more, from the worker's rounds."""
        benchmark.extra_info.update(timed["extra_info"])
        seconds = timed["stats"]["data"]
        self._replay.load(seconds)
        benchmark.pedantic(lambda: None, rounds=len(seconds))  # type: ignore[no-untyped-call]
        self.ledger.learn_seconds(case, timed["stats"]["median"])
        self.ledger.measured.add(case.key)

    def end(self) -> None:
        """Let the worker read its sensors once more and end."""
        for entry in self.worker.finish():
            self.watch.readings += entry.get("readings", ())


Measuring = Guard | Apart
"""How a session measures."""
