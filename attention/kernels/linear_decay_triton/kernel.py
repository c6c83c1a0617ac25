"""The kernel ``linear-decay-triton``: causal linear attention with gates in three launches, forward."""

from __future__ import annotations

import torch
from torch import Tensor

from attention.case import Case
from attention.kernels.feature_maps import FeatureMap, mapped_before
from attention.kernels.gates import causal_only, check_causal, check_gates, make_gates
from attention.kernels.layouts import unit_stride
from attention.kernels.linear_decay_triton.costs import triton_costs
from attention.kernels.linear_decay_triton.operator import NAME, decay_differentiable, decay_forward
from attention.kernels.registry import register_kernel
from attention.kernels.tensors import checked, differentiated
from attention.kernels.triton_common.checks import served_precision
from attention.kernels.triton_common.checks import supports as refusal_of


@checked(NAME)
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

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]``, g ``[B, H, N]`` (float32 or the dtype of q; natural
    logarithms of what is kept, -inf forgets all) -> ``[B, H, N, Dv]``; any strides (only a last stride other
    than 1, and gates that are not contiguous, cost a copy). float32, bfloat16, float16; S is summed in
    float32, and the operands of matrix products are bfloat16 for bfloat16, else float32 in
    ``input_precision``: ``ieee``, ``tf32x3`` (float32's default) or ``tf32`` (float16's). Memory O(N D),
    gradients included; two calls give the same bits. A callable as feature map is applied before. Tangents
    and second derivatives are computed in plain torch.

    Raises:
        TypeError: gates that are no dense tensor.
        ValueError: shapes, dtypes or devices that do not fit together, a mode that is not causal, an unknown
            input_precision, a dtype or width it does not have, tokens 2^25 elements apart or more, or no CUDA
            device.
    """
    check_causal(NAME, causal)
    check_gates(NAME, q, g)
    dtype = v.dtype
    q, k, v, phi = mapped_before(feature_map, q, k, v)
    precision = served_precision(NAME, q, v, input_precision)
    if not q.stride()[-1] == k.stride()[-1] == v.stride()[-1] == 1:  # faster than stride(-1)
        q, k, v = unit_stride(q), unit_stride(k), unit_stride(v)
    if v.numel() == 0:
        return (q @ (k.mT @ v) * g[..., None]).to(dtype)
    g = g.to(torch.float32).contiguous()
    out: Tensor
    if differentiated(q, k, v, g):
        out = decay_differentiable(q, k, v, g, phi, precision)[0]
    else:
        out = decay_forward(q, k, v, g, phi, precision, False)[0]
    return out.to(dtype)


def supports(case: Case) -> str | None:
    """Causal, on CUDA, three dtypes, widths up to 256; a CPU only under Triton's interpreter."""
    return causal_only(case) or refusal_of(case)


register_kernel(
    NAME,
    linear_decay_triton,
    reference="decay",
    costs=triton_costs,
    supports=supports,
    make_inputs=make_gates,
    precision={"float16": "tf32"},
)
