"""The kernel ``linear-decay-native``: compiled for the CPU at hand, chunk by chunk in a core's cache."""

from __future__ import annotations

from torch import Tensor

from attention.case import Case
from attention.kernels.feature_maps import FeatureMap, mapped_before
from attention.kernels.gates import causal_only, check_causal, check_gates, make_gates
from attention.kernels.layouts import unit_stride
from attention.kernels.linear_decay_native.costs import PROGRAM, native_costs
from attention.kernels.linear_decay_native.operator import NAME, native_differentiable, native_forward
from attention.kernels.native.library import STORAGE, refusal, wide
from attention.kernels.registry import register_kernel
from attention.kernels.tensors import checked, differentiated


@checked(NAME, STORAGE)
def linear_decay_native(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    g: Tensor,
    causal: bool = True,
    feature_map: str | FeatureMap = "elu",
) -> Tensor:
    """O = phi(q)S, S = exp(g) S + phi(k)v', fused: each chunk is read once, and its result written once.

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]``, g ``[B, H, N]`` (float32 or the dtype of q; natural
    logarithms of what is kept, -inf forgets all) -> ``[B, H, N, Dv]``, of any widths and strides (only a last
    stride other than 1 costs a copy). Products and sums are in float32, for float64 in float64. Memory
    O(N D), a backward N D Dv / 64 more; two calls with the same number of threads give the same bits. A
    callable as feature map is applied before. Tangents and second derivatives are computed in plain torch.
    Built on first use and kept as linear-native is.

    Raises:
        TypeError: gates that are no dense tensor.
        ValueError: shapes, dtypes or devices that do not fit together, a mode that is not causal, a device
            other than the CPU, a dtype it does not have, or no C++ compiler to build it.
    """
    check_causal(NAME, causal)
    check_gates(NAME, q, g)
    dtype = v.dtype
    q, k, v, name = mapped_before(feature_map, q, k, v)
    if reason := refusal(PROGRAM, q.device.type, q.dtype):
        raise ValueError(f"{NAME} cannot serve q {tuple(q.shape)}, v {tuple(v.shape)}: {reason}")
    q, k, v, g = unit_stride(q), unit_stride(k), unit_stride(v), g.to(wide(q))
    out: Tensor
    if differentiated(q, k, v, g):
        out = native_differentiable(q, k, v, g, name)[0]
    else:
        out = native_forward(q, k, v, g, name, False)[0]
    return out.to(dtype)


def supports(case: Case) -> str | None:
    """Causal, on CPUs, where a C++ compiler is at hand."""
    return causal_only(case) or refusal(PROGRAM, case.device, case.torch_dtype)


register_kernel(
    NAME,
    linear_decay_native,
    reference="decay",
    costs=native_costs,
    supports=supports,
    make_inputs=make_gates,
)
