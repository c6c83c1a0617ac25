"""How one case is measured: checked against the oracle, its memory read, timed, and its energy read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from time import perf_counter
from typing import Any

import cpuinfo
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from attention import Case, Costs, get_kernel
from attention.kernels.registry import NONE
from attention.profiler import (
    CLOCKS,
    Counted,
    Energy,
    clock_name,
    find_meter,
    measure_energy,
    peak_memory,
    try_count_flops,
    warm_up,
)
from attention.profiler.clock import Runway
from benchmarks.analysis.reading.fields import LONG_ROUND_S, SCHEMA
from benchmarks.computed import Candidate, Computed, compute_long, compute_short
from benchmarks.grid import series_of
from benchmarks.inference import kept_bytes
from benchmarks.ledger import Ledger
from benchmarks.subjects import SUBJECTS, Prepared, in_theory, precision_of, prepare

# Three rounds give a median that one stall does not move; a long call spans many stalls by itself,
# and another repetition of it says more than another round. Beyond some hundred the rounds of one
# repetition say nothing new, since they are not independent.
LEAST_ROUNDS, MOST_ROUNDS = 3, 200
# What precedes each round on a card may take this share of the time for a case: it can be many times as long
# as a short call, or as one of many small kernels, which the host enqueues for longer than they take.
RUNWAY_SHARE = 0.15
# Crosses the chunks of every chunked kernel, 512 tokens at most, and ends inside one.
CHECK_SEQ_LEN = 600


@cache
def device_name(device: str) -> str:
    """The model of the CPU or of the card."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return str(cpuinfo.get_cpu_info().get("brand_raw", "unknown CPU"))


def rounds_within(case_seconds: float, seconds: float, most: float = MOST_ROUNDS) -> int:
    """How many rounds the time for a case has room for; of a long call at least one, else at least a few.

    Args:
        case_seconds: The time for the case.
        seconds: The time of a call.
        most: The most rounds.
    """
    least = 1 if seconds > LONG_ROUND_S else LEAST_ROUNDS
    return max(least, int(min(most, case_seconds / max(seconds, 1e-9))))


