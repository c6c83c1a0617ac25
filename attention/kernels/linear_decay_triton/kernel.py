"""The kernel ``linear-decay-triton``: causal linear attention with gates in three launches, forward."""

from __future__ import annotations

import torch
from torch import Tensor

from attention.kernels.feature_maps import FeatureMap, mapped_before
from attention.kernels.linear_decay_triton.operator import NAME, decay_differentiable, decay_forward
from attention.kernels.tensors import checked, dense, differentiated, unit_stride
from attention.kernels.triton_common.checks import served_precision


@checked("linear-decay-triton")
def linear_decay_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    g: Tensor,
    causal: bool = True,
    feature_map: str | FeatureMap = "elu",
    input_precision: str | None = None,
) -> Tensor:
    """o_t = phi(q_t) S_t with S_t = exp(g_t) S_{t-1} + phi(k_t) v_t', fused.

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]``, g ``[B, H, N]`` -> ``[B, H, N, Dv]``; any strides.
    q, k, v in float32, bfloat16 or float16; g, the logarithm of the decay, in any floating point, computed in
    float32; -inf forgets all before the token. S is summed in float32, and the operands of matrix products
    are bfloat16 for bfloat16, else float32 in ``input_precision``: ``ieee``, ``tf32x3`` (float32's default)
    or ``tf32`` (float16's). Only differences of the gates' sums within chunks are exponentiated. Memory
    O(N D), gradients of q, k, v and g included; two calls give the same bits. A callable as feature map is
    applied before. Differentiated once, in reverse mode.

    Raises:
        TypeError: a tensor that is not dense.
        ValueError: shapes, dtypes or devices that do not fit, not causal, an unknown input_precision,
            a dtype or width it does not have, tokens 2^25 elements apart or more, or no CUDA device.
    """
    _check_gates(q, g, causal)
    dtype = v.dtype
    q, k, v, phi = mapped_before(feature_map, q, k, v)
    precision = served_precision(NAME, q, v, input_precision)
    if not q.stride()[-1] == k.stride()[-1] == v.stride()[-1] == 1:  # faster than stride(-1)
        q, k, v = unit_stride(q), unit_stride(k), unit_stride(v)
    if v.numel() == 0:
        return (q @ (k.mT @ v)).to(dtype)
    g = g.to(torch.float32).contiguous()
    if differentiated(q, k, v, g):
        return decay_differentiable(q, k, v, g, phi, precision).to(dtype)
    return decay_forward(q, k, v, g, phi, precision, False)[0].to(dtype)


def _check_gates(q: Tensor, g: Tensor, causal: bool) -> None:
    """Refuse what is no gate for each token.

    Raises:
        TypeError: no dense tensor.
        ValueError: not causal; another shape or device, or no floating point.
    """
    if not causal:
        raise ValueError(f"{NAME} is causal: gates order the tokens; pass causal=True")
    if not dense(g):
        raise TypeError(f"{NAME} takes a dense tensor for g; got {type(g).__name__}")
    if g.shape != q.shape[:3] or g.device != q.device or not g.is_floating_point():
        raise ValueError(
            f"{NAME} takes g [B, H, N] = {tuple(q.shape[:3])} of floating point on {q.device}; "
            f"got {tuple(g.shape)} in {str(g.dtype).removeprefix('torch.')} on {g.device}"
        )
