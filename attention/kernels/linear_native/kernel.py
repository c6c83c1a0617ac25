"""The kernel ``linear-native``: compiled for the CPU at hand, chunk by chunk in the cache of each core."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor

from attention.case import Case
from attention.kernels.feature_maps import FeatureMap, mapped_before
from attention.kernels.forms.costs import of_forms
from attention.kernels.forms.linear import LinearOptions, attend, begun, step_of
from attention.kernels.layouts import unit_stride
from attention.kernels.linear_native.costs import PROGRAM, native_costs
from attention.kernels.linear_native.operator import (
    native_differentiable,
    native_forward,
    native_with_state,
    native_with_state_differentiable,
)
from attention.kernels.linear_native.step import fits, stepped
from attention.kernels.native.library import STORAGE, refusal
from attention.kernels.registry import register_kernel
from attention.kernels.tensors import checked, differentiated
from attention.state import State


@checked("linear-native", STORAGE, plain=False)
def linear_native(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[LinearOptions]) -> Any:
    """phi(q)S / (phi(q).z + eps), fused: each chunk is read once, and its result written once.

    Tensors and options as of ``attention.linear_attention``, of any widths and strides (only a last stride
    other than 1 costs a copy). Products and sums are in float32, for float64 in float64.
    Memory O(N D), gradients included; two calls with the same number of threads give the same bits. A
    callable as feature map is applied before. Tangents and second derivatives are computed in plain torch. A
    NaN reaches the tokens that see it, and others of its chunk of 64. Built on first use, about a second for
    each dtype, and kept in ``$XDG_CACHE_HOME/attention-scaling``, or where that cannot be written built by
    each process.

    Raises:
        TypeError: a mask, ends or a state of another kind.
        ValueError: shapes, dtypes or devices that do not fit together, a device other than the CPU, a dtype
            it does not have, or no C++ compiler to build it.
    """
    return attend(_native, q, k, v, packed=_native, states=True, **options)


def _native(
    q: Tensor, k: Tensor, v: Tensor, state: State | None, cu_seqlens: Tensor | None = None, *, causal: bool,
    final: bool, phi: str, eps: float,
) -> tuple[Tensor, State | None]:  # fmt: skip
    if reason := refusal(PROGRAM, q.device.type, q.dtype):
        raise ValueError(f"linear-native cannot serve q {tuple(q.shape)}, v {tuple(v.shape)}: {reason}")
    q, k, v = unit_stride(q), unit_stride(k), unit_stride(v)
    if state is None and not final:
        if differentiated(q, k, v):
            return native_differentiable(q, k, v, causal, phi, eps, cu_seqlens)[0], None
        return native_forward(q, k, v, causal, phi, eps, cu_seqlens, False)[0], None
    batch = None if cu_seqlens is None else cu_seqlens.shape[0] - 1
    tensors = (q, k, v, *begun(state, k, v, batch))
    if differentiated(*tensors):
        out, S, z, *_ = native_with_state_differentiable(*tensors, causal, phi, eps, cu_seqlens)
    else:
        out, S, z, *_ = native_with_state(*tensors, causal, phi, eps, cu_seqlens, False)
    return out, State(S, z)


def native_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: State,
    *,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-6,
    in_place: bool = False,
) -> tuple[Tensor, State]:
    """One or a few tokens, as ``attention.linear_attention_step``, at the cost of the state read and written.

    Many tokens, what is differentiated, and a state of another dtype or not contiguous go through
    :func:`linear_native`.

    Raises:
        TypeError: a state of another kind.
        ValueError: shapes that do not fit together, or ``in_place`` where gradients would be wanted.
    """
    dtype = v.dtype
    if callable(feature_map):
        q, k, v, feature_map = mapped_before(feature_map, q, k, v)
    if fits(q, k, v, state):
        out, state = stepped(q, k, v, state, feature_map, eps, in_place)
    else:
        options: dict[str, Any] = {"feature_map": feature_map, "eps": eps, "in_place": in_place}
        out, state = step_of(linear_native, q, k, v, state, **options)
    return out if out.dtype is dtype else out.to(dtype), state


def supports(case: Case) -> str | None:
    """CPUs, where a C++ compiler is at hand."""
    return refusal(PROGRAM, case.device, case.torch_dtype)


register_kernel(
    "linear-native",
    linear_native,
    costs=of_forms(native_costs, steps=True),
    supports=supports,
    step=native_step,
)
