"""linear-triton as operators of torch's: the passes in order, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attention.kernels.dispatch import counts_macs, implements
from attention.kernels.layouts import contiguous_like, contiguous_output
from attention.kernels.linear_triton.checks import NAME, check_packed, check_pairs
from attention.kernels.linear_triton.costs import backward_terms, forward_terms, of_all_heads
from attention.kernels.linear_triton.launches import Launches, OptionalSums, State
from attention.kernels.linear_triton.plan_cache import launches
from attention.kernels.tensors import check_device, check_shape
from attention.kernels.triton_common.checks import check_call, in_halves
from attention.kernels.triton_common.plan import plan_of

# Defined by hand: what ``custom_op`` wraps around each call costs more than the launches of a short sequence.
torch.library.define(
    "attention::linear_triton_inference",
    "(Tensor q, Tensor k, Tensor v, bool causal, str phi, float eps, str precision, Tensor? cu_seqlens) "
    "-> Tensor",
)
torch.library.define(
    "attention::linear_triton",
    "(Tensor q, Tensor k, Tensor v, Tensor? S0, Tensor? z0, bool causal, str phi, float eps, str precision, "
    "Tensor? cu_seqlens, bool final, bool keep) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
torch.library.define(
    "attention::linear_triton_backward",
    "(Tensor do, Tensor q, Tensor k, Tensor v, Tensor out, Tensor inv, Tensor S, Tensor z, Tensor? S0, "
    "Tensor? z0, Tensor? dS, Tensor? dz, bool causal, str phi, str precision, Tensor? cu_seqlens, "
    "bool final) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


KEPT = ("do", "out", "inv", "S", "z", "S0", "z0", "dS", "dz")
"""What a backward takes beside q, k and v."""


@implements("linear_triton_inference", ("cpu", "cuda"))
def triton_inference(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, precision: str,
    cu_seqlens: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The output alone: a short sequence cannot wait for what a backward or a continuation would want."""
    run = launches(q, k, v, causal, phi, precision, eps=eps, cu_seqlens=cu_seqlens)
    out = contiguous_output(q, v)
    if cu_seqlens is None:
        run.taped("inference", (q, k, v, out), infer)
    else:  # they may have to be copied
        infer(run, q, k, v, out, cu_seqlens)
    return out


