"""linear-native as operators of torch's, which compilers, autograd and ``FlopCounterMode`` know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attention.costs import times
from attention.kernels.autograd import Operator, differentiable
from attention.kernels.dispatch import counts_macs, implements
from attention.kernels.feature_maps import get_feature_map
from attention.kernels.linear_native.costs import PROGRAM, backward_terms, forward_terms, scratch_size
from attention.kernels.native.library import STORAGE, call, wide
from attention.kernels.native.plan import row, segments, summed
from attention.kernels.tensors import (
    check_device,
    check_operands,
    check_rows,
    check_shape,
    contiguous_like,
    result_like,
)

NAME = "linear-native"

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


def _check(q: Tensor, k: Tensor, v: Tensor, phi: str) -> None:
    """Before an address is taken: C++ sees no shape but that of q, and the width of v."""
    check_operands(NAME, STORAGE, q, k, v)
    get_feature_map(phi)


def _check_kept(
    do: Tensor, q: Tensor, v: Tensor, out: Tensor, inverse: Tensor, states: Tensor, causal: bool
) -> None:
    """Whether these are a gradient and the results of a forward, cut into any number of segments."""
    check_shape(NAME, "do", do, v.shape, v)
    check_shape(NAME, "out", out, v.shape, v)
    check_rows(NAME, do=do, out=out)
    check_shape(NAME, "inverse", inverse, q.shape[:3], q, wide(q))
    parts = max(1, states.shape[1]) if states.dim() == 4 else 1
    check_shape(NAME, "states", states, _states_shape(q, v, parts, causal), q, wide(q))


def _states_shape(q: Tensor, v: Tensor, parts: int, causal: bool) -> tuple[int, int, int, int]:
    """``[B H, segments, Dv + 1, row]``; size 0 where unused."""
    width = row(q.shape[-1], wide(q).itemsize) if summed(parts, causal) else 0
    return q.shape[0] * q.shape[1], parts, v.shape[-1] + 1, width


def _states(q: Tensor, v: Tensor, causal: bool) -> Tensor:
    """An empty buffer for the sums of the segments."""
    parts = segments(q.shape[2], q.shape[0] * q.shape[1], torch.get_num_threads())
    return q.new_empty(_states_shape(q, v, parts, causal), dtype=wide(q))


def _call(
    tensors: dict[str, Tensor], inverse: Tensor, states: Tensor, causal: bool, phi: str, eps: float,
    backward: bool,
) -> None:  # fmt: skip
    """Call the C++; ``tensors`` go by the names of its struct."""
    buffers = {"inverse": inverse, "states": states}
    if backward:
        buffers["sums"] = torch.empty_like(states)
    scratch = scratch_size(tensors["q"].shape[-1], tensors["v"].shape[-1], inverse.dtype.itemsize)
    parts = states.shape[1]
    call(PROGRAM, tensors, buffers, parts, scratch, phi, backward=backward, causal=causal, eps=eps)


@implements("linear_native", "cpu")
def native_forward(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The output; inverse normalisers ``[B, H, N]`` and sums, which a backward reads, or else nothing.

    The output lies in memory as the values do, so that a layer need not copy it to join its heads.

    Raises:
        ValueError: tensors that do not fit together, or an unknown map.
    """
    _check(q, k, v, phi)
    out, inverse = result_like(v), q.new_empty(q.shape[:3], dtype=wide(q))
    states = _states(q, v, causal)
    if out.numel():
        _call({"q": q, "k": k, "v": v, "out": out}, inverse, states, causal, phi, eps, backward=False)
    else:
        states.zero_()  # of no tokens
    if not keep:
        inverse, states = inverse.new_empty(0), states.new_empty(0)
    return out, inverse, states


@torch.library.register_fake("attention::linear_native")  # type: ignore[untyped-decorator]
def _(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    _check(q, k, v, phi)
    empty = q.new_empty(0, dtype=wide(q))
    if not keep:
        return result_like(v), empty, torch.empty_like(empty)
    return result_like(v), q.new_empty(q.shape[:3], dtype=wide(q)), _states(q, v, causal)


@implements("linear_native_backward", "cpu")
def _backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, inverse: Tensor, states: Tensor,
    causal: bool, phi: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv, from what the forward took and returned.

    Raises:
        ValueError: tensors that do not fit together, or an unknown map.
    """
    _check(q, k, v, phi)
    _check_kept(do, q, v, out, inverse, states, causal)
    inverse, states = inverse.contiguous(), states.contiguous()
    dq, dk, dv = (contiguous_like(x).zero_() if out.numel() == 0 else contiguous_like(x) for x in (q, k, v))
    if out.numel():
        tensors = {"q": q, "k": k, "v": v, "out": out, "grad_out": do, "dq": dq, "dk": dk, "dv": dv}
        _call(tensors, inverse, states, causal, phi, 0.0, backward=True)
    return dq, dk, dv


@torch.library.register_fake("attention::linear_native_backward")  # type: ignore[untyped-decorator]
def _(do: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    _check(q, k, v, rest[-1])
    check_shape(NAME, "do", do, v.shape, v)
    check_device(NAME, q, *rest[:3])
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
