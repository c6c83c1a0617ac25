"""linear-decay-native as operators of torch's, which compilers, autograd and ``FlopCounterMode`` know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attention.costs import times
from attention.kernels.autograd import Operator, differentiable
from attention.kernels.derivatives import DecayedSums
from attention.kernels.dispatch import counts_macs, implements
from attention.kernels.feature_maps import get_feature_map
from attention.kernels.gates import check_gates
from attention.kernels.layouts import contiguous_like, result_like
from attention.kernels.linear_decay_native.costs import (
    PROGRAM,
    backward_terms,
    before_size,
    forward_terms,
    scratch_size,
)
from attention.kernels.native.library import STORAGE, call, wide
from attention.kernels.native.plan import row, segments
from attention.kernels.tensors import check_device, check_operands, check_rows, check_shape

NAME = "linear-decay-native"
Gradients = tuple[Tensor, Tensor, Tensor, Tensor]

torch.library.define(
    "attention::linear_decay_native",
    "(Tensor q, Tensor k, Tensor v, Tensor g, str phi, bool keep) -> (Tensor, Tensor)",
)
torch.library.define(
    "attention::linear_decay_native_backward",
    "(Tensor do, Tensor q, Tensor k, Tensor v, Tensor g, Tensor states, str phi) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
)


def _check(q: Tensor, k: Tensor, v: Tensor, g: Tensor, phi: str) -> None:
    """Before an address is taken: C++ sees no shape but that of q, and the width of v."""
    check_operands(NAME, STORAGE, q, k, v)
    check_gates(NAME, q, g)
    check_shape(NAME, "g", g, q.shape[:3], q, wide(q))
    get_feature_map(phi)


def _states(q: Tensor, v: Tensor, parts: int | None = None) -> Tensor:
    """An empty buffer ``[B H, segments, Dv + 1, row]`` for the sums of the segments; size 0 where unused."""
    heads = q.shape[0] * q.shape[1]
    parts = parts or segments(q.shape[2], heads, torch.get_num_threads())
    width = row(q.shape[-1], wide(q).itemsize) if parts > 1 else 0
    return q.new_empty((heads, parts, v.shape[-1] + 1, width), dtype=wide(q))


def _call(tensors: dict[str, Tensor], buffers: dict[str, Tensor], phi: str, *, backward: bool) -> None:
    """Call the C++; tensors and buffers go by the names of its struct."""
    q, v, states = tensors["q"], tensors["v"], buffers["states"]
    scratch = scratch_size(q.shape[-1], v.shape[-1], states.dtype.itemsize)
    call(PROGRAM, tensors, buffers, states.shape[1], scratch, phi, backward=backward)


@implements("linear_decay_native", "cpu")
def native_forward(q: Tensor, k: Tensor, v: Tensor, g: Tensor, phi: str, keep: bool) -> tuple[Tensor, Tensor]:
    """The output; and the sums of the segments, which a backward reads, or else nothing.

    The output lies in memory as the values do, so that a layer need not copy it to join its heads.

    Raises:
        TypeError: what is no dense tensor.
        ValueError: tensors that do not fit together, or an unknown map.
    """
    _check(q, k, v, g, phi)
    out, states = result_like(v), _states(q, v)
    if out.numel():
        buffers = {"gates": g.contiguous(), "states": states}
        _call({"q": q, "k": k, "v": v, "out": out}, buffers, phi, backward=False)
    return out, states if keep else states.new_empty(0)


@torch.library.register_fake("attention::linear_decay_native")  # type: ignore[untyped-decorator]
def _(q: Tensor, k: Tensor, v: Tensor, g: Tensor, phi: str, keep: bool) -> tuple[Tensor, Tensor]:
    _check(q, k, v, g, phi)
    return result_like(v), _states(q, v) if keep else q.new_empty(0, dtype=wide(q))


@implements("linear_decay_native_backward", "cpu")
def _backward(do: Tensor, q: Tensor, k: Tensor, v: Tensor, g: Tensor, states: Tensor, phi: str) -> Gradients:
    """dq, dk, dv, dg, from what the forward took and returned.

    Raises:
        TypeError: what is no dense tensor.
        ValueError: tensors that do not fit together, or an unknown map.
    """
    _check(q, k, v, g, phi)
    check_shape(NAME, "do", do, v.shape, v)
    check_rows(NAME, do=do)
    parts = max(1, states.shape[1]) if states.dim() == 4 else 1
    check_shape(NAME, "states", states, _states(q, v, parts).shape, q, wide(q))
    if not v.numel():
        dq, dk, dv, dg = (contiguous_like(x).zero_() for x in (q, k, v, g))
        return dq, dk, dv, dg
    dq, dk, dv, dg = (contiguous_like(x) for x in (q, k, v, g))
    before = before_size(q.shape[2], q.shape[3], v.shape[3], g.dtype.itemsize)
    buffers = {
        "gates": g.contiguous(),
        "grad_gates": dg,
        "before": g.new_empty(q.shape[0] * q.shape[1] * before),
        "states": states.contiguous(),
        "sums": torch.empty_like(states),
    }
    tensors = {"q": q, "k": k, "v": v, "grad_out": do, "dq": dq, "dk": dk, "dv": dv}
    _call(tensors, buffers, phi, backward=True)
    return dq, dk, dv, dg


@torch.library.register_fake("attention::linear_decay_native_backward")  # type: ignore[untyped-decorator]
def _(do: Tensor, q: Tensor, k: Tensor, v: Tensor, g: Tensor, states: Tensor, phi: str) -> Gradients:
    _check(q, k, v, g, phi)
    check_shape(NAME, "do", do, v.shape, v)
    check_device(NAME, q, states)
    return contiguous_like(q), contiguous_like(k), contiguous_like(v), contiguous_like(g)


def _kept(*arguments: Any) -> tuple[Tensor, ...]:
    forward: Operator = native_forward
    return forward(*arguments, True)


def _without_output(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, g: Tensor, _: Tensor, *rest: Any
) -> Gradients:
    return _backward(do, q, k, v, g, *rest)


native_differentiable = differentiable(
    "attention::linear_decay_native",
    _kept,
    _without_output,
    batch_dims=(0, 0),
    inputs=4,
    function=DecayedSums,
)


def _forward_macs(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> dict[str, int]:
    return _macs(forward_terms, q, v)


def _backward_macs(do: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> dict[str, int]:
    return _macs(backward_terms, q, v)


def _macs(terms: Callable[..., dict[str, int]], q: Tensor, v: Tensor) -> dict[str, int]:
    batch, heads, tokens, width = q.shape
    count = batch * heads
    return times(count, terms(tokens, width, v.shape[-1], count, torch.get_num_threads()))


counts_macs("linear_decay_native", _forward_macs)
counts_macs("linear_decay_native_backward", _backward_macs)