@dataclass
class Measurer:
    """How the cases of one run are timed, and what was learned of each.

    Attributes:
        ledger: The books of the run.
        clock: The clock asked for, "device" or "wall".
        repetitions: How often the whole grid is measured.
        rounds: The rounds of each case over all repetitions, by subject; of others `case_seconds` decides.
        warmup: Untimed calls before the rounds; None leaves them to the time that a call takes.
        case_seconds: The time for one case of one repetition.
        round_seconds: A case that is predicted to take longer a round is left out.
        once_s: Seconds of the last case that went into what no repetition of it does again.
    """

    ledger: Ledger
    clock: str
    repetitions: int
    rounds: Mapping[str, int]
    warmup: int | None
    case_seconds: float
    round_seconds: float
    energy: bool = False

    def __post_init__(self) -> None:
        self.once_s = 0.0
        self._computed: dict[Case, Computed] = {}
        self._read: dict[str, dict[str, Any]] = {}

    def timer(self, device: str) -> Callable[[], Any]:
        """The callable that stamps time on a device."""
        return CLOCKS[device, clock_name(device, self.clock)]

    def measure(self, benchmark: BenchmarkFixture, case: Case, repetition: int) -> str | None:
        """Measure a case once, unless the ledger refuses it; returns the reason then.

        Raises:
            AssertionError: Its results are wrong.
            Exception: Whatever the kernel raises.
        """
        began = perf_counter()
        self._check(case)
        self.once_s = perf_counter() - began
        reason = self.ledger.refuse(case, self.round_seconds)
        if not reason:
            self._time(benchmark, case, repetition)
        return reason

    def never_ended(self, case: Case, seconds: float, reason: str) -> None:
        """Learn that a case did not end within so long; the longer ones of its series take longer still."""
        self.ledger.learn_seconds(case, seconds)
        stuck = Computed(fault=f"its comparison with the oracle: {reason}")
        self._computed.setdefault(series_of(case), stuck)

    def _check(self, case: Case) -> None:
        """No speed without a right answer: a series is compared with the oracle before it is timed.

        The call on the few tokens of the comparison is also the first point that predictions build on.
        """
        if SUBJECTS[case.subject].supports(case):
            return
        series = series_of(case)
        if series not in self._computed:
            short = _shortened(case, self.ledger.longest(case))
            self._computed[series] = found = compute_short(_of_few_heads(short), case)
            if not found.fault and case.subject != "ceiling":
                self._learn(short)
        if fault := self._computed[series].fault:
            raise AssertionError(fault)

    def _learn(self, short: Case) -> None:
        """The first point that predictions build on."""
        call = prepare(short)
        self.ledger.learn_first_seconds(short, self._warm_up(call, short)[0])
        if SUBJECTS[short.subject].costs(short) is None:
            self.ledger.learn_bytes(short, peak_memory(call, short.device).tensor_bytes)

    def _time(self, benchmark: BenchmarkFixture, case: Case, repetition: int) -> None:
        first = case.key not in self._read
        if first:
            began = perf_counter()
            self._read[case.key] = self._look_at(case)
            self.once_s += perf_counter() - began
        call = prepare(case)
        known = self.ledger.seconds_of(case)
        seconds, before_round = self._warm_up(call, case, self.warmup)
        benchmark.extra_info.update(self.record(case, repetition))
        # A stall in the warm-up shall not leave a short call with one round.
        runway = before_round.seconds if isinstance(before_round, Runway) else 0.0
        rounds = self.planned_rounds(case, min(seconds, known or seconds), repetition, runway)
        benchmark.pedantic(call, setup=before_round, rounds=rounds)  # type: ignore[no-untyped-call]
        if benchmark.stats:
            # The median, not the warm-up: a stall in one call would leave out the longer lengths.
            self.ledger.learn_seconds(case, benchmark.stats.stats.median)
            self.ledger.measured.add(case.key)
        if first:  # after the rounds, because it warms the device up
            began = perf_counter()
            self._read[case.key] |= _energy(call, case, asked=self.energy)
            self.once_s += perf_counter() - began
            benchmark.extra_info.update(self._read[case.key])

    def _look_at(self, case: Case) -> dict[str, Any]:
        """What is known of a case before it is timed.

        A series that is right where it was compared may be wrong at another length: each is looked at.
        """
        short = self._computed[series_of(case)]
        found = compute_long(case, short)
        untimed = _untimed(SUBJECTS[case.subject].prepare(case), case)
        self.ledger.learn_bytes(case, untimed["peak_bytes"])
        return {**_function(case, found, short.nearest), **untimed}

    def _warm_up(
        self, call: Callable[[], object], case: Case, calls: int | None = None
    ) -> tuple[float, Callable[[], None] | None]:
        return warm_up(call, case.device, clock_name(case.device, self.clock), calls)

    def planned_rounds(self, case: Case, seconds: float, repetition: int, runway: float = 0.0) -> int:
        """How many rounds are timed of a case in one repetition, if a call takes so long."""
        if rounds := self.rounds.get(case.subject):
            so_far = [rounds * done // self.repetitions for done in (repetition - 1, repetition)]
            return max(1, so_far[1] - so_far[0])
        most = min(MOST_ROUNDS, RUNWAY_SHARE * self.case_seconds / max(runway, 1e-9))
        return rounds_within(self.case_seconds, seconds, most)

    def record(self, case: Case, repetition: int) -> dict[str, Any]:
        """The flat JSON scalars that stand beside the times of a case."""
        width = {"embed_dim": case.heads * case.head_dim} if case.subject == "layer" else {}
        return {
            "schema": SCHEMA,
            **case.fields(),
            **width,
            "device_name": device_name(case.device),
            "precision": precision_of(case),
            "repetition": repetition,
            "clock": clock_name(case.device, self.clock),
            "cache_bytes": kept_bytes(case) if case.subject == "operator" else None,
            **self._read[case.key],
        }


def _shortened(case: Case, longest: int) -> Case:
    """A case of a few tokens of its series; of unequal lengths, half as many queries as keys at most."""
    tokens = min(CHECK_SEQ_LEN, longest)
    queries = case.query_len and min(case.query_len, max(1, tokens // 2))
    return replace(case, seq_len=tokens, query_len=queries)


def _of_few_heads(case: Case) -> Case:
    """One sequence, with gradients of two heads of keys, each with all of its heads of queries.

    The oracle keeps a state per token and row in float64 for its gradients: a few rows are enough. Without
    gradients all heads cost little, and kernels that compile for their number do so once.
    """
    if case.subject != "operator" or not case.backward:
        return replace(case, batch=1)
    kv_heads = min(2, case.key_heads)
    return replace(case, batch=1, heads=kv_heads * case.heads // case.key_heads, kv_heads=kv_heads)


def _function(case: Case, found: Candidate | None, nearest: Candidate | None) -> dict[str, Any]:
    """The function that a case computes, and how far its result was from that on a few tokens."""
    if case.subject == "ceiling":
        return {}
    if found is None:
        declared = get_kernel(case.kernel).reference == NONE
        off = nearest and f"{nearest.reference.name}, off by {nearest.errors.output:.2g}"
        return {"reference": NONE if declared else None, "reference_error": None, "nearest": off}
    return {"reference": found.reference.name, "reference_error": found.errors.output}


def _untimed(prepared: Prepared, case: Case) -> dict[str, Any]:
    """Peak memory, FLOPs and bytes: they have no noise, so one reading in a pass of its own is enough."""
    counted: list[Counted] = []
    peak = peak_memory(lambda: counted.append(try_count_flops(prepared.call)), case.device)
    if counted[-1].flops is None:  # and the call did not end
        peak = peak_memory(prepared.call, case.device)
    return {
        "peak_bytes": peak.tensor_bytes,
        "peak_rss_bytes": peak.rss_bytes,
        "counted_flops": counted[-1].flops,
        **_amounts(SUBJECTS[case.subject].costs(case), counted[-1], prepared.min_bytes),
    }


def _energy(call: Callable[[], object], case: Case, *, asked: bool) -> dict[str, Any]:
    """Energy of a call in a pass of its own, or why it is not known although it was asked for."""
    found = measure_energy(call, find_meter(case.device), case.device) if asked else Energy(None)
    return {
        "energy_j": found.joules,
        "energy_error_j": found.error,
        "energy_call_s": found.call_s,
        "energy_unknown": found.reason,
    }


def _amounts(costs: Costs | None, counted: Counted, min_bytes: int) -> dict[str, Any]:
    """FLOPs and bytes in closed form, or as they were counted."""
    if costs:
        return in_theory(costs)
    flops = counted.flops or None
    reason = None if flops else counted.reason or "torch's counter finds no matrix product in it"
    return {
        "flops": flops,
        "counted_flops": None,  # there is nothing beside them to compare them with
        "macs": flops and flops // 2,
        "useful_flops": flops,
        "flops_unknown": reason,
        "min_bytes": min_bytes,
        "predicted_peak_bytes": None,
    }
