"""The operator of linear-chunked: a compiler need not unroll its blocks.

``torch.compile`` calls it as a whole, autograd knows its backward, and ``FlopCounterMode`` its formula.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attention.costs import Sizes
from attention.kernels.autograd import differentiable
from attention.kernels.dispatch import counts_macs, refuse_tangents
from attention.kernels.feature_maps import get_feature_map
from attention.kernels.layouts import contiguous_like
from attention.kernels.linear_chunked.costs import backward_terms, forward_terms
from attention.kernels.linear_chunked.passes import Pair, Passes, new_states, states_shape
from attention.kernels.tensors import check_device, check_inputs, check_shape, check_state

NAME = "linear-chunked"
Three = tuple[Tensor, Tensor, Tensor]
Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("attention::linear_chunked", mutates_args=())
def chunked_forward(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, chunk_size: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The output ``[B, Hq, Nq, Dv]``, normalisers ``[B, Hq, Nq, 1]``, and the states that a backward reads.

    States are sums of phi(k) [v | 1]', ``[states, B Hkv, D, columns]``: of all tokens, or where causal of
    those before each chunk; none unless they are to be kept. Differentiable in q, k and v through the
    output alone.

    Raises:
        ValueError: tensors that do not fit together, an unknown map, or a chunk size below 1.
    """
    return _forward(q, k, v, None, causal, phi, eps, chunk_size, keep)[:3]


