"""The kernel ``linear-triton``: the whole operator in two launches, forward."""

from __future__ import annotations

import torch
from torch import Tensor

from attention.inputs import check_number, refuse_options
from attention.kernels.feature_maps import FeatureMap, mapped_before
from attention.kernels.linear_triton.costs import triton_costs
from attention.kernels.linear_triton.operator import (
    triton_differentiable,
    triton_forward,
    triton_from_state,
    triton_inference,
)
from attention.kernels.registry import register_kernel
from attention.kernels.tensors import check_inputs, checked, dense, differentiated, unit_stride
from attention.kernels.triton_common.checks import served_precision, supports

LinearState = tuple[Tensor, Tensor]


@checked("linear-triton")
def linear_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-6,
    input_precision: str | None = None,
) -> Tensor:
    """phi(q)S / (phi(q).z + eps), fused: phi, state, normaliser and output in one pass over each segment.

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]`` -> ``[B, H, N, Dv]``; any strides (only a last stride
    other than 1 costs a copy). float32, bfloat16, float16; S and z are summed in float32, and the operands
    of matrix products are bfloat16 for bfloat16, else float32 in ``input_precision``: ``ieee``, ``tf32x3``
    (float32's default) or ``tf32`` (float16's). Memory O(N D), gradients included; two calls give the same
    bits. A callable as feature map is applied before. Tangents and second derivatives are
    computed in plain torch.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together, an unknown input_precision, a dtype or
            width it does not have, tokens 2^25 elements apart or more, or no CUDA device.
    """
    dtype = v.dtype
    q, k, v, phi, precision = _served(q, k, v, feature_map, input_precision)
    if v.numel() == 0:
        return (q @ (k.mT @ v)).to(dtype)
    out: Tensor
    if differentiated(q, k, v):
        out = triton_differentiable(q, k, v, causal, phi, eps, precision)[0]
    else:
        out = triton_inference(q, k, v, causal, phi, eps, precision)
    return out.to(dtype)


def linear_triton_with_state(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    initial_state: LinearState | None = None,
    *,
    causal: bool = True,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-6,
    input_precision: str | None = None,
) -> tuple[Tensor, LinearState]:
    """Linear attention continued from a state, which returns the next: parts of a sequence one by one.

    Tensors and options as in :func:`linear_triton`. A state is S ``[B, H, D, Dv]`` and z ``[B, H, D]`` in
    float32; gradients flow through both.

    Raises:
        TypeError: a state that is no pair of dense tensors, or an option of another type.
        ValueError: as :func:`linear_triton`, or a state of another shape, device or kind of number.
    """
    check_inputs("linear-triton", q, k, v)
    eps = check_number("eps", eps, least=0)
    refuse_options(causal, "triton")
    dtype = v.dtype
    q, k, v, phi, precision = _served(q, k, v, feature_map, input_precision)
    shape = (*q.shape[:2], q.shape[-1], v.shape[-1])
    S0, z0 = (None, None) if initial_state is None else _flat(initial_state, shape, q.device)
    if v.numel() == 0:
        S = v.new_zeros(shape, dtype=torch.float32) if S0 is None else S0.view(shape)
        z = v.new_zeros(shape[:3], dtype=torch.float32) if z0 is None else z0.view(shape[:3])
        return (q @ (k.mT @ v)).to(dtype), (S, z)
    arguments = q, k, v, S0, z0, causal, phi, eps, precision, True
    if differentiated(q, k, v, S0, z0):
        out, *_, S, z = triton_from_state(*arguments)
    else:
        out, *_, S, z = triton_forward(*arguments, False)
    return out.to(dtype), (S.view(shape), z.view(shape[:3]))


def _served(
    q: Tensor, k: Tensor, v: Tensor, feature_map: str | FeatureMap, precision: str | None
) -> tuple[Tensor, Tensor, Tensor, str, str]:
    """The tensors, the name of the map and the precision as the passes take them, or a refusal."""
    q, k, v, name = mapped_before(feature_map, q, k, v)
    precision = served_precision("linear-triton", q, v, precision)
    if not q.stride()[-1] == k.stride()[-1] == v.stride()[-1] == 1:  # faster than stride(-1)
        q, k, v = unit_stride(q), unit_stride(k), unit_stride(v)
    return q, k, v, name, precision


def _flat(state: LinearState, shape: tuple[int, int, int, int], device: torch.device) -> LinearState:
    if not (isinstance(state, tuple | list) and len(state) == 2 and all(map(dense, state))):
        raise TypeError("a state is a pair of dense tensors, S [B, H, D, Dv] and z [B, H, D]")
    S, z = state
    if not (S.device == z.device == device and S.is_floating_point() and z.is_floating_point()):
        raise ValueError(
            f"a state is of floating point on {device}; "
            f"got {S.dtype} on {S.device} and {z.dtype} on {z.device}"
        )
    if S.shape != shape or z.shape != shape[:3]:
        raise ValueError(
            f"a state is S [B, H, D, Dv] = {shape} and z [B, H, D] = {shape[:3]}; "
            f"got {tuple(S.shape)} and {tuple(z.shape)}"
        )
    return S.float().flatten(0, 1).contiguous(), z.float().flatten(0, 1).contiguous()


register_kernel("linear-triton", linear_triton, costs=triton_costs, supports=supports)
