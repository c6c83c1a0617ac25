"""The oracle of standard attention, written like the equation."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def standard_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """o_i = sum_j exp(s_ij) v_j / sum_j exp(s_ij), s = scale QK', over j <= i where causal.

    ``[B, H, N, D]``, ``[B, H, N, D]``, ``[B, H, N, Dv]`` -> ``[B, H, N, Dv]`` in ``dtype``.
    """
    q, k, v = (x.to(dtype) for x in (q, k, v))
    scores = torch.einsum("bhid,bhjd->bhij", q, k) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if causal:
        position = torch.arange(q.shape[2], device=q.device)
        scores = scores.where(position[:, None] >= position, -math.inf)
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return torch.einsum("bhij,bhjd->bhid", weights / weights.sum(-1, keepdim=True), v)
