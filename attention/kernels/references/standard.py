"""The oracle of standard attention, written like the equation."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor


def standard_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    key_padding_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """o_i = sum_j exp(s_ij) v_j / sum_j exp(s_ij), s = scale QK', over the keys j that query i sees.

    Those are j <= i + Nk - Nq where causal, of them none where ``key_padding_mask [B, Nk]`` is True, and of
    packed sequences (``cu_seqlens``) none of another sequence. A query that sees no key gets 0.

    ``[B, Hq, Nq, D]``, ``[B, Hkv, Nk, D]``, ``[B, Hkv, Nk, Dv]`` -> ``[B, Hq, Nq, Dv]`` in ``dtype``.
    """
    group, queries, keys = q.shape[1] // k.shape[1], q.shape[2], k.shape[2]
    q, k, v = (x.to(dtype) for x in (q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)))
    seen = torch.ones(q.shape[0], 1, queries, keys, dtype=torch.bool, device=q.device)
    position = torch.arange(keys, device=q.device)
    if causal:
        last = torch.arange(queries, device=q.device)[:, None] + keys - queries
        seen = seen & (position <= last)
    if key_padding_mask is not None:
        ignored = key_padding_mask[:, None, :, None]
        k, v, seen = k.masked_fill(ignored, 0), v.masked_fill(ignored, 0), seen & ~ignored.mT
    if cu_seqlens is not None:
        sequence = torch.zeros_like(position)
        for number, (start, stop) in enumerate(pairwise(cu_seqlens.tolist())):
            sequence[start:stop] = number
        seen = seen & (sequence[:, None] == sequence)
    scores = torch.einsum("bhid,bhjd->bhij", q, k) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    scores = scores.where(seen, -math.inf)
    if keys:  # subtracted, the largest score changes no quotient
        scores = scores - scores.detach().amax(-1, keepdim=True).clamp(min=torch.finfo(dtype).min)
    weights = scores.exp()
    sums = weights.sum(-1, keepdim=True)
    return torch.einsum("bhij,bhjd->bhid", weights / sums.where(sums > 0, 1), v)
