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
from attention.kernels.layouts import contiguous_like, contiguous_output, unit_stride
from attention.kernels.linear_triton.costs import backward_terms, forward_terms, of_all_heads
from attention.kernels.linear_triton.launches import Launches, OptionalSums, State, Sums
from attention.kernels.linear_triton.plan_cache import launches
from attention.kernels.tensors import differentiated
from attention.kernels.triton_common.checks import in_halves
from attention.kernels.triton_common.plan import plan_of
from attention.torch_internals.transforms import fast_apply


class Exchange(Protocol):
    """Begins to exchange the sums of this rank's tokens, or their gradients: a row, S and then z, ``[1, n]``.

    The function that it returns waits, and gives the row, ``[n]``, of the sums that this rank reads: causal
    those over the ranks before, in a backward behind, and None of no ranks; else those over all ranks.
    ``first``: whether there are none before.
    """

    first: bool

    def __call__(self, row: Tensor, *, backward: bool) -> Callable[[], Tensor | None]: ...


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
) -> tuple[Tensor, Sequence[Tensor | None]]:
    """The output; to ``keep``, inverse normalisers and the state that was read: S0, z0, and sums S, z."""
    causal, phi, eps, precision = options
    run = launches(q, k, v, causal, phi, precision, eps=eps, final=True)
    out = contiguous_output(q, v)
    kept = attend_shared(run, q, k, v, out, exchange, keep=keep)
    # Last, because the passes wait for the host.
    _announce(q, k, v, [], causal, precision, False, False)
    if not keep:
        return out, ()
    inv, *states = kept
    first = len(states) - 2 if causal else 2
    return out, (inv, *_pair(states[:first]), *_pair(states[first:]))