def infer(
    run: Launches, q: Tensor, k: Tensor, v: Tensor, out: Tensor, cu_seqlens: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Fills ``out``, and returns no tensor."""
    state = run.before(k, v, (None, None), run.plan.summed(final=False), run.ends_of(cu_seqlens))
    run.attend(q, k, v, out, out, state, reverse=False)
    return ()


@torch.library.register_fake("attention::linear_triton_inference")  # type: ignore[untyped-decorator]
def _(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, precision: str,
    cu_seqlens: Tensor | None,
) -> Tensor:  # fmt: skip
    check_call(NAME, q, k, v, phi, precision, plain=False)
    check_packed(q, k, causal, cu_seqlens)
    return contiguous_output(q, v)


@implements("linear_triton", ("cpu", "cuda"))
def triton_forward(
    q: Tensor, k: Tensor, v: Tensor, S0: Tensor | None, z0: Tensor | None,
    causal: bool, phi: str, eps: float, precision: str, cu_seqlens: Tensor | None, final: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The output, and what a backward or a continuation wants of it; what nobody wants is empty.

    out ``[B, Hq, Nq, Dv]``; to ``keep``: inverse normalisers ``[B Hq, Nq]`` and the sums of :class:`State`;
    if ``final``: S ``[B Hkv, D, Dv]`` and z ``[B Hkv, D]`` after the last token.
    """
    check_pairs((S0, z0))
    run = launches(
        q, k, v, causal, phi, precision, eps=eps, final=final, others=(S0, z0), names=("S0", "z0"),
        cu_seqlens=cu_seqlens,
    )  # fmt: skip
    out = contiguous_output(q, v)
    if keep and not final and S0 is None and cu_seqlens is None:
        inv, S, z, last_S, last_z = run.taped("forward", (q, k, v, out), keep_for_backward)
        return out, inv, S, z, last_S, last_z
    state = run.before(k, v, (S0, z0), run.plan.summed(final=final), run.ends_of(cu_seqlens))
    kept = _attend(run, q, k, v, out, state, keep)
    last = (x.clone() for x in state.total(reverse=False)) if final else (run.of_groups(0), run.of_groups(0))
    return out, *kept, *last


def keep_for_backward(run: Launches, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> tuple[Tensor, ...]:
    """Fills ``out``; inverse normalisers, S and z for a backward, and an empty S and z of the end."""
    state = run.before(k, v, (None, None), run.plan.summed(final=False))
    return *_attend(run, q, k, v, out, state, keep=True), run.of_groups(0), run.of_groups(0)


def _attend(
    run: Launches, q: Tensor, k: Tensor, v: Tensor, out: Tensor, state: State, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Fills ``out``; inverse normalisers, S and z, empty unless they are to ``keep``."""
    inv = run.buffer(run.plan.tokens if keep else 0)
    run.attend(q, k, v, out, inv, state, reverse=False, keep=keep)
    S, z = (x if x is not None and keep else run.of_groups(0) for x in state[:2])
    return inv, S, z


@torch.library.register_fake("attention::linear_triton")  # type: ignore[untyped-decorator]
def _(
    q: Tensor, k: Tensor, v: Tensor, S0: Tensor | None, z0: Tensor | None,
    causal: bool, phi: str, eps: float, precision: str, cu_seqlens: Tensor | None, final: bool, keep: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    check_call(NAME, q, k, v, phi, precision, plain=False)
    check_packed(q, k, causal, cu_seqlens)
    check_device(NAME, q, S0, z0)
    plan = plan_of(q, k, v, packed=cu_seqlens is not None, causal=causal, half=in_halves(precision))
    count = plan.summed(final=final)
    slots, D, E = plan.slots(count), plan.key_width, plan.value_width

    def empty(*shape: int) -> Tensor:
        return q.new_empty(plan.all_key_heads, *shape, dtype=torch.float32)

    inv = q.new_empty(plan.all_heads, plan.tokens if keep else 0, dtype=torch.float32)
    sums = (empty(slots, D, E), empty(slots, D)) if keep and count else (empty(0), empty(0))
    last = (empty(D, E), empty(D)) if final else (empty(0), empty(0))
    return contiguous_output(q, v), inv, *sums, *last


@implements("linear_triton_backward", ("cpu", "cuda"))
def triton_gradients(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, inv: Tensor, S: Tensor, z: Tensor,
    S0: Tensor | None, z0: Tensor | None, dS: Tensor | None, dz: Tensor | None,
    causal: bool, phi: str, precision: str, cu_seqlens: Tensor | None, final: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv, dS0, dz0, from what the forward took and returned, and dS, dz of its end."""
    check_pairs((S0, z0), (dS, dz))
    others = do, out, inv, S, z, S0, z0, dS, dz
    run = launches(
        q, k, v, causal, phi, precision, final=final, others=others, names=KEPT, cu_seqlens=cu_seqlens
    )
    if S0 is None and not final and cu_seqlens is None:
        gradients = gradients_of_all(run, do, q, k, v, out, inv, S, z)
        return *gradients, run.of_groups(0), run.of_groups(0)
    dq, dk, dv = (contiguous_like(x) for x in (q, k, v))
    tensors = do, q, k, v, out, inv, S, z, dq, dk, dv
    behind = _differentiate(run, tensors, (S0, z0), (dS, dz), run.ends_of(cu_seqlens), final)
    if S0 is None:
        return dq, dk, dv, run.of_groups(0), run.of_groups(0)
    dS0, dz0 = (x.clone() for x in behind.total(reverse=True))
    return dq, dk, dv, dS0, dz0


def gradients_of_all(run: Launches, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk and dv of a sequence without states, of do, q, k, v and what its forward kept."""
    _, q, k, v, *_ = given
    dq, dk, dv = contiguous_like(q), contiguous_like(k), contiguous_like(v)
    run.taped("backward", (*given, dq, dk, dv), _without_end)
    return dq, dk, dv


def _without_end(run: Launches, *tensors: Tensor) -> tuple[Tensor, ...]:
    _differentiate(run, tensors, (None, None), (None, None), None, False)
    return ()


def _differentiate(
    run: Launches, tensors: Sequence[Tensor], first: OptionalSums, last: OptionalSums, ends: Tensor | None,
    final: bool,
) -> State:  # fmt: skip
    """Fills dq, dk and dv; the gradients of the states behind each segment of keys."""
    (do, q, k, v, out, inv, S, z, dq, dk, dv), plan = tensors, run.plan
    minus_delta = run.buffer(plan.tokens)
    count = plan.summed(final=final)
    scanned = plan.scanned(count)
    kept: OptionalSums = (S, z) if count else (None, None)
    slots = plan.key_segments if scanned else plan.slots(count)
    before = State(*kept, *((None, None) if scanned else first), ends, slots, scanned)
    gradient_sums = run.gradient_states(q, do, out, inv, minus_delta, ends)
    behind = run.gather(gradient_sums, last, gradient_sums[0].shape[1], ends, reverse=True)
    run.differentiate(do, v, q, k, dq, (inv, minus_delta), before, reverse=False)
    run.differentiate(v, do, k, q, dk, (inv, minus_delta), behind, reverse=True)
    run.attend(k, q, do, dv, inv, behind, reverse=True)
    return behind


@torch.library.register_fake("attention::linear_triton_backward")  # type: ignore[untyped-decorator]
def _(do: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    S0, z0 = rest[4:6]
    causal, phi, precision, cu_seqlens, _ = rest[-5:]
    check_call(NAME, q, k, v, phi, precision, plain=False)
    check_packed(q, k, causal, cu_seqlens)
    check_shape(NAME, "do", do, (*q.shape[:3], v.shape[3]), v)
    check_device(NAME, q, *rest[:8])
    heads = k.shape[0] * k.shape[1]
    first = [
        q.new_empty(heads, 0, dtype=torch.float32) if x is None else torch.empty_like(x) for x in (S0, z0)
    ]
    return (*(contiguous_like(x) for x in (q, k, v)), *first)


def _inference_macs(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, precision: str,
    cu_seqlens: Tensor | None,
) -> dict[str, int]:  # fmt: skip
    plan = plan_of(q, k, v, packed=cu_seqlens is not None, causal=causal, half=in_halves(precision))
    return of_all_heads(plan, forward_terms(plan))


def _forward_macs(
    q: Tensor, k: Tensor, v: Tensor, S0: Tensor | None, z0: Tensor | None,
    causal: bool, phi: str, eps: float, precision: str, cu_seqlens: Tensor | None, final: bool, keep: bool,
) -> dict[str, int]:  # fmt: skip
    plan = plan_of(q, k, v, (S0, z0), packed=cu_seqlens is not None, causal=causal, half=in_halves(precision))
    return of_all_heads(plan, forward_terms(plan, final=final))


def _backward_macs(do: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> dict[str, int]:
    *others, causal, _phi, precision, cu_seqlens, _final = rest
    plan = plan_of(
        q, k, v, (do, *others), packed=cu_seqlens is not None, causal=causal, half=in_halves(precision)
    )
    return of_all_heads(plan, backward_terms(plan))


counts_macs("linear_triton_inference", _inference_macs)
counts_macs("linear_triton", _forward_macs)
counts_macs("linear_triton_backward", _backward_macs)
