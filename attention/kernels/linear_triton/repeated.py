"""Calls of linear-triton like an earlier one: launches alone, with no look at the tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attention.kernels.autograd import Operator
from attention.kernels.linear_triton.gradients import triton_differentiable
from attention.kernels.linear_triton.launches import Launches
from attention.kernels.linear_triton.operator import infer, keep_for_backward
from attention.kernels.linear_triton.planned import launches
from attention.kernels.tensors import contiguous_output
from attention.torch_internals import fast_apply


def repeated_inference(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, precision: str
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The operator of aligned tensors like these, with no look at them."""
    run = launches(q, k, v, causal, phi, precision, eps=eps)

    def again(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = contiguous_output(q, v)
        run.taped("inference", (q, k, v, out), infer)
        return out

    return again


class Again(torch.autograd.Function):
    """A call like an earlier one, with its gradients, while no transform of torch's is active."""

    @staticmethod
    def forward(ctx: Any, run: Launches, options: tuple[Any, ...], *x: Tensor) -> Tensor:
        q, _, v = x
        out = contiguous_output(q, v)
        ctx.save_for_backward(*x, out, *run.taped("forward", (*x, out), keep_for_backward)[:3])
        ctx.options = options
        ctx.set_materialize_grads(False)
        return out

    @staticmethod
    def backward(ctx: Any, do: Tensor | None) -> tuple[Tensor | None, ...]:
        if do is None:
            return (None,) * 5
        gradients: Operator = triton_differentiable.gradients  # type: ignore[attr-defined]
        return None, None, *gradients(do, *ctx.saved_tensors, *ctx.options)


_again = fast_apply(Again)


def repeated_training(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, precision: str
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The operator of aligned tensors like these, with its gradients, with no look at them."""
    run = launches(q, k, v, causal, phi, precision, eps=eps)
    options = causal, phi, eps, precision, None

    def again(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out: Tensor = _again(run, options, q, k, v)
        return out

    return again