def attend_shared(
    run: Launches, q: Tensor, k: Tensor, v: Tensor, out: Tensor, exchange: Exchange, *, keep: bool
) -> Sequence[Tensor]:
    """Fills ``out``; to ``keep`` inverse normalisers, S and z that others sent, and S and z of segments."""

    def read(row: Tensor) -> Sequence[Tensor]:
        return _read(run, exchange(row, backward=False)())

    def walk(run: Launches, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> Sequence[Tensor]:
        sums = run.states(k, v, run.plan.summed(final=True), None)
        first = run.between(run.total(sums))
        state = _joined(run, sums, _pair(first), reverse=False)
        inv = run.buffer(run.plan.tokens if keep else 0)
        run.attend(q, k, v, out, inv, state, reverse=False, keep=keep)
        return (inv, *first, *(x for x in state[:2] if x is not None)) if keep else ()

    return run.taped(("shared", exchange.first, keep), (q, k, v, out), walk, read)


def _read(run: Launches, row: Tensor | None) -> Sequence[Tensor]:
    """S and z of a row, where passes may take their addresses for multiples of 16 bytes; nothing of None."""
    if row is None:
        return ()
    heads, D, E = run.plan.all_key_heads, run.plan.key_width, run.plan.value_width
    begin = row.storage_offset()
    S = row.as_strided((heads, D, E), (D * E, E, 1), begin)
    z = row.as_strided((heads, D), (D, 1), begin + heads * D * E)
    return tuple([x if x.data_ptr() % 16 == 0 else x.clone() for x in (S, z)])


def _pair(tensors: Sequence[Tensor]) -> OptionalSums:
    return (tensors[0], tensors[1]) if tensors else (None, None)


def _joined(run: Launches, sums: Sums, others: OptionalSums, *, reverse: bool) -> State:
    """The state before each segment, in reverse behind it, by what other ranks sent: causal the rest of it.

    Else it is the state of all tokens already.
    """
    if run.causal:
        return run.gather(sums, others, sums[0].shape[1], None, reverse=reverse)
    return State(None, None, *others, None, run.plan.key_segments, scanned=False)


def backward_shared(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, inv: Tensor, first: Sequence[Tensor],
    sums: Sequence[Tensor], options: Options, exchange: Exchange, *, of_keys: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """The gradients dq, dk and dv of this rank's tokens, in the shapes of q, k and v.

    Without ``of_keys`` dq alone, for which nothing is exchanged, as on ranks without this kernel.
    """
    causal, phi, _, precision = options
    others = [do, out, inv, *first, *sums]
    names = ["do", "out", "inv", *("S0", "z0")[: len(first)], *("S", "z")[: len(sums)]]
    run = launches(q, k, v, causal, phi, precision, final=True, others=others, names=names)
    row, minus_delta, *gradients = run.taped("shared gradients", (q, do, out, inv), _gradients)
    reading = exchange(row, backward=True) if of_keys else None
    dq = contiguous_like(q)
    rows = inv, minus_delta

    def of_queries(run: Launches, *tensors: Tensor) -> Sequence[Tensor]:
        do, v, q, k, dq, inv, minus_delta, *kept = tensors
        before = _kept(run, _pair(kept[: len(first)]), _pair(kept[len(first) :]))
        run.differentiate(do, v, q, k, dq, (inv, minus_delta), before, reverse=False)
        return ()

    run.taped(("shared dq", len(first)), (do, v, q, k, dq, *rows, *first, *sums), of_queries)
    _announce(q, k, v, others, causal, precision, True, of_keys)
    if reading is None:
        return dq, None, None
    dk, dv = contiguous_like(k), contiguous_like(v)
    last = _read(run, reading())

    def of_keys_and_values(run: Launches, *tensors: Tensor) -> Sequence[Tensor]:
        do, v, q, k, dk, dv, inv, minus_delta, S, z, *last = tensors
        behind = _joined(run, (S, z), _pair(last), reverse=True)
        run.differentiate(v, do, k, q, dk, (inv, minus_delta), behind, reverse=True)
        run.attend(k, q, do, dv, inv, behind, reverse=True)
        return ()

    tensors = do, v, q, k, dk, dv, *rows, *gradients, *last
    run.taped(("shared dk dv", len(last)), tensors, of_keys_and_values)
    return dq, dk, dv


def _gradients(run: Launches, q: Tensor, do: Tensor, out: Tensor, inv: Tensor) -> Sequence[Tensor]:
    """The gradients of the sums of all segments: as a row to exchange; -delta; and S and z of each."""
    minus_delta = run.buffer(run.plan.tokens)
    sums = run.gradient_states(q, do, out, inv, minus_delta, None)
    return run.total(sums), minus_delta, *sums


def _kept(run: Launches, first: OptionalSums, sums: OptionalSums) -> State:
    """The state that the forward read."""
    count = run.plan.summed(final=True)
    if run.causal and run.plan.scanned(count):
        return State(*sums, None, None, None, run.plan.key_segments, scanned=True)
    return State(*sums, *first, None, run.plan.slots(count), scanned=False)


class Shared(torch.autograd.Function):
    """The passes and their gradients, differentiated once, in reverse mode."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, options: Options, exchange: Exchange) -> Tensor:
        out, kept = forward_shared(q, k, v, options, exchange, keep=True)
        ctx.save_for_backward(q, k, v, out, *kept)
        ctx.options, ctx.exchange = options, exchange
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, inv, *kept = ctx.saved_tensors
        first, sums = ([x for x in pair if x is not None] for pair in (kept[:2], kept[2:]))
        of_keys = any(ctx.needs_input_grad[1:3])
        found = backward_shared(
            unit_stride(do), q, k, v, out, inv, first, sums, ctx.options, ctx.exchange, of_keys=of_keys
        )
        return *found, None, None


_apply = fast_apply(Shared)


def repeated_shared(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, precision: str
) -> Callable[[Tensor, Tensor, Tensor, Exchange], Tensor]:
    """The function of aligned tensors like these and of an exchange, with no look at them."""
    options = causal, phi, eps, precision
    run = launches(q, k, v, causal, phi, precision, eps=eps, final=True)

    def inference(q: Tensor, k: Tensor, v: Tensor, exchange: Exchange) -> Tensor:
        out = contiguous_output(q, v)
        attend_shared(run, q, k, v, out, exchange, keep=False)
        return out

    def training(q: Tensor, k: Tensor, v: Tensor, exchange: Exchange) -> Tensor:
        out: Tensor = _apply(q, k, v, options, exchange)
        return out

    return training if differentiated(q, k, v) else inference


def linear_triton_shared(
    q: Tensor, k: Tensor, v: Tensor, exchange: Exchange, *, causal: bool, phi: str, eps: float, precision: str
) -> Tensor:
    """The output ``[B, Hq, N, Dv]`` of this rank's tokens, of which there is at least one, differentiable."""
    options = causal, phi, eps, precision
    if differentiated(q, k, v):
        out: Tensor = _apply(q, k, v, options, exchange)
        return out
    return forward_shared(q, k, v, options, exchange, keep=False)[0]
