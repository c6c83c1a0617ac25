"""The kernel ``linear-triton``: the whole operator in two launches, forward."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor

from attention.kernels.feature_maps import FeatureMap, mapped, mapped_before
from attention.kernels.forms.costs import of_forms
from attention.kernels.forms.linear import LinearOptions, attend, by_key_heads, check_step, step_of
from attention.kernels.layouts import unit_stride
from attention.kernels.linear_triton.costs import triton_costs
from attention.kernels.linear_triton.fast_path import repeated_inference, repeated_training
from attention.kernels.linear_triton.gradients import triton_differentiable, triton_from_state
from attention.kernels.linear_triton.operator import triton_forward, triton_inference
from attention.kernels.linear_triton.shared import Exchange, linear_triton_shared, repeated_shared
from attention.kernels.linear_triton.step import (
    repeated_step,
    serves_step,
    triton_step,
    triton_step_in_place,
)
from attention.kernels.registry import register_kernel
from attention.kernels.tensors import checked, dense, differentiated
from attention.kernels.triton_common.checks import PRECISION, served_precision, supports
from attention.state import State

NAME = "linear-triton"


@checked(NAME, plain=False)
def linear_triton(
    q: Tensor, k: Tensor, v: Tensor, *, input_precision: str | None = None, **options: Unpack[LinearOptions]
) -> Any:
    """phi(q)S / (phi(q).z + eps), fused: phi, state, normaliser and output in one pass over each segment.

    Tensors and options as of ``attention.linear_attention``; any strides (only a last stride other than 1
    costs a copy). float32, bfloat16, float16; S and z are summed in float32, and the operands of matrix
    products are bfloat16 for bfloat16, else float32 in ``input_precision``: ``ieee``, ``tf32x3`` (float32's
    default) or ``tf32`` (float16's, whose forward has operands of float16, which have as many digits, with
    rows scaled into their range). Memory O(N D), gradients included; two calls give the same bits. A
    callable as feature map is applied before. Tangents and second derivatives are computed in plain torch;
    with a state there is a first derivative in reverse mode alone. Ends of packed sequences stay on the
    device, unless there are states.

    Raises:
        TypeError: a mask, ends or a state of another kind.
        ValueError: shapes, dtypes or devices that do not fit together, an unknown input_precision, a dtype or
            width it does not have, tokens 2^25 elements apart or more, or no CUDA device.
    """
    return attend(_core, q, k, v, packed=_packed, precision=input_precision, **options)


def linear_triton_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: State,
    *,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-6,
    in_place: bool = False,
) -> tuple[Tensor, State]:
    """Tokens behind a state, as of ``attention.linear_attention_step``.

    One launch for a few tokens behind a contiguous state in float32; more of them, and where gradients may be
    wanted, are computed as any sequence is.
    """
    check_step(q, k, v, state, in_place)
    S, z = state
    if differentiated(q, k, v, S, z) or not dense(S) or not dense(z) or not serves_step(q, k, S, z):
        options: dict[str, Any] = {"feature_map": feature_map, "eps": eps, "in_place": in_place}
        return step_of(linear_triton, q, k, v, state, **options)
    dtype = v.dtype
    q, k, v, phi = mapped_before(feature_map, q, k, v)
    q, k, v, _ = _served(q, k, v, None)
    if in_place:
        return triton_step_in_place(q, k, v, S, z, phi, eps).to(dtype), state
    out, S, z = triton_step(q, k, v, S, z, phi, eps)
    return out.to(dtype), State(S, z)


def _core(
    q: Tensor, k: Tensor, v: Tensor, state: State | None, *,
    causal: bool, final: bool, phi: str, eps: float, precision: str | None,
) -> tuple[Tensor, State | None]:  # fmt: skip
    q, k, v, precision = _served(q, k, v, precision)
    if not k.numel():
        return _without_keys(q, k, v, state, phi, eps)
    if state is None and not final:
        return _output(q, k, v, causal, phi, eps, precision, None), None
    S0, z0 = (None, None) if state is None else (x.float().flatten(0, 1).contiguous() for x in state)
    arguments = q, k, v, S0, z0, causal, phi, eps, precision, None, final
    if differentiated(q, k, v, S0, z0):
        out, *_, S, z = triton_from_state(*arguments)
    else:
        out, *_, S, z = triton_forward(*arguments, False)
    shape = (*k.shape[:2], k.shape[3], v.shape[3])
    return out, State(S.view(shape), z.view(shape[:3])) if final else None


def _packed(
    q: Tensor, k: Tensor, v: Tensor, state: None, cu_seqlens: Tensor, *,
    causal: bool, final: bool, phi: str, eps: float, precision: str | None,
) -> tuple[Tensor, None]:  # fmt: skip
    """The core of packed sequences without states."""
    q, k, v, precision = _served(q, k, v, precision)
    if not k.numel():
        return _without_keys(q, k, v, None, phi, eps)[0], None
    return _output(q, k, v, causal, phi, eps, precision, cu_seqlens.to(q.device)), None


def _output(q: Tensor, k: Tensor, v: Tensor, *options: Any) -> Tensor:
    if differentiated(q, k, v):
        return triton_differentiable(q, k, v, *options)[0]
    return triton_inference(q, k, v, *options)


def _served(q: Tensor, k: Tensor, v: Tensor, precision: str | None) -> tuple[Tensor, Tensor, Tensor, str]:
    """The tensors and the precision as the passes take them, or a refusal."""
    precision = served_precision(NAME, q, v, precision)
    if not q.stride()[-1] == k.stride()[-1] == v.stride()[-1] == 1:  # faster than stride(-1)
        q, k, v = unit_stride(q), unit_stride(k), unit_stride(v)
    return q, k, v, precision


def _without_keys(
    q: Tensor, k: Tensor, v: Tensor, state: State | None, phi: str, eps: float
) -> tuple[Tensor, State]:
    """What queries read of a state alone, which for a few queries needs no pass; of none it is 0."""
    phi_q, phi_k = (x.float() for x in mapped(phi, by_key_heads(q, k.shape[1]), k))
    S, z = phi_k.mT @ v.float(), phi_k.sum(2)  # zeros, with gradients
    if state is None:
        return (phi_q @ S.unsqueeze(2)).flatten(1, 2).to(v.dtype), State(S, z)
    S, z = S + state.S, z + state.z
    out = phi_q @ S.unsqueeze(2) / (phi_q @ z[:, :, None, :, None] + eps)
    return out.flatten(1, 2).to(v.dtype), State(S, z)


def _rows(*tensors: Tensor) -> bool:
    return all(x.stride(-1) == 1 and x.numel() for x in tensors)


def _prepared(q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float) -> Any:
    """How a call on tensors like these is repeated, with no look at them, or None where one is needed."""
    if not _rows(q, k, v) or q.shape[2] != k.shape[2]:
        return None
    repeated = repeated_training if differentiated(q, k, v) else repeated_inference
    return repeated(q, k, v, causal, phi, eps, PRECISION[q.dtype])


def _prepared_step(
    q: Tensor, k: Tensor, v: Tensor, state: State, phi: str, eps: float, in_place: bool
) -> Any:
    """How a step on tensors like these is repeated, with no look at them, or None where one is needed."""
    if differentiated(q, k, v, *state) or not _rows(q, k, v) or not serves_step(q, k, *state):
        return None
    return repeated_step(q, k, v, state, phi, eps, in_place)


def _shared(
    q: Tensor, k: Tensor, v: Tensor, exchange: Exchange, *, causal: bool, phi: str, eps: float
) -> Tensor:
    """The output of tokens of a sequence that ranks share: see ``linear_triton_shared``."""
    q, k, v, precision = _served(q, k, v, None)
    return linear_triton_shared(q, k, v, exchange, causal=causal, phi=phi, eps=eps, precision=precision)


def _prepared_shared(q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float) -> Any:
    """How a call of ranks on tensors like these is repeated, or None where they need a look."""
    return repeated_shared(q, k, v, causal, phi, eps, PRECISION[q.dtype]) if _rows(q, k, v) else None


_shared.prepared = _prepared_shared  # type: ignore[attr-defined]
linear_triton.unchecked.prepared = _prepared  # type: ignore[attr-defined]
linear_triton.unchecked.shared = _shared  # type: ignore[attr-defined]
linear_triton_step.prepared = _prepared_step  # type: ignore[attr-defined]
register_kernel(
    NAME, linear_triton, costs=of_forms(triton_costs, steps=True), supports=supports, step=linear_triton_step
)
