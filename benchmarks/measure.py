"""How one case is measured: checked against the oracle, its memory read, then timed round by round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import cpuinfo
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from attention import Case
from attention.kernels.references import tolerances
from attention.profiler import CLOCKS, clock_name, count_flops, peak_memory, warm_up
from benchmarks.analysis.reading.fields import LONG_ROUND_S, SCHEMA
from benchmarks.grid import series_of
from benchmarks.ledger import Ledger
from benchmarks.lengths import fault
from benchmarks.subjects import SUBJECTS, precision_of, prepare

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


@dataclass
class Measurer:
    """How the cases of one run are timed, and what was learned of each."""

    ledger: Ledger
    clock: str
    repetitions: int
    layer_rounds: int
    case_seconds: float
    round_seconds: float

    def __post_init__(self) -> None:
        self._checked: dict[Case, str | None] = {}
        self._read: dict[str, dict[str, int | None]] = {}

    def timer(self, device: str) -> Callable[[], Any]:
        """The callable that stamps time on a device."""
        return CLOCKS[device, clock_name(device, self.clock)]

    def measure(self, benchmark: BenchmarkFixture, case: Case, repetition: int) -> str | None:
        """Measure a case once, unless the ledger refuses it; returns the reason then.

        Raises:
            AssertionError: Its results are wrong.
            Exception: Whatever the kernel raises.
        """
        self._check(case)
        reason = self.ledger.refuse(case, self.round_seconds)
        if not reason:
            self._check_length(case)
            self._time(benchmark, case, repetition)
        return reason

    def never_ended(self, case: Case, seconds: float, reason: str) -> None:
        """Learn that a case did not end within so long; the longer ones of its series take longer still."""
        self.ledger.learn_seconds(case, seconds)
        self._checked.setdefault(series_of(case), f"its comparison with the oracle: {reason}")

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
            if errors and not errors.within(case):
                found = f"relative error {errors.output:.2g}"
                if case.backward:
                    found += f", of the gradients {errors.gradients:.2g}"
                allowed = "{:.2g} and {:.2g}".format(*tolerances(case))
                self._checked[series] = (
                    f"wrong result at N = {short.seq_len}: {found}; allowed are {allowed} for gradients"
                )
            elif errors:
                self.ledger.learn_seconds(short, self._warm_up(prepare(short), short)[0])
        if self._checked[series]:
            raise AssertionError(self._checked[series])

    def _check_length(self, case: Case) -> None:
        """A series that is right where it was compared may be wrong at another length: each is looked at."""
        if case.key not in self._read and (found := fault(case)):
            raise AssertionError(found)

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
            "precision": precision_of(case),
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
