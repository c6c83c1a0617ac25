"""How one case is measured: checked against the oracle, its memory read, then timed round by round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import cpuinfo
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from attention import Case
from attention.kernels.references import TOLERANCES
from attention.profiler import CLOCKS, clock_name, count_flops, peak_memory, warm_up
from benchmarks.analysis.reading.fields import LONG_ROUND_S, SCHEMA
from benchmarks.conditions import Watch
from benchmarks.grid import series_of
from benchmarks.ledger import Ledger
from benchmarks.outcomes import CaseError, outcome_of, showable
from benchmarks.subjects import SUBJECTS, prepare
from benchmarks.survival.endings import Stop, TimedOut, time_limit
from benchmarks.survival.isolation import Replay, Worker, WorkerError
from benchmarks.survival.journal import Journal

# Three rounds give a median that one stall does not move; a long call spans many stalls by itself,
# and another repetition of it says more than another round. Beyond some hundred the rounds of one
# repetition say nothing new, since they are not independent.
LEAST_ROUNDS, MOST_ROUNDS = 3, 200
# Crosses the chunks of every chunked kernel, 512 tokens at most, and ends inside one.
CHECK_SEQ_LEN = 600


@cache
def device_name(device: str) -> str:
    """The model of the CPU or of the card."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return str(cpuinfo.get_cpu_info().get("brand_raw", "unknown CPU"))


def import_all() -> None:
    """Import now what torch imports at its first counted product: in seconds, which are no case's own.

    A time limit that ended an import half-way would leave torch useless to all later cases.
    """
    count_flops(lambda: torch.ones(2, 2) @ torch.ones(2, 2))


