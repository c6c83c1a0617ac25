"""Functions of attention as users have them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import elu

EPS = 1e-6


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    scores = q @ k.mT / q.shape[-1] ** 0.5
    scores = scores.masked_fill(_later(q), -torch.inf) if causal else scores
    return torch.softmax(scores, -1) @ v


def window_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    place = torch.arange(q.shape[2])
    far = place[:, None] - place >= window
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return torch.softmax(scores.masked_fill(_later(q) | far, -torch.inf), -1) @ v


def relu_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    return _normalised(q.relu() @ k.relu().mT, v, causal)


def elu_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    return _normalised((elu(q) + 1) @ (elu(k) + 1).mT, v, causal)


def _normalised(weights: Tensor, v: Tensor, causal: bool) -> Tensor:
    weights = weights.tril() if causal else weights
    return weights @ v / (weights.sum(-1, keepdim=True) + EPS)


def _later(q: Tensor) -> Tensor:
    return torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
