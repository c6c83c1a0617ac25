"""linear-native as operators of torch's, which compilers, autograd and ``FlopCounterMode`` know."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attention.kernels.autograd import Operator, differentiable
from attention.kernels.costs import times
from attention.kernels.dispatch import counts_macs, implements
from attention.kernels.feature_maps import FEATURE_MAPS
from attention.kernels.linear_native.costs import backward_terms, forward_terms
from attention.kernels.linear_native.library import Call, Strided, native
from attention.kernels.linear_native.plan import row, scratch_size, segment_tokens, segments, summed
from attention.kernels.tensors import contiguous_like

MAPS = list(FEATURE_MAPS)
"""Their numbers in C++ are their places here."""

# Defined by hand: what ``custom_op`` and ``register_autograd`` wrap around a call costs it 100 us.
torch.library.define(
    "attention::linear_native",
    "(Tensor q, Tensor k, Tensor v, bool causal, str phi, float eps, bool keep) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "attention::linear_native_backward",
    "(Tensor do, Tensor q, Tensor k, Tensor v, Tensor out, Tensor inverse, Tensor states, "
    "bool causal, str phi) -> (Tensor, Tensor, Tensor)",
)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _states(q: Tensor, v: Tensor, causal: bool) -> Tensor:
    """An empty buffer for the sums of the segments, ``[B H, segments, Dv + 1, row]``; size 0 where unused."""
    heads, dtype = q.shape[0] * q.shape[1], _wide(q)
    parts = segments(q.shape[2], heads, torch.get_num_threads())
    width = row(q.shape[-1], dtype.itemsize) if summed(parts, causal) else 0
    return q.new_empty(heads, parts, v.shape[-1] + 1, width, dtype=dtype)


def _call(
    tensors: dict[str, Tensor], inverse: Tensor, states: Tensor, causal: bool, phi: str, eps: float,
    backward: bool,
) -> None:  # fmt: skip
    """Call the C++; ``tensors`` go by the names of its struct."""
    q, v = tensors["q"], tensors["v"]
    threads, parts = torch.get_num_threads(), states.shape[1]  # a backward may have other threads
    part = scratch_size(q.shape[-1], v.shape[-1], inverse.dtype.itemsize)
    scratch = inverse.new_empty(threads * part)
    sums = torch.empty_like(states) if backward else states
    room = (x.data_ptr() for x in (inverse, states, sums, scratch))
    strided = {name: Strided.of(x) for name, x in tensors.items()}
    call = Call(**strided)
    call.inverse, call.states, call.sums, call.scratch = room
    call.batch, call.heads, call.tokens, call.key_width, call.value_width = *q.shape, v.shape[-1]
    call.segments, call.segment_tokens = parts, segment_tokens(q.shape[2], parts)
    call.threads, call.scratch_size = threads, part
    call.map, call.causal, call.eps = MAPS.index(phi), causal, eps
    native(q.dtype)(ctypes.byref(call), backward)


@implements("linear_native", "cpu")
def native_forward(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The output; inverse normalisers ``[B, H, N]`` and sums, which a backward reads, or else nothing.

    The output lies in memory as the values do, so that a layer need not copy it to join its heads.
    """
    out, inverse = torch.empty_like(v), q.new_empty(q.shape[:3], dtype=_wide(q))
    states = _states(q, v, causal)
    if out.numel():
        _call({"q": q, "k": k, "v": v, "out": out}, inverse, states, causal, phi, eps, backward=False)
    if not keep:
        inverse, states = inverse.new_empty(0), states.new_empty(0)
    return out, inverse, states


@torch.library.register_fake("attention::linear_native")  # type: ignore[untyped-decorator]
def _(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    empty = q.new_empty(0, dtype=_wide(q))
    if not keep:
        return torch.empty_like(v), empty, torch.empty_like(empty)
    return torch.empty_like(v), q.new_empty(q.shape[:3], dtype=_wide(q)), _states(q, v, causal)


@implements("linear_native_backward", "cpu")
def _backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, inverse: Tensor, states: Tensor,
    causal: bool, phi: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv, from what the forward took and returned."""
    dq, dk, dv = (contiguous_like(x).zero_() if out.numel() == 0 else contiguous_like(x) for x in (q, k, v))
    if out.numel():
        tensors = {"q": q, "k": k, "v": v, "out": out, "grad_out": do, "dq": dq, "dk": dk, "dv": dv}
        _call(tensors, inverse, states, causal, phi, 0.0, backward=True)
    return dq, dk, dv


@torch.library.register_fake("attention::linear_native_backward")  # type: ignore[untyped-decorator]
def _(do: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return contiguous_like(q), contiguous_like(k), contiguous_like(v)


def _kept(*arguments: Any) -> tuple[Tensor, ...]:
    forward: Operator = native_forward
    return forward(*arguments, True)


def _without_eps(*arguments: Any) -> tuple[Tensor, ...]:
    backward: Operator = _backward
    return backward(*arguments[:-1])


native_differentiable = differentiable("attention::linear_native", _kept, _without_eps, batch_dims=(0, 0, 0))


def _forward_macs(q: Tensor, k: Tensor, v: Tensor, causal: bool, *_: Any) -> dict[str, int]:
    return _macs(forward_terms, q, v, causal)


def _backward_macs(do: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> dict[str, int]:
    return _macs(backward_terms, q, v, rest[-2])


def _macs(terms: Callable[..., dict[str, int]], q: Tensor, v: Tensor, causal: bool) -> dict[str, int]:
    batch, heads, tokens, width = q.shape
    count = batch * heads
    return times(count, terms(tokens, width, v.shape[-1], count, causal, torch.get_num_threads()))


counts_macs("linear_native", _forward_macs)
counts_macs("linear_native_backward", _backward_macs)
