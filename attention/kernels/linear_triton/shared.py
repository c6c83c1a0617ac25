"""linear-triton of a sequence that ranks share: its passes, and between them an exchange of states.

The sums of segments that the first pass makes are both what ranks exchange and what the next pass reads, so
that no key is read for the exchange alone. In a backward dq is computed while the gradients of states fly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attention.kernels.dispatch import announces_macs
from attention.kernels.linear_triton.costs import backward_terms, forward_terms, of_all_heads
from attention.kernels.linear_triton.launches import Launches, State, Sums
from attention.kernels.linear_triton.planned import launches
from attention.kernels.tensors import contiguous_like, contiguous_output, unit_stride
from attention.kernels.triton_common.checks import in_halves
from attention.kernels.triton_common.plan import plan_of


class Exchange(Protocol):
    """Begins to exchange S ``[B Hkv, D, Dv]`` and z ``[B Hkv, D]`` of this rank's tokens, or their gradients.

    The function that it returns waits, and gives where causal the sums over the ranks before, in a backward
    behind, and else those over all ranks; contiguous, each with memory of its own.
    """

    def __call__(self, S: Tensor, z: Tensor, *, backward: bool) -> Callable[[], Sums]: ...


Options = tuple[bool, str, float, str]
"""causal, phi, eps and precision of products."""


def _macs(
    q: Tensor, k: Tensor, v: Tensor, others: Sequence[Tensor], causal: bool, precision: str, backward: bool,
    of_keys: bool,
) -> dict[str, int]:  # fmt: skip
    plan = plan_of(q, k, v, others, causal=causal, half=in_halves(precision))
    terms = backward_terms(plan, of_keys=of_keys) if backward else forward_terms(plan, final=True)
    return of_all_heads(plan, terms)


# The collectives of a process group are no part of an operator, so that the passes around them are none.
_announce = announces_macs(
    "linear_triton_shared",
    "Tensor q, Tensor k, Tensor v, Tensor[] others, bool causal, str precision, bool backward, bool of_keys",
    _macs,
)


def forward_shared(
    q: Tensor, k: Tensor, v: Tensor, options: Options, exchange: Exchange, *, keep: bool
) -> tuple[Tensor, ...]:
    """The output; to ``keep``, inverse normalisers and the state that was read: S0, z0, and sums S, z."""
    causal, phi, eps, precision = options
    run = launches(q, k, v, causal, phi, precision, eps=eps, final=True)
    _announce(q, k, v, [], causal, precision, False, False)
    sums = run.states(k, v, run.plan.summed(final=True), None)
    reading = exchange(sums[0].sum(1), sums[1].sum(1), backward=False)
    out, inv = contiguous_output(q, v), run.buffer(run.plan.tokens if keep else 0)
    first = reading()
    state = _joined(run, sums, first, reverse=False)
    run.attend(q, k, v, out, inv, state, reverse=False, keep=keep)
    return out, inv, *first, *(x for x in state[:2] if x is not None)


def _joined(run: Launches, sums: Sums, others: Sums, *, reverse: bool) -> State:
    """The state before each segment, in reverse behind it, by what other ranks sent: causal the rest of it.

    Else it is the state of all tokens already.
    """
    if run.causal:
        return run.gather(sums, others, sums[0].shape[1], None, reverse=reverse)
    return State(None, None, *others, None, run.plan.key_segments, scanned=False)


def backward_shared(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, inv: Tensor, first: Sums,
    sums: Sequence[Tensor], options: Options, exchange: Exchange, *, of_keys: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """The gradients dq, dk and dv of this rank's tokens, in the shapes of q, k and v.

    Without ``of_keys`` dq alone, for which nothing is exchanged, as on ranks without this kernel.
    """
    causal, phi, _, precision = options
    others = do, out, inv, *first, *sums
    names = "do", "out", "inv", "S0", "z0", "S", "z"
    run = launches(q, k, v, causal, phi, precision, final=True, others=others, names=names)
    _announce(q, k, v, others, causal, precision, True, of_keys)
    dq, minus_delta = contiguous_like(q), run.buffer(run.plan.tokens)
    gradients = run.gradient_states(q, do, out, inv, minus_delta, None)
    reading = exchange(gradients[0].sum(1), gradients[1].sum(1), backward=True) if of_keys else None
    before = _kept(run, first, sums)
    run.differentiate(do, v, q, k, dq, (inv, minus_delta), before, reverse=False)
    if reading is None:
        return dq, None, None
    dk, dv = contiguous_like(k), contiguous_like(v)
    behind = _joined(run, gradients, reading(), reverse=True)
    run.differentiate(v, do, k, q, dk, (inv, minus_delta), behind, reverse=True)
    run.attend(k, q, do, dv, inv, behind, reverse=True)
    return dq, dk, dv


def _kept(run: Launches, first: Sums, sums: Sequence[Tensor]) -> State:
    """The state that the forward read."""
    if not run.causal:
        return _joined(run, first, first, reverse=False)
    S, z = sums
    count = run.plan.summed(final=True)
    if run.plan.scanned(count):
        return State(S, z, None, None, None, run.plan.key_segments, scanned=True)
    return State(S, z, *first, None, run.plan.slots(count), scanned=False)


class Shared(torch.autograd.Function):
    """The passes and their gradients, differentiated once, in reverse mode."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, options: Options, exchange: Exchange) -> Tensor:
        out, *kept = forward_shared(q, k, v, options, exchange, keep=True)
        ctx.save_for_backward(q, k, v, out, *kept)
        ctx.options, ctx.exchange = options, exchange
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, inv, S0, z0, *sums = ctx.saved_tensors
        found = backward_shared(
            unit_stride(do), q, k, v, out, inv, (S0, z0), sums, ctx.options, ctx.exchange,
            of_keys=any(ctx.needs_input_grad[1:3]),
        )  # fmt: skip
        return *found, None, None


def linear_triton_shared(
    q: Tensor, k: Tensor, v: Tensor, exchange: Exchange, *, causal: bool, phi: str, eps: float, precision: str
) -> Tensor:
    """The output ``[B, Hq, N, Dv]`` of this rank's tokens, of which there is at least one, differentiable."""
    options = causal, phi, eps, precision
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        out: Tensor = Shared.apply(q, k, v, options, exchange)  # type: ignore[no-untyped-call]
        return out
    return forward_shared(q, k, v, options, exchange, keep=False)[0]