@dataclass
class Measurer:
    """The measuring of one run: its settings, its books, its watch, and what it learned of each case.

    Attributes:
        stop: Whether a signal asked the process to end.
        worker: The process that measures in the place of this one.
    """

    ledger: Ledger
    watch: Watch
    clock: str
    repetitions: int
    layer_rounds: int
    case_seconds: float
    round_seconds: float
    case_timeout: float
    stop: Stop = field(default_factory=Stop)
    journal: Journal = field(default_factory=Journal)
    worker: Worker | None = None

    def __post_init__(self) -> None:
        self._checked: dict[Case, str | None] = {}
        self._read: dict[str, dict[str, int | None]] = {}
        self._noted = 0
        self.replay = Replay()

    def timer(self, device: str) -> Callable[[], Any]:
        """The callable that stamps time on a device, or repeats the times of the worker."""
        return self.replay if self.worker else CLOCKS[device, clock_name(device, self.clock)]

    def measure(self, benchmark: BenchmarkFixture, case: Case, repetition: int) -> None:
        """Measure a case once, or skip it with the reason that the ledger then holds.

        A failing kernel fails the test; the ledger holds that too.
        """
        if self.stop.asked:  # and a kernel went on
            raise KeyboardInterrupt
        if reason := self.ledger.reason_left_out(case):
            pytest.skip(reason)
        if self.worker:
            self._measure_apart(self.worker, benchmark, case)
            return
        self.watch.before_case(repetition)
        self.journal.append({"begins": case.key})
        try:
            reason = self._measure(benchmark, case, repetition)
        finally:
            self._note(benchmark, case)
        if reason:
            pytest.skip(reason)

    def _measure(self, benchmark: BenchmarkFixture, case: Case, repetition: int) -> str | None:
        """Measure a case; returns the reason if it is left out."""
        try:
            with time_limit(self.case_timeout):
                self._check(case)
                reason = self.ledger.refuse(case, self.round_seconds)
                if not reason:
                    self._time(benchmark, case, repetition)
                return reason
        except BaseException as error:
            if self.stop.asked:
                if benchmark.stats and benchmark.stats.stats.data:
                    self.ledger.measured.add(case.key)
                else:
                    # A benchmark without a round would break the file of those that have some.
                    benchmark.has_error = True
                raise KeyboardInterrupt from None  # whatever a kernel made of it
            return self._book(benchmark, case, error)

    def _book(self, benchmark: BenchmarkFixture, case: Case, error: BaseException) -> str:
        """Book what a kernel raised; returns the reason where the test is to be skipped and not to fail."""
        benchmark.has_error = True
        outcome, reason = outcome_of(error, self.case_timeout)
        self.ledger.leave_out(case, outcome, reason)
        if isinstance(error, TimedOut):
            self.ledger.learn_seconds(case, self.case_timeout)  # the longer lengths take longer still
            self._checked.setdefault(series_of(case), f"its comparison with the oracle: {reason}")
        if outcome == "oom":
            if case.device == "cuda":
                torch.cuda.empty_cache()
            return reason
        if showable(error):
            raise error
        raise CaseError(reason) from None

    def _note(self, benchmark: BenchmarkFixture, case: Case) -> None:
        """Write down what became of a case, and what the machine's sensors read since the last one."""
        timed = benchmark.stats if benchmark.stats and not benchmark.has_error else None
        self.journal.append({
            "benchmark": timed.as_dict(include_data=True) if timed else None,
            "left_out": self.ledger.row_left_out(case),
            "readings": self._unwritten(),
        })  # fmt: skip

    def _unwritten(self) -> list[dict[str, Any]]:
        before, self._noted = self._noted, len(self.watch.readings)
        return self.watch.readings[before:]

    def end(self) -> None:
        """Read the machine's sensors once more, and end the worker."""
        if self.worker:
            for entry in self.worker.finish():
                self.watch.readings += entry.get("readings", ())
        else:
            self.watch.end()
            self.journal.append({"readings": self._unwritten()})

    def _measure_apart(self, worker: Worker, benchmark: BenchmarkFixture, case: Case) -> None:
        """Have the worker measure a case once, and take over what it says."""
        if reason := self.ledger.refuse(case, self.round_seconds):
            self._note(benchmark, case)
            pytest.skip(reason)
        try:
            for entry in worker.measure(benchmark.fullname, self.ledger.known_seconds(), self.case_timeout):
                self._take_over(entry, benchmark, case)
        except WorkerError as error:
            benchmark.has_error = True
            self.ledger.leave_out(case, "failed", str(error))
            if error.hung:
                self.ledger.learn_seconds(case, self.case_timeout)
            self._note(benchmark, case)
            pytest.fail("\n".join([str(error), *error.notes]), pytrace=False)

    def _take_over(self, entry: dict[str, Any], benchmark: BenchmarkFixture, case: Case) -> None:
        if "outcome" in entry:
            if entry["outcome"] == "skipped":
                pytest.skip(entry["text"])
            if entry["outcome"] == "failed":
                pytest.fail(entry["text"], pytrace=False)
            return
        self.journal.append(entry)
        self.watch.readings += entry.get("readings", ())
        if row := entry.get("left_out"):
            self.ledger.leave_out(case, row["outcome"], row["reason"])
        if timed := entry.get("benchmark"):
            benchmark.extra_info.update(timed["extra_info"])
            seconds = timed["stats"]["data"]
            self.replay.load(seconds)
            benchmark.pedantic(lambda: None, rounds=len(seconds))  # type: ignore[no-untyped-call]
            self.ledger.learn_seconds(case, timed["stats"]["median"])
            self.ledger.measured.add(case.key)

    def _check(self, case: Case) -> None:
        """No speed without a right answer: a series is compared with the oracle before it is timed.

        The call on the few tokens of the comparison is also the first point that predictions build on.
        """
        subject = SUBJECTS[case.subject]
        if subject.supports(case):
            return
        series = series_of(case)
        if series not in self._checked:
            short = replace(case, seq_len=min(CHECK_SEQ_LEN, self.ledger.longest(case)))
            # The oracle keeps a state per token and row in float64 for its gradients: a few rows are enough.
            heads = min(2, case.heads) if case.subject == "operator" else case.heads
            errors = subject.errors(replace(short, batch=1, heads=heads))
            self._checked[series] = None
            if errors and not errors.within(case.torch_dtype):
                found = f"relative error {errors.output:.2g}"
                if case.backward:
                    found += f", of the gradients {errors.gradients:.2g}"
                allowed = "{:.2g} and {:.2g}".format(*TOLERANCES[case.torch_dtype])
                self._checked[series] = (
                    f"wrong result at N = {short.seq_len}: {found}; allowed are {allowed} for gradients"
                )
            elif errors:
                self.ledger.learn_seconds(short, self._warm_up(prepare(short), short)[0])
        if self._checked[series]:
            raise AssertionError(self._checked[series])

    def _time(self, benchmark: BenchmarkFixture, case: Case, repetition: int) -> None:
        call = prepare(case)
        if case.key not in self._read:
            self._read[case.key] = _untimed(call, case)
        known = self.ledger.seconds_of(case)
        seconds, before_round = self._warm_up(call, case)
        benchmark.extra_info.update(self.record(case, repetition))
        # A stall in the warm-up shall not leave a short call with one round.
        rounds = self._rounds(case, min(seconds, known or seconds), repetition)
        benchmark.pedantic(call, setup=before_round, rounds=rounds)  # type: ignore[no-untyped-call]
        if benchmark.stats:
            # The median, not the warm-up: a stall in one call would leave out the longer lengths.
            self.ledger.learn_seconds(case, benchmark.stats.stats.median)
            self.ledger.measured.add(case.key)

    def _warm_up(self, call: Callable[[], object], case: Case) -> tuple[float, Callable[[], None] | None]:
        return warm_up(call, case.device, clock_name(case.device, self.clock))

    def _rounds(self, case: Case, seconds: float, repetition: int) -> int:
        if case.subject == "layer":
            so_far = [self.layer_rounds * done // self.repetitions for done in (repetition - 1, repetition)]
            return max(1, so_far[1] - so_far[0])
        least = 1 if seconds > LONG_ROUND_S else LEAST_ROUNDS
        return max(least, min(MOST_ROUNDS, int(self.case_seconds / max(seconds, 1e-9))))

    def record(self, case: Case, repetition: int) -> dict[str, Any]:
        """The flat JSON scalars that stand beside the times of a case."""
        costs = SUBJECTS[case.subject].costs(case)
        width = {"embed_dim": case.heads * case.head_dim} if case.subject == "layer" else {}
        return {
            "schema": SCHEMA,
            **case.fields(),
            **width,
            "device_name": device_name(case.device),
            "repetition": repetition,
            "clock": clock_name(case.device, self.clock),
            "flops": costs.flops,
            "macs": costs.macs,
            "useful_flops": costs.useful_flops,
            "min_bytes": costs.min_bytes,
            "predicted_peak_bytes": costs.peak_bytes,
            **self._read[case.key],
        }


def _untimed(call: Callable[[], object], case: Case) -> dict[str, int | None]:
    """Peak memory and counted FLOPs: they have no noise, so one reading in a pass of its own is enough."""
    counted: list[int] = []
    peak = peak_memory(lambda: counted.append(count_flops(call)), case.device)
    return {
        "peak_bytes": peak.tensor_bytes,
        "peak_rss_bytes": peak.rss_bytes,
        "counted_flops": counted[-1],
    }
