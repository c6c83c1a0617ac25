"""The oracle of linear attention, written like the recurrence."""

from __future__ import annotations

import torch
from torch import Tensor

from attention.kernels.feature_maps import FeatureMap, get_feature_map


def linear_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-6,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """The recurrence, a token at a time: S += phi(k)v', z += phi(k), o = phi(q)S / (phi(q).z + eps).

    Bidirectional, every token reads the last state. Shapes: q, k ``[B, H, N, D]``,
    v ``[B, H, N, Dv]`` -> ``[B, H, N, Dv]`` in ``dtype``.
    """
    phi = get_feature_map(feature_map)
    q, k, v = phi(q.to(dtype)), phi(k.to(dtype)), v.to(dtype)
    S = q.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1])
    z = q.new_zeros(*k.shape[:2], k.shape[-1])

    def read(queries: Tensor) -> Tensor:
        num = torch.einsum("bhnd,bhde->bhne", queries, S)
        den = torch.einsum("bhnd,bhd->bhn", queries, z)
        return num / (den + eps)[..., None]

    outputs = []
    # Taken apart at once: an index a token would have a gradient as large as all of them.
    for query, key, value in zip(q.unbind(2), k.unbind(2), v.unbind(2), strict=True):
        S = S + key[..., :, None] * value[..., None, :]
        z = z + key
        if causal:
            outputs.append(read(query[:, :, None]))
    return torch.cat(outputs, dim=2) if outputs else read(q)
