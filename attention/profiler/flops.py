"""Counted FLOPs: two for each multiply-add of the matrix products that a call dispatches.

torch's ``FlopCounterMode`` counts them, with formulas added here for what it counts as nothing: the
fused attention of a CPU, and the operators of this package. By its convention a fused attention
operator costs its full N x N products, causal or not, and its backward computes the scores once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import (
    FlopCounterMode,
    flop_registry,
    register_flop_formula,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from attention.kernels.costs import (
    chunked_backward_terms,
    chunked_forward_terms,
    native_backward_terms,
    native_forward_terms,
    triton_backward_terms,
    triton_forward_terms,
)
from attention.kernels.triton.plan import in_gluon

Shape = torch.Size


def _forward(q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]


def _backward(grad_out: Shape, q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad_out, q, k, v))  # type: ignore[no-untyped-call]


def _chunked_forward(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **_: Any) -> int:
    batch, heads, seq_len, head_dim = q.shape
    causal, _phi, _eps, chunk_size, _keep = rest
    terms = chunked_forward_terms(seq_len, head_dim, v.shape[-1], causal, chunk_size, q.device.type)
    return 2 * batch * heads * sum(terms.values())


def _chunked_backward(grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any, **_: Any) -> int:
    batch, heads, seq_len, head_dim = q.shape
    causal, _phi, chunk_size = rest[-3:]
    terms = chunked_backward_terms(seq_len, head_dim, v.shape[-1], causal, chunk_size, q.device.type)
    return 2 * batch * heads * sum(terms.values())


def _native_forward(q: Tensor, k: Tensor, v: Tensor, causal: bool, *_: Any, **__: Any) -> int:
    batch, heads, seq_len, head_dim = q.shape
    case = (seq_len, head_dim, v.shape[-1], batch * heads, causal, torch.get_num_threads())
    return 2 * batch * heads * sum(native_forward_terms(*case).values())


def _native_backward(grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any, **_: Any) -> int:
    batch, heads, seq_len, head_dim = q.shape
    case = (seq_len, head_dim, v.shape[-1], batch * heads, rest[-2], torch.get_num_threads())
    return 2 * batch * heads * sum(native_backward_terms(*case).values())


def _in_gluon(q: Tensor, k: Tensor, v: Tensor, *others: Tensor) -> bool:
    strides = [x.stride() for x in (q, k, v, *others)]
    return in_gluon(q.shape, v.shape[-1], q.device, q.dtype, strides)


def _triton_inference(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **_: Any) -> int:
    return _triton_forward(q, k, v, None, None, *rest, False, False)


def _triton_forward(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **_: Any) -> int:
    batch, heads, seq_len, head_dim = q.shape
    _S0, _z0, causal, _phi, _eps, _precision, final, _keep = rest
    narrow, gluon = q.dtype == torch.bfloat16, _in_gluon(q, k, v)
    terms = triton_forward_terms(
        seq_len, head_dim, v.shape[-1], batch * heads, causal, narrow, q.device, final, gluon
    )
    return 2 * batch * heads * sum(terms.values())


def _triton_backward(grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any, **_: Any) -> int:
    batch, heads, seq_len, head_dim = q.shape
    causal = rest[-4]
    narrow, gluon = q.dtype == torch.bfloat16, _in_gluon(q, k, v, grad_out)
    terms = triton_backward_terms(seq_len, head_dim, v.shape[-1], causal, narrow, gluon)
    return 2 * batch * heads * sum(terms.values())


for _operator, _raw_formula in (
    (torch.ops.attention.linear_triton_inference, _triton_inference),
    (torch.ops.attention.linear_chunked, _chunked_forward),
    (torch.ops.attention.linear_chunked_backward, _chunked_backward),
    (torch.ops.attention.linear_native, _native_forward),
    (torch.ops.attention.linear_native_backward, _native_backward),
    (torch.ops.attention.linear_triton, _triton_forward),
    (torch.ops.attention.linear_triton_backward, _triton_backward),
):
    if _operator not in flop_registry:
        # The tensors themselves: columns and segments, whose sums are computed twice, depend on the device.
        register_flop_formula(_operator, get_raw=True)(_raw_formula)

for _operator, _formula in (
    (torch.ops.aten._scaled_dot_product_flash_attention_for_cpu, _forward),
    (torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward, _backward),
):
    if _operator not in flop_registry:
        register_flop_formula(_operator)(_formula)


def count_flops(call: Callable[[], object]) -> int:
    """FLOPs of the matrix products that ``call()`` dispatches, backward included."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
