"""The oracle of sliding-window attention, written like the equation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attention.inputs import WINDOW


def window_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    window: int = WINDOW,
    scale: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """o_i = sum_j exp(s_ij) v_j / sum_j exp(s_ij), s = scale QK', over the ``window`` keys i - w < j <= i.

    ``[B, H, N, D]``, ``[B, H, N, D]``, ``[B, H, N, Dv]`` -> ``[B, H, N, Dv]`` in ``dtype``.

    Raises:
        ValueError: ``causal=False``, which a window is not.
    """
    if not causal:
        raise ValueError("a sliding window is causal only; ask for causal=True")
    q, k, v = (x.to(dtype) for x in (q, k, v))
    scores = torch.einsum("bhid,bhjd->bhij", q, k) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    position = torch.arange(q.shape[2], device=q.device)
    distance = position[:, None] - position
    scores = scores.where((distance >= 0) & (distance < window), -math.inf)
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return torch.einsum("bhij,bhjd->bhid", weights / weights.sum(-1, keepdim=True), v)
