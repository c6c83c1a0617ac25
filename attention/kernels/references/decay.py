"""The oracle of linear attention with decay, written like the recurrence."""

from __future__ import annotations

import torch
from torch import Tensor

from attention.kernels.feature_maps import FeatureMap, get_feature_map


def decay_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    causal: bool = True,
    feature_map: str | FeatureMap = "elu",
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """The recurrence, a token at a time: S = exp(g) S + phi(k)v', o = phi(q)S.

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]``, g ``[B, H, N]`` -> ``[B, H, N, Dv]`` in ``dtype``.

    Raises:
        ValueError: not causal.
    """
    if not causal:
        raise ValueError("linear attention with decay is causal only; pass causal=True")
    phi = get_feature_map(feature_map)
    q, k, v, kept = phi(q.to(dtype)), phi(k.to(dtype)), v.to(dtype), g.to(dtype).exp()
    S = q.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1])
    outputs = [v.new_zeros(*v.shape[:2], 0, v.shape[-1])]
    # Taken apart at once: an index a token would have a gradient as large as all of them.
    for query, key, value, keep in zip(*(x.unbind(2) for x in (q, k, v, kept)), strict=True):
        S = keep[..., None, None] * S + key[..., :, None] * value[..., None, :]
        outputs.append(query[:, :, None] @ S)
    return torch.cat(outputs, dim=2)