@torch.library.custom_op("attention::linear_chunked_with_state", mutates_args=())
def chunked_with_state(
    q: Tensor, k: Tensor, v: Tensor, S0: Tensor, z0: Tensor,
    causal: bool, phi: str, eps: float, chunk_size: int, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The output behind a state S0 ``[B, Hkv, D, Dv]``, z0 ``[B, Hkv, D]``; the last state; and what is kept.

    Differentiable in all tensors, through the output and the last state.

    Raises:
        ValueError: tensors that do not fit together, an unknown map, or a chunk size below 1.
    """
    out, den, states, S, z = _forward(q, k, v, (S0, z0), causal, phi, eps, chunk_size, keep)
    return out, S, z, den, states


def _forward(
    q: Tensor, k: Tensor, v: Tensor, before: Pair, causal: bool, phi: str, eps: float, chunk_size: int,
    keep: bool,
) -> Five:  # fmt: skip
    refuse_tangents(NAME)
    _check(q, k, v, causal, phi, chunk_size)
    if before:
        check_state(NAME, *before, k, v)
    out, den, states = _results(q, v, causal, chunk_size, keep)
    work = Passes(q, k, v, phi, chunk_size)
    if causal:
        last = work.causal_forward(out, den, eps, states, before)
    else:
        last = work.forward(out, den, eps, states[0], before)
    return out, den, states, *(work.parts(last) if before else (last, last))


def _check(q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, chunk_size: int) -> None:
    check_inputs(NAME, q, k, v, autocast=False, plain=False, causal=causal)
    get_feature_map(phi)
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")


def _results(q: Tensor, v: Tensor, causal: bool, chunk_size: int, keep: bool) -> Three:
    wide = torch.promote_types(q.dtype, torch.float32)
    out, den = v.new_empty(*q.shape[:3], v.shape[-1]), q.new_empty(*q.shape[:3], 1, dtype=wide)
    return out, den, new_states(_kept(q, causal, chunk_size, keep), q, v)


def _kept(q: Tensor, causal: bool, chunk_size: int, keep: bool) -> int:
    return (-(-q.shape[2] // chunk_size) if keep else 0) if causal else 1


@chunked_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, chunk_size: int, keep: bool
) -> Three:
    _check(q, k, v, causal, phi, chunk_size)
    return _results(q, v, causal, chunk_size, keep)


@chunked_with_state.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, S0: Tensor, z0: Tensor,
    causal: bool, phi: str, eps: float, chunk_size: int, keep: bool,
) -> Five:  # fmt: skip
    _check(q, k, v, causal, phi, chunk_size)
    check_state(NAME, S0, z0, k, v)
    out, *kept = _results(q, v, causal, chunk_size, keep)
    return out, contiguous_like(S0), contiguous_like(z0), kept[0], kept[1]


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
    return _backward((grad_out, out, den), None, q, k, v, states, causal, phi, chunk_size)[:3]


@torch.library.custom_op("attention::linear_chunked_with_state_backward", mutates_args=())
def chunked_with_state_backward(
    grad_out: Tensor, dS: Tensor, dz: Tensor, q: Tensor, k: Tensor, v: Tensor,
    out: Tensor, den: Tensor, states: Tensor, causal: bool, phi: str, chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv, dS0, dz0, from what :func:`chunked_with_state` took and returned, its states kept.

    Raises:
        ValueError: tensors that do not fit together, an unknown map, or a chunk size below 1.
    """
    return _backward((grad_out, out, den), (dS, dz), q, k, v, states, causal, phi, chunk_size)


def _backward(
    upstream: Three, behind: Pair, q: Tensor, k: Tensor, v: Tensor, states: Tensor, causal: bool, phi: str,
    chunk_size: int,
) -> Five:  # fmt: skip
    refuse_tangents(NAME)
    _check(q, k, v, causal, phi, chunk_size)
    if behind:
        check_state(NAME, *behind, k, v, ("dS", "dz"))
    wide, shape = torch.promote_types(q.dtype, torch.float32), (*q.shape[:3], v.shape[-1])
    for name, x in zip(("grad_out", "out"), upstream, strict=False):
        check_shape(NAME, name, x, shape, v)
    check_shape(NAME, "den", upstream[2], (*q.shape[:3], 1), q, wide)
    kept = states_shape(_kept(q, causal, chunk_size, keep=True), q, v)
    check_shape(NAME, "states", states, kept, q, wide)
    grads = contiguous_like(q), contiguous_like(k), contiguous_like(v)
    work = Passes(q, k, v, phi, chunk_size)
    if causal:
        first = work.causal_backward(upstream, grads, states, behind)
    else:
        first = work.backward(upstream, grads, states[0], behind)
    return *grads, *(work.parts(first) if behind else (first, first))


@chunked_backward.register_fake
def _(grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Three:
    _check(q, k, v, *rest[-3:])
    check_shape(NAME, "grad_out", grad_out, (*q.shape[:3], v.shape[-1]), v)
    check_device(NAME, q, *rest[:3])
    return contiguous_like(q), contiguous_like(k), contiguous_like(v)


@chunked_with_state_backward.register_fake
def _(grad_out: Tensor, dS: Tensor, dz: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Five:
    _check(q, k, v, *rest[-3:])
    check_shape(NAME, "grad_out", grad_out, (*q.shape[:3], v.shape[-1]), v)
    check_state(NAME, dS, dz, k, v, ("dS", "dz"))
    check_device(NAME, q, *rest[:3])
    return tuple(map(contiguous_like, (q, k, v, dS, dz)))  # type: ignore[return-value]


chunked_differentiable = differentiable(
    "attention::linear_chunked",
    lambda *arguments: chunked_forward(*arguments, True),
    lambda *arguments: chunked_backward(*arguments[:-2], arguments[-1]),  # without eps
    batch_dims=(0, 0, 1),
)
chunked_with_state_differentiable = differentiable(
    "attention::linear_chunked_with_state",
    lambda *arguments: chunked_with_state(*arguments, True),
    # Without S0, z0, S, z and eps.
    lambda do, dS, dz, q, k, v, S0, z0, out, S, z, den, states, causal, phi, eps, chunk_size: (
        chunked_with_state_backward(do, dS, dz, q, k, v, out, den, states, causal, phi, chunk_size)
    ),
    batch_dims=(0, 0, 0, 0, 1),
    inputs=5,
    outputs=3,
)


def _forward_macs(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> dict[str, int]:
    *_, causal, _phi, _eps, chunk_size, _keep = rest
    return forward_terms(Sizes.of(q, v), causal, chunk_size, q.device.type)


def _backward_macs(grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> dict[str, int]:
    *_, causal, _phi, chunk_size = rest
    return backward_terms(Sizes.of(q, v), causal, chunk_size, q.device.type)


counts_macs("linear_chunked", _forward_macs)
counts_macs("linear_chunked_with_state", _forward_macs)
counts_macs("linear_chunked_backward", _backward_macs)
counts_macs("linear_chunked_with_state_backward", lambda do, dS, dz, *rest: _backward_macs(do, *rest))
