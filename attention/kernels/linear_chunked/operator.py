"""The operator of linear-chunked: a compiler need not unroll its blocks.

``torch.compile`` calls it as a whole, autograd knows its backward, and ``FlopCounterMode`` its formula.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attention.costs import times
from attention.kernels.autograd import differentiable
from attention.kernels.dispatch import counts_macs, refuse_tangents
from attention.kernels.feature_maps import get_feature_map
from attention.kernels.linear_chunked.costs import backward_terms, forward_terms
from attention.kernels.linear_chunked.passes import Passes, new_states, states_shape
from attention.kernels.tensors import check_device, check_inputs, check_shape, contiguous_like

NAME = "linear-chunked"


@torch.library.custom_op("attention::linear_chunked", mutates_args=())
def chunked_forward(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, chunk_size: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The output ``[B, H, N, Dv]``, its normalisers ``[B, H, N, 1]``, and the states that a backward reads.

    States are sums of phi(k) [v | 1]', ``[states, B H, D, columns]``: of all tokens, or where causal of
    those before each chunk; none unless they are to be kept. Differentiable in q, k and v through the
    output alone.

    Raises:
        ValueError: tensors that do not fit together, an unknown map, or a chunk size below 1.
    """
    refuse_tangents(NAME)
    _check(q, k, v, phi, chunk_size)
    out = v.new_empty(*q.shape[:3], v.shape[-1])
    den = q.new_empty(*q.shape[:3], 1, dtype=torch.promote_types(q.dtype, torch.float32))
    work = Passes(q, k, v, phi, chunk_size)
    states = new_states(_kept(q, causal, chunk_size, keep), q, v)
    if causal:
        work.causal_forward(out, den, eps, states)
    else:
        work.forward(out, den, eps, states[0])
    return out, den, states


def _check(q: Tensor, k: Tensor, v: Tensor, phi: str, chunk_size: int) -> None:
    check_inputs(NAME, q, k, v, autocast=False)
    get_feature_map(phi)
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")


def _kept(q: Tensor, causal: bool, chunk_size: int, keep: bool) -> int:
    return (-(-q.shape[2] // chunk_size) if keep else 0) if causal else 1


@chunked_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, chunk_size: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    _check(q, k, v, phi, chunk_size)
    wide = torch.promote_types(q.dtype, torch.float32)
    return (
        v.new_empty(*q.shape[:3], v.shape[-1]),
        q.new_empty(*q.shape[:3], 1, dtype=wide),
        new_states(_kept(q, causal, chunk_size, keep), q, v),
    )


@torch.library.custom_op("attention::linear_chunked_backward", mutates_args=())
def chunked_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    den: Tensor,
    states: Tensor,
    causal: bool,
    phi: str,
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv, from what :func:`chunked_forward` took and returned, its states kept.

    Raises:
        ValueError: tensors that do not fit together, an unknown map, or a chunk size below 1.
    """
    refuse_tangents(NAME)
    _check(q, k, v, phi, chunk_size)
    wide = torch.promote_types(q.dtype, torch.float32)
    check_shape(NAME, "grad_out", grad_out, v.shape, v)
    check_shape(NAME, "out", out, v.shape, v)
    check_shape(NAME, "den", den, (*q.shape[:3], 1), q, wide)
    kept = states_shape(_kept(q, causal, chunk_size, keep=True), q, v)
    check_shape(NAME, "states", states, kept, q, wide)
    dq, dk, dv = grads = contiguous_like(q), contiguous_like(k), contiguous_like(v)
    work = Passes(q, k, v, phi, chunk_size)
    upstream = (grad_out, out, den)
    if causal:
        work.causal_backward(upstream, grads, states)
    else:
        work.backward(upstream, grads, states[0])
    return dq, dk, dv


@chunked_backward.register_fake
def _(grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    _check(q, k, v, *rest[-2:])
    check_shape(NAME, "grad_out", grad_out, v.shape, v)
    check_device(NAME, q, *rest[:3])
    return contiguous_like(q), contiguous_like(k), contiguous_like(v)


chunked_differentiable = differentiable(
    "attention::linear_chunked",
    lambda *arguments: chunked_forward(*arguments, True),
    lambda *arguments: chunked_backward(*arguments[:-2], arguments[-1]),  # without eps
    batch_dims=(0, 0, 1),
)


def _forward_macs(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> dict[str, int]:
    batch, heads, seq_len, head_dim = q.shape
    causal, _phi, _eps, chunk_size, _keep = rest
    terms = forward_terms(seq_len, head_dim, v.shape[-1], causal, chunk_size, q.device.type)
    return times(batch * heads, terms)


def _backward_macs(grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> dict[str, int]:
    batch, heads, seq_len, head_dim = q.shape
    *_, causal, _phi, chunk_size = rest
    terms = backward_terms(seq_len, head_dim, v.shape[-1], causal, chunk_size, q.device.type)
    return times(batch * heads, terms)


counts_macs("linear_chunked", _forward_macs)
counts_macs("linear_chunked_backward", _backward_macs)
