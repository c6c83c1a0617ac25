"""How a backward of this package says that it can be differentiated no further."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Operator = Callable[..., tuple[Tensor, ...]]


def once_differentiable(backward: Operator, kernel: str) -> Operator:
    """The backward, which refuses to be differentiated: torch alone would take its gradients for zero."""

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
