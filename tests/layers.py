"""Sizes, inputs and masks of the layers that tests build."""

from __future__ import annotations

import torch
from torch import Tensor

LINEAR = ("linear", "linear-explicit", "linear-chunked")
WIDTH, HEADS = 32, 4


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def right_padding(lengths: tuple[int, ...], most: int) -> Tensor:
    return torch.arange(most) >= torch.tensor(lengths)[:, None]


def causal_mask(n: int) -> Tensor:
    return torch.ones(n, n, dtype=torch.bool).triu(1)
