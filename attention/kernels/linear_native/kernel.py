"""The kernel ``linear-native``: compiled for the CPU at hand, chunk by chunk in the cache of each core."""

from __future__ import annotations

from torch import Tensor

from attention.case import Case
from attention.kernels.feature_maps import FeatureMap, mapped_before
from attention.kernels.linear_native.costs import PROGRAM, native_costs
from attention.kernels.linear_native.operator import native_differentiable, native_forward
from attention.kernels.native.library import STORAGE, refusal
from attention.kernels.registry import register_kernel
from attention.kernels.tensors import checked, differentiated, unit_stride


@checked("linear-native", STORAGE)
def linear_native(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-6,
) -> Tensor:
    """phi(q)S / (phi(q).z + eps), fused: each chunk is read once, and its result written once.

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]`` -> ``[B, H, N, Dv]``, of any widths and strides (only
    a last stride other than 1 costs a copy). Products and sums are in float32, for float64 in float64.
    Memory O(N D), gradients included; two calls with the same number of threads give the same bits. A
    callable as feature map is applied before. Tangents and second derivatives are computed in plain torch. A
    NaN reaches the tokens that see it, and others of its chunk of 64. Built on first use, about a second for
    each dtype, and kept in ``$XDG_CACHE_HOME/attention-scaling``, or where that cannot be written built by
    each process.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together, a device other than the CPU, a dtype
            it does not have, or no C++ compiler to build it.
    """
    dtype = v.dtype
    q, k, v, name = mapped_before(feature_map, q, k, v)
    if reason := refusal(PROGRAM, q.device.type, q.dtype):
        raise ValueError(f"linear-native cannot serve q {tuple(q.shape)}, v {tuple(v.shape)}: {reason}")
    q, k, v = unit_stride(q), unit_stride(k), unit_stride(v)
    out: Tensor
    if differentiated(q, k, v):
        out = native_differentiable(q, k, v, causal, name, eps)[0]
    else:
        out = native_forward(q, k, v, causal, name, eps, False)[0]
    return out.to(dtype)


def supports(case: Case) -> str | None:
    """CPUs, where a C++ compiler is at hand."""
    return refusal(PROGRAM, case.device, case.torch_dtype)


register_kernel("linear-native", linear_native, costs=native_costs, supports=supports)
