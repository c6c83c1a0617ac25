"""Calls of linear-triton like an earlier one: launches alone, with no look at the tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attention.kernels.autograd import Operator
from attention.kernels.layouts import contiguous_output, output_maker, unit_stride
from attention.kernels.linear_triton.gradients import triton_differentiable
from attention.kernels.linear_triton.launches import Launches
from attention.kernels.linear_triton.operator import KEPT, gradients_of_all, infer, keep_for_backward
from attention.kernels.linear_triton.plan_cache import launches
from attention.kernels.triton_common.plan import begin_aligned
from attention.torch_internals.dispatcher import needs_dispatcher
from attention.torch_internals.transforms import fast_apply, transformed


def repeated_inference(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, precision: str
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The operator of aligned tensors like these, with no look at them."""
    run, new_output = launches(q, k, v, causal, phi, precision, eps=eps), output_maker(q, v)

    def again(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = new_output(v)
        run.taped("inference", (q, k, v, out), infer)
        return out

    return again


class Again(torch.autograd.Function):
    """A call like an earlier one, with its gradients, while no transform of torch's is active."""

    @staticmethod
    def forward(ctx: Any, run: Launches, again: _Training, *x: Tensor) -> Tensor:
        q, _, v = x
        out = contiguous_output(q, v)
        ctx.save_for_backward(*x, out, *run.taped("forward", (*x, out), keep_for_backward)[:3])
        ctx.again = again
        ctx.set_materialize_grads(False)
        return out

    @staticmethod
    def backward(ctx: Any, do: Tensor | None) -> tuple[Tensor | None, ...]:
        if do is None:
            return (None,) * 5
        again: _Training = ctx.again
        if torch.is_grad_enabled() or transformed() or needs_dispatcher(do):
            gradients: Operator = triton_differentiable.gradients  # type: ignore[attr-defined]
            return None, None, *gradients(do, *ctx.saved_tensors, *again.options)
        do = unit_stride(do)
        tensors = do, *ctx.saved_tensors
        return None, None, *gradients_of_all(again.backward_of(*tensors), *tensors)


class _Training:
    """The options of a call, and how its backward is repeated, by how its tensors lie.

    Hooks on saved tensors may give back others, which lie in another way than those of the forward.
    """

    def __init__(self, causal: bool, phi: str, eps: float, precision: str) -> None:
        self.options = causal, phi, eps, precision, None
        self._launches: dict[tuple[Any, ...], Launches] = {}

    def backward_of(self, do: Tensor, q: Tensor, k: Tensor, v: Tensor, *kept: Tensor) -> Launches:
        """The launches of a backward on these tensors, as they were planned for an earlier one like it."""
        tensors = do, q, k, v, *kept
        alike = (*[x.stride() for x in tensors], begin_aligned(tensors))
        found = self._launches.get(alike)
        if found is None:
            causal, phi, _, precision, _ = self.options
            found = launches(q, k, v, causal, phi, precision, others=(do, *kept), names=KEPT)
            self._launches[alike] = found
        return found


_again = fast_apply(Again)


def repeated_training(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, precision: str
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The operator of aligned tensors like these, with its gradients, with no look at them."""
    run = launches(q, k, v, causal, phi, precision, eps=eps)
    training = _Training(causal, phi, eps, precision)

    def again(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out: Tensor = _again(run, training, q, k, v)
        return out

    return again
