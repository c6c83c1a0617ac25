"""How all ranks measure one case: checked against the oracle, counted, then timed round by round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import nan
from statistics import median
from typing import Any

import torch
from torch import Tensor

from attention import make_inputs
from attention.kernels.references.errors import (
    BY_PRECISION,
    gradient_error,
    relative_error,
)
from attention.profiler import peak_memory
from benchmarks.distributed.cases import RankedCase
from benchmarks.distributed.counting import Counting
from benchmarks.distributed.ranks import Ranks
from benchmarks.distributed.rounds import Rounds
from benchmarks.distributed.subjects import SUBJECTS, Subject, plain
from benchmarks.machine.memory import free_bytes
from benchmarks.measure import rounds_within
from benchmarks.predictions import over_memory, over_time, predict_seconds
from benchmarks.subjects import Call, backward_call, forward_call, upstream

CHECK_TOKENS = 512
"""About as many tokens are compared with the oracle: no speed without a right answer."""
# Ranks meet before each round, which over Gloo takes longer than a short call.
MOST_ROUNDS, EXPOSING_ROUNDS = 50, 10


class DisagreementError(Exception):
    """The ranks together computed something else than the oracle, or did not come to the same end."""


@dataclass
class Measured:
    """What all ranks found of a case in one repetition.

    Attributes:
        seconds: Of each round the time of the slowest rank.
        facts: The fields of the record that were measured.
    """

    seconds: list[float]
    facts: dict[str, Any]


class Measurer:
    """How the cases of one session are timed, and what was learned of each; alike on all ranks."""

    def __init__(self, ranks: Ranks, clock: str, case_seconds: float, round_seconds: float) -> None:
        """Nothing is known yet; ``clock`` is one of the ranks' device."""
        self.ranks, self.clock = ranks, clock
        self.case_seconds, self.round_seconds = case_seconds, round_seconds
        self._errors: dict[Any, float] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._seconds: dict[Any, dict[int, float]] = {}

    def refusal(self, case: RankedCase) -> tuple[str, str] | None:
        """Outcome and reason of a case that is not to be run; None of one that is."""
        reasons = self.ranks.every(SUBJECTS[case.kernel].supports(case.here))
        if reason := next(filter(None, reasons), None):
            return "unsupported", reason
        if case.key in self._facts:  # what was measured once is not left out later
            return None
        free = min(self.ranks.every(free_bytes(case.device)))
        known, costs = self._seconds.get(series_of(case), {}), SUBJECTS[case.kernel].costs
        seconds = predict_seconds(known, case.seq_len, lambda n: costs(replace(case, seq_len=n)))
        return over_memory(_bytes_on_a_rank(case), free, "a rank") or over_time(
            seconds or 0.0, self.round_seconds
        )

    def measure(self, case: RankedCase) -> Measured:
        """Measure a case once.

        Raises:
            DisagreementError: The result is wrong.
            Exception: Whatever the kernel raises.
        """
        subject, series = SUBJECTS[case.kernel], series_of(case)
        if series not in self._errors:
            self._errors[series] = self._check(case, subject)
        inputs = make_inputs(case.here, seed=self.ranks.rank)
        cut = [torch.empty(1, 1, 2 * case.ranks, 1, device=case.device)]
        with subject.around(case.causal, cut, self.ranks.group):
            call = _call(case, self._attend(case), inputs)
            if case.key not in self._facts:
                self._facts[case.key] = self._look_at(case, subject, call)
            seconds = self._rounds(call)
            exposed = self._exposed(call, seconds) if case.ranks > 1 else 0.0
        self._seconds.setdefault(series, {})[case.seq_len] = median(seconds)
        facts = {**self._facts[case.key], "exposed_s": exposed, "reference_error": self._errors[series]}
        return Measured(seconds, facts)

    def _attend(self, case: RankedCase) -> Callable[..., Tensor]:
        return partial(SUBJECTS[case.kernel].attend, causal=case.causal, group=self.ranks.group)

    def _check(self, case: RankedCase, subject: Subject) -> float:
        """The error of a few tokens against the oracle of the whole sequence, the largest of all ranks."""
        tokens = max(1, CHECK_TOKENS // (2 * case.ranks)) * 2 * case.ranks
        short = plain(case, seq_len=tokens, batch=1)
        q, k, v = (x.detach() for x in make_inputs(short))
        do = upstream(torch.empty(*q.shape[:3], v.shape[3], dtype=q.dtype, device=q.device))
        exact = _with_gradients(lambda *x: subject.reference(*x, causal=case.causal), q, k, v, do, wide=True)
        whole = [q, k, v, do, *(x.to(torch.float32) for x in exact)]
        with subject.around(case.causal, whole, self.ranks.group) as parts:
            got = _with_gradients(self._attend(case), *parts[:4], wide=False)
            wanted = parts[4:]
        forward, backward = BY_PRECISION[case.dtype]
        errors = [relative_error(got[0], wanted[0])]
        errors.append(gradient_error(got[1:], wanted[1:]) if case.backward else nan)
        for rank, (output, gradients) in enumerate(self.ranks.every(errors)):
            # A part of the norm is left on each rank, so that a part may be further off than the whole.
            room = case.ranks
            if output > room * forward or (case.backward and gradients > room * backward):
                raise DisagreementError(
                    f"wrong result on rank {rank} at N = {tokens}: relative error {output:.2g}, of the "
                    f"gradients {gradients:.2g}; allowed are {room * forward:.2g} and {room * backward:.2g}"
                )
        return max(float(output) for output, _ in self.ranks.every(errors))

    def _look_at(self, case: RankedCase, subject: Subject, call: Call) -> dict[str, Any]:
        """What has no noise: bytes that were exchanged, peak memory, FLOPs."""
        with Counting() as counted:
            call()
        peak = peak_memory(call, case.device)
        found = self.ranks.every((counted.bytes, counted.unknown, peak.tensor_bytes, peak.rss_bytes))
        received = max(one[0] for one in found)
        unknown = {name for one in found for name in one[1]}
        costs = subject.costs(case)
        amounts = {
            name: None if costs is None else getattr(costs, name) // case.ranks
            for name in ("flops", "macs", "min_bytes")
        }
        return {
            **amounts,
            "peak_bytes": _largest(one[2] for one in found),
            "peak_rss_bytes": _largest(one[3] for one in found),
            "exchanged_bytes": None if unknown else received,
            "predicted_exchanged_bytes": subject.exchanged(case, case.ranks),
            "exchanges": counted.calls,
            "reference": subject.reference.name,
        }

    def _rounds(self, call: Call) -> list[float]:
        rounds = Rounds(self.ranks, self.clock, call)
        count = rounds_within(self.case_seconds, rounds.warm, MOST_ROUNDS)
        return self.ranks.slowest([rounds.seconds() for _ in range(count)])

    def _exposed(self, call: Call, seconds: list[float]) -> float:
        """Time of the call less time of the same call with the exchange left out, both looked at alike."""
        whole, without = (
            Rounds(self.ranks, self.clock, partial(_counted, call, leave_out)) for leave_out in (False, True)
        )
        count = min(EXPOSING_ROUNDS, len(seconds))
        pairs = [(whole.seconds(), without.seconds()) for _ in range(count)]
        found, left = (median(self.ranks.slowest(list(times))) for times in zip(*pairs, strict=True))
        return found - left


def _counted(call: Call, leave_out: bool) -> None:
    with Counting(leave_out=leave_out):
        call()


def _largest(values: Any) -> int | None:
    known = [value for value in values if value is not None]
    return max(known, default=None)


def series_of(case: RankedCase) -> RankedCase:
    """What a case has in common with those that predict it: all but its length, strong and weak alike."""
    return replace(case, seq_len=0, parallelism="")


def _bytes_on_a_rank(case: RankedCase) -> float:
    """Inputs, output and where differentiated their gradients, and what a kernel takes beside them."""
    here, costs = case.here, SUBJECTS[case.kernel].costs(case)
    rows = here.heads * here.seq_len * 2 * here.head_dim + here.key_heads * here.seq_len * 2 * here.head_dim
    tensors = here.batch * rows * here.itemsize * (2 if case.backward else 1)
    gathered = 2 * (SUBJECTS[case.kernel].exchanged(replace(case, phase="forward"), case.ranks) or 0)
    return tensors + gathered + (costs.peak_bytes / case.ranks if costs else 0)


def _call(case: RankedCase, attend: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Call:
    """A forward without gradients, or a forward and a backward."""
    if not case.backward:
        return forward_call(attend, inputs)
    q, _, v = inputs
    grad_out = upstream(torch.empty(*q.shape[:3], v.shape[3], dtype=q.dtype, device=q.device))
    return backward_call(attend, inputs, inputs, grad_out)


def _with_gradients(function: Callable[..., Tensor], *tensors: Tensor, wide: bool) -> list[Tensor]:
    """The output and the gradients of q, k and v, in float64 where ``wide``."""
    q, k, v, do = (x.double() if wide else x for x in tensors)
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, do.to(out.dtype))]
