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
from attention.torch_internals.dispatcher import needs_dispatcher, observed
from attention.torch_internals.likeness import like
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


MOST_BACKWARDS = 8
"""How many backwards of a call are kept, which differ by how their tensors lie."""


def _keep(run: Launches, *x: Tensor) -> tuple[Tensor, ...]:
    """What a backward wants; the empty sums of the end, which only an operator must return, are not made."""
    return keep_for_backward(run, *x)[:3]


class Again(torch.autograd.Function):
    """A call like an earlier one, with its gradients, while no transform of torch's is active."""

    @staticmethod
    def forward(ctx: Any, run: Launches, again: _Training, *x: Tensor) -> Tensor:
        q, _, v = x
        out = contiguous_output(q, v)
        ctx.save_for_backward(*x, out, *run.taped("training", (*x, out), _keep))
        ctx.again = again
        ctx.set_materialize_grads(False)
        return out

    @staticmethod
    def backward(ctx: Any, do: Tensor | None) -> tuple[Tensor | None, ...]:
        if do is None:
            return (None,) * 5
        again: _Training = ctx.again
        saved = ctx.saved_tensors
        plain = not (torch.is_grad_enabled() or transformed() or observed())
        run = again.recalled(do, *saved) if plain else None
        if run is None:
            if not plain or needs_dispatcher(do):
                gradients: Operator = triton_differentiable.gradients  # type: ignore[attr-defined]
                return None, None, *gradients(do, *saved, *again.options)
            do = unit_stride(do)
            run = again.recalled(do, *saved) or again.learned(do, *saved)
        return None, None, *gradients_of_all(run, do, *saved)


class _Training:
    """The options of a call, and how its backward is repeated on tensors like those of an earlier one.

    Hooks on saved tensors may give back others, which lie in another way than those of the forward.
    """

    def __init__(self, causal: bool, phi: str, eps: float, precision: str) -> None:
        self.options = causal, phi, eps, precision, None
        self._launches: tuple[tuple[Callable[..., bool], Launches], ...] = ()

    def recalled(self, *tensors: Tensor) -> Launches | None:
        """The launches of a backward on tensors like these, or None where there was none."""
        for alike, run in self._launches:
            if alike(*tensors):
                return run if begin_aligned(tensors) else None
        return None

    def learned(self, do: Tensor, q: Tensor, k: Tensor, v: Tensor, *kept: Tensor) -> Launches:
        """The launches of a backward, which is recalled from now on."""
        causal, phi, _, precision, _ = self.options
        run = launches(q, k, v, causal, phi, precision, others=(do, *kept), names=KEPT)
        tensors = do, q, k, v, *kept
        if begin_aligned(tensors) and (alike := like(*tensors)):
            self._launches = ((alike, run), *self._launches[: MOST_BACKWARDS - 1])
        return run


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
