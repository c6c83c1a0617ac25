"""The operator of linear-decay-chunked: a compiler need not unroll its blocks.

``torch.compile`` calls it as a whole, autograd knows its backward, and ``FlopCounterMode`` its formula.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attention.costs import times
from attention.kernels.autograd import differentiable
from attention.kernels.derivatives import DecayedSums
from attention.kernels.dispatch import counts_macs, refuse_tangents
from attention.kernels.feature_maps import get_feature_map
from attention.kernels.gates import check_gates
from attention.kernels.layouts import contiguous_like
from attention.kernels.linear_decay_chunked.costs import backward_terms, forward_terms
from attention.kernels.linear_decay_chunked.passes import Inputs, backward, forward, new_states
from attention.kernels.tensors import check_device, check_inputs, check_shape

NAME = "linear-decay-chunked"


@torch.library.custom_op("attention::linear_decay_chunked", mutates_args=())
def chunked_forward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, phi: str, chunk_size: int, keep: bool
) -> tuple[Tensor, Tensor]:
    """The output ``[B, H, N, Dv]``, and the states ``[B, H, chunks, D, Dv]`` that a backward reads, or none.

    Raises:
        TypeError: what is no dense tensor.
        ValueError: tensors that do not fit together, an unknown map, or a chunk size below 1.
    """
    refuse_tangents(NAME)
    _check(q, k, v, g, phi, chunk_size)
    x = Inputs(q, k, v, g)
    out, states = torch.empty_like(v), _states(x, chunk_size, keep)
    with torch.autocast(q.device.type, enabled=False):
        forward(x, phi, chunk_size, out, states)
    return out, states


def _check(q: Tensor, k: Tensor, v: Tensor, g: Tensor, phi: str, chunk_size: int) -> None:
    check_inputs(NAME, q, k, v, autocast=False)
    check_gates(NAME, q, g)
    check_shape(NAME, "g", g, q.shape[:3], q, torch.promote_types(q.dtype, torch.float32))
    get_feature_map(phi)
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")


def _states(x: Inputs, chunk_size: int, keep: bool) -> Tensor:
    return new_states(x, -(-x.q.shape[2] // chunk_size) if keep else 0)


@chunked_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, phi: str, chunk_size: int, keep: bool
) -> tuple[Tensor, Tensor]:
    _check(q, k, v, g, phi, chunk_size)
    return torch.empty_like(v), _states(Inputs(q, k, v, g), chunk_size, keep)


@torch.library.custom_op("attention::linear_decay_chunked_backward", mutates_args=())
def chunked_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    states: Tensor,
    phi: str,
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv, dg, from what :func:`chunked_forward` took and returned, its states kept.

    Raises:
        TypeError: what is no dense tensor.
        ValueError: tensors that do not fit together, an unknown map, or a chunk size below 1.
    """
    refuse_tangents(NAME)
    _check(q, k, v, g, phi, chunk_size)
    x = Inputs(q, k, v, g)
    check_shape(NAME, "grad_out", grad_out, v.shape, v)
    kept = (*q.shape[:2], -(-q.shape[2] // chunk_size), q.shape[-1], v.shape[-1])
    check_shape(NAME, "states", states, kept, g)
    grads = Inputs(*map(contiguous_like, x))
    with torch.autocast(q.device.type, enabled=False):
        backward(x, phi, chunk_size, grad_out, grads, states)
    return grads.q, grads.k, grads.v, grads.g


@chunked_backward.register_fake
def _(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, g: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _check(q, k, v, g, *rest[-2:])
    check_shape(NAME, "grad_out", grad_out, v.shape, v)
    check_device(NAME, q, rest[0])
    return contiguous_like(q), contiguous_like(k), contiguous_like(v), contiguous_like(g)


chunked_differentiable = differentiable(
    "attention::linear_decay_chunked",
    lambda *arguments: chunked_forward(*arguments, True),
    lambda *arguments: chunked_backward(*arguments[:5], *arguments[6:]),  # without the output
    batch_dims=(0, 0),
    inputs=4,
    function=lambda phi, chunk_size: DecayedSums(phi),
)


def _forward_macs(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> dict[str, int]:
    batch, heads, tokens, width = q.shape
    return times(batch * heads, forward_terms(tokens, width, v.shape[-1], rest[-2]))


def _backward_macs(grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> dict[str, int]:
    batch, heads, tokens, width = q.shape
    return times(batch * heads, backward_terms(tokens, width, v.shape[-1], rest[-1]))


counts_macs("linear_decay_chunked", _forward_macs)
counts_macs("linear_decay_chunked_backward", _backward_macs)
