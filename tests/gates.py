"""Gates of linear attention with decay, as tests give them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gates(kind: str, noise: Tensor) -> Tensor:
    """Natural logarithms of what is kept, of a kind, in the shape of normal noise."""
    return {
        "mild": torch.nn.functional.logsigmoid(noise) / 16,
        "none": torch.zeros_like(noise),
        "strong": torch.full_like(noise, -50.0),
        "growing": noise.abs() / 50,
        "mixed": torch.where(noise > 1, -50.0, -noise.abs() / 20),
        "resets": torch.where(noise > 1.5, -math.inf, -noise.abs() / 20),
    }[kind]
