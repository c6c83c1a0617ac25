"""How one case is measured: checked against the oracle, its memory read, then timed round by round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from time import perf_counter
from typing import Any

import cpuinfo
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from attention import Case, get_kernel, make_inputs
from attention.kernels.reference import TOLERANCES, errors_against_reference
from attention.profiler import CLOCKS, Runway, clock_name, peak_memory
from benchmarks.grid import series_of
from benchmarks.ledger import Ledger

SCHEMA = 1
# Three rounds give a median that one stall does not move; beyond some hundred the rounds of one
# repetition say nothing new, since they are not independent.
LEAST_ROUNDS, MOST_ROUNDS = 3, 200
CHECK_SEQ_LEN = 200
LONG_CALL_SECONDS = 0.1


@cache
def device_name(device: str) -> str:
    """The model of the CPU or of the card."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return str(cpuinfo.get_cpu_info().get("brand_raw", "unknown CPU"))


@dataclass
class Measurer:
    """The measuring of one run: its settings, its books, and what it learned of each case."""

    ledger: Ledger
    clock: str
    case_seconds: float
    round_seconds: float

    def __post_init__(self) -> None:
        self._checked: dict[Case, str | None] = {}
        self._peaks: dict[str, dict[str, int | None]] = {}

    def timer(self, device: str) -> Callable[[], Any]:
        """The callable that stamps time on a device."""
        return CLOCKS[device, clock_name(device, self.clock)]

    def measure(self, benchmark: BenchmarkFixture, case: Case, repetition: int) -> None:
        """Measure a case once, or skip it with the reason that the ledger then holds.

        A failing kernel fails the test; the ledger holds that too.
        """
        reason = self.ledger.reason_left_out(case)
        if reason:
            pytest.skip(reason)
        try:
            self._check(case)
            reason = self.ledger.refuse(case, self.round_seconds)
            if reason:
                pytest.skip(reason)
            self._time(benchmark, case, repetition)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            pytest.skip(self.ledger.leave_out(case, "oom", str(error).partition(". ")[0]))
        except KeyboardInterrupt:
            if benchmark.stats and benchmark.stats.stats.data:
                self.ledger.measured.add(case.key)
            else:
                # A benchmark without a round would break the file of those that have some.
                benchmark.has_error = True
            raise
        except Exception as error:
            if "can't allocate memory" in str(error):
                pytest.skip(self.ledger.leave_out(case, "oom", str(error).strip().splitlines()[0]))
            summary = (str(error).strip().splitlines() or [""])[0]
            self.ledger.leave_out(case, "failed", f"{type(error).__name__}: {summary}")
            raise

    def _check(self, case: Case) -> None:
        """No speed without a right answer: a series is compared with the oracle before it is timed.

        The call on the few tokens of the comparison is also the first point that predictions build on.
        """
        if get_kernel(case.kernel).supports(case):
            return
        series = series_of(case)
        if series not in self._checked:
            short = replace(case, seq_len=min(CHECK_SEQ_LEN, case.seq_len))
            errors = errors_against_reference(short)
            self._checked[series] = None
            if not errors.within(case.torch_dtype):
                self._checked[series] = (
                    f"wrong result at N = {short.seq_len}: relative error {errors.output:.2g} forward and "
                    f"{errors.gradients:.2g} in the gradients, "
                    "allowed {:.2g} and {:.2g}".format(*TOLERANCES[case.torch_dtype])
                )
            else:
                self.ledger.learn_seconds(short, self._warm_up(prepare(short), short)[0])
        if self._checked[series]:
            raise AssertionError(self._checked[series])

    def _time(self, benchmark: BenchmarkFixture, case: Case, repetition: int) -> None:
        call = prepare(case)
        if case.key not in self._peaks:
            peak = peak_memory(call, case.device)
            self._peaks[case.key] = {"peak_bytes": peak.tensor_bytes, "peak_rss_bytes": peak.rss_bytes}
        seconds, before_round = self._warm_up(call, case)
        self.ledger.learn_seconds(case, seconds)
        benchmark.extra_info.update(self.record(case, repetition))
        rounds = max(LEAST_ROUNDS, min(MOST_ROUNDS, int(self.case_seconds / max(seconds, 1e-9))))
        benchmark.pedantic(call, setup=before_round, rounds=rounds)  # type: ignore[no-untyped-call]
        if benchmark.enabled:
            self.ledger.measured.add(case.key)

    def _warm_up(self, call: Callable[[], None], case: Case) -> tuple[float, Callable[[], None] | None]:
        """Seconds of a warm call, and what is to precede each timed one."""
        if case.device == "cuda":
            runway = Runway(clock_name(case.device, self.clock))
            call()
            runway.learn(call)
            return runway.learn(call), runway
        seconds = seconds_of(call)
        # A long call is hardly slower cold, and a second one would take the time of a round.
        return (seconds if seconds > LONG_CALL_SECONDS else seconds_of(call)), None

    def record(self, case: Case, repetition: int) -> dict[str, Any]:
        """The flat JSON scalars that stand beside the times of a case."""
        costs = get_kernel(case.kernel).costs(case)
        return {
            "schema": SCHEMA,
            **case.fields(),
            "device_name": device_name(case.device),
            "repetition": repetition,
            "clock": clock_name(case.device, self.clock),
            "flops": costs.flops,
            "macs": costs.macs,
            "min_bytes": costs.min_bytes,
            "predicted_peak_bytes": costs.peak_bytes,
            **self._peaks[case.key],
        }


def seconds_of(call: Callable[[], None]) -> float:
    """Seconds on the host that one call takes."""
    start = perf_counter()
    call()
    return perf_counter() - start


def prepare(case: Case) -> Callable[[], None]:
    """The call that is timed, its inputs made beforehand."""
    kernel, inputs = get_kernel(case.kernel).function, make_inputs(case)

    def forward() -> None:
        with torch.no_grad():
            kernel(*inputs, causal=case.causal)

    def forward_backward() -> None:
        out = kernel(*inputs, causal=case.causal)
        torch.autograd.grad(out, inputs, grad_out)

    if not case.backward:
        return forward
    grad_out = torch.randn_like(inputs[2])
    return forward_backward
