"""Inputs of sliding-window attention, and what the oracle makes of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attention import Case, make_inputs
from attention.kernels.references import window_reference


def inputs_of(seq_len: int, dtype: str, device: str, phase: str = "forward", **shape: int) -> list[Tensor]:
    # Equal numbers, as of heads and batches, are one to torch's compiler, which compiles others once more.
    sizes: dict[str, Any] = {"batch": 2, "heads": 3, "head_dim": 16} | shape
    return list(make_inputs(Case("window-sdpa", "causal", seq_len, phase, device, dtype, **sizes)))


def exact(inputs: list[Tensor], window: int, grad: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The oracle's output, and its gradients."""
    leaves = [x.detach().double().requires_grad_() for x in inputs]
    out = window_reference(*leaves, window=window)
    return out.detach(), () if grad is None else torch.autograd.grad(out, leaves, grad.double())
