"""How operators of this package join torch's autograd: cheaply, and once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Operator = Callable[..., tuple[Tensor, ...]]


def once_differentiable(backward: Operator, kernel: str) -> Operator:
    """The backward, which says that it has no gradients itself: torch alone would take them for zero."""

    class Gradients(torch.autograd.Function):
        @staticmethod
        def forward(*arguments: Any) -> tuple[Tensor, ...]:
            return backward(*arguments)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, *_: Tensor) -> None:
            raise RuntimeError(f"{kernel} can be differentiated once: its gradients have none")

    guarded: Operator = Gradients.apply

    def gradients(*arguments: Any) -> tuple[Tensor, ...]:
        # Gradients are recorded only to be differentiated. A compiler does so once, and cannot trace one
        # Function within another.
        recorded = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        return (guarded if recorded else backward)(*arguments)

    return gradients


def applied(function: type[torch.autograd.Function]) -> Operator:
    """``function.apply``; where nothing transforms it, without what that does for transforms.

    It binds the arguments to the signature anew at each call, which takes as long as two launches.
    """
    bare: Operator = super(torch.autograd.Function, function).apply  # type: ignore[misc]
    full: Operator = function.apply

    def apply(*arguments: Any) -> tuple[Tensor, ...]:
        transformed = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
        return (full if transformed else bare)(*arguments)

    return apply
