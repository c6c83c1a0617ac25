"""The gradients of linear-triton: of any order without a state, of the first order with one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attention.kernels.autograd import Operator, differentiable, once_differentiable, refuse
from attention.kernels.derivatives import Function, NormalisedSums, PackedSums
from attention.kernels.layouts import unit_stride
from attention.kernels.linear_triton.operator import triton_forward, triton_gradients
from attention.torch_internals.transforms import fast_apply

STATEFUL = "linear-triton with a state"
_forward: Operator = triton_forward
_gradients: Operator = triton_gradients


def _without_state(*arguments: Any) -> tuple[Tensor, ...]:
    """The output of q, k, v, causal, phi, eps, precision and ends, and what its backward wants."""
    return _forward(*arguments[:3], None, None, *arguments[3:], False, True)[:4]


def _gradients_without_state(*arguments: Any) -> tuple[Tensor, ...]:
    *tensors, causal, phi, _, precision, cu_seqlens = arguments
    return _gradients(*tensors, None, None, None, None, causal, phi, precision, cu_seqlens, False)[:3]


def _function(causal: bool, phi: str, eps: float, _: str, cu_seqlens: Tensor | None) -> Function:
    one = NormalisedSums(causal, phi, eps)
    return one if cu_seqlens is None else PackedSums(one, cu_seqlens)


triton_differentiable = differentiable(
    "attention::linear_triton_inference",
    _without_state,
    _gradients_without_state,
    batch_dims=(0, 0, 0, 0),
    function=_function,
)


class FromState(torch.autograd.Function):
    """The operator from an initial state to a final one, with its gradients."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return _forward(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        q, k, v, S0, z0, *ctx.options, keep = inputs
        ctx.save_for_backward(q, k, v, S0, z0, *(output[:4] if keep else ()))
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, do: Tensor | None, *others: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, S0, z0, *kept = ctx.saved_tensors
        causal, phi, _, precision, cu_seqlens, final = ctx.options
        out, *sums = kept or _forward(q, k, v, S0, z0, *ctx.options, True)[:4]
        do = torch.zeros_like(out) if do is None else unit_stride(do)
        dS, dz = _gradients_of_end(k, v, others[3:]) if final else (None, None)
        dq, dk, dv, dS0, dz0 = gradients_from_state(
            do, q, k, v, out, *sums, S0, z0, dS, dz, causal, phi, precision, cu_seqlens, final
        )
        initial = (None, None) if S0 is None else (dS0, dz0)
        return dq, dk, dv, *initial, *(None,) * 7

    jvp = vmap = refuse(STATEFUL)


def _gradients_of_end(k: Tensor, v: Tensor, given: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Gradients dS and dz, zeros for those that nobody differentiates."""
    shape = k.shape[0] * k.shape[1], k.shape[-1], v.shape[-1]
    return tuple(
        k.new_zeros(size, dtype=torch.float32) if x is None else x.contiguous()
        for x, size in zip(given, (shape, shape[:2]), strict=True)
    )


_from_state = fast_apply(FromState)
gradients_from_state = once_differentiable(triton_gradients, STATEFUL)
torch.library.register_autograd(
    "attention::linear_triton", FromState.backward, setup_context=FromState.setup_context
)


def triton_from_state(*arguments: Any) -> tuple[Tensor, ...]:
    """The operator with its gradients; a compiler sees the operator alone."""
    results: tuple[Tensor, ...] = (_forward if torch.compiler.is_compiling() else _from_state)(
        *arguments, True
    )
    return results
