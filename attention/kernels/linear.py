"""Linear attention, phi(Q)(phi(K)'V): the textbook form, and by chunks."""

from __future__ import annotations

import torch
from torch import Tensor

from attention.kernels import costs
from attention.kernels.chunked import default_chunk_size
from attention.kernels.chunked_operator import chunked_forward
from attention.kernels.feature_maps import FeatureMap, get_feature_map, mapped_before
from attention.kernels.registry import register_kernel
from attention.kernels.tensors import differentiated


def linear_explicit(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-6,
) -> Tensor:
    """O = phi(q) S / (phi(q) . z + eps), S = sum phi(k) v', z = sum phi(k) (Katharopoulos et al. 2020).

    Causal: S and z are running sums over the sequence, N x D x Dv in memory.

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]`` -> ``[B, H, N, Dv]``. float16 and bfloat16
    are computed in float32, because sums over a sequence do not survive their 8 or 11 bits.
    """
    phi = get_feature_map(feature_map)
    wide = torch.promote_types(q.dtype, torch.float32)
    phi_q, phi_k, values = phi(q.to(wide)), phi(k.to(wide)), v.to(wide)
    if causal:
        state = (phi_k.unsqueeze(-1) * values.unsqueeze(-2)).cumsum(dim=-3)
        num = (phi_q.unsqueeze(-2) @ state).squeeze(-2)
        den = (phi_q * phi_k.cumsum(dim=-2)).sum(dim=-1, keepdim=True)
    else:
        num = phi_q @ (phi_k.mT @ values)
        den = phi_q @ phi_k.sum(dim=-2).unsqueeze(-1)
    return (num / (den + eps)).to(v.dtype)


def linear_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-6,
    chunk_size: int | None = None,
) -> Tensor:
    """The same function by chunks of the sequence: memory O(N D), time O(N D (D + chunk_size)).

    Shapes and dtypes as in :func:`linear_explicit`; any N. Gradients need O(N D) memory as well.
    A callable as feature map is applied before, outside the chunks, so that gradients reach
    whatever parameters it holds. Differentiable once, in reverse mode: forward-mode tangents are not
    carried.

    Raises:
        ValueError: a chunk size below 1.
    """
    dtype = v.dtype
    q, k, v, name = mapped_before(feature_map, q, k, v)
    if chunk_size is None:
        chunk_size = default_chunk_size(q.shape[-1], causal=causal)
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    out: Tensor = chunked_forward(q, k, v, causal, name, eps, chunk_size, differentiated(q, k, v))[0]
    return out.to(dtype)


register_kernel("linear-explicit", linear_explicit, costs=costs.linear_explicit)
register_kernel("linear-chunked", linear_chunked, costs=costs.linear_chunked)
