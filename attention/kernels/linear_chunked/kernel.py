"""The kernel ``linear-chunked``: linear attention by chunks in plain torch."""

from __future__ import annotations

from torch import Tensor

from attention.kernels.blocks import default_chunk_size
from attention.kernels.feature_maps import FeatureMap, mapped_before
from attention.kernels.linear_chunked.costs import chunked_costs
from attention.kernels.linear_chunked.operator import chunked_differentiable, chunked_forward
from attention.kernels.registry import register_kernel
from attention.kernels.tensors import checked, differentiated


@checked("linear-chunked")
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
    """phi(q)S / (phi(q).z + eps) by chunks of the sequence: memory O(N D), time O(N D (D + chunk_size)).

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]`` -> ``[B, H, N, Dv]``; any N. float16 and bfloat16 are
    summed in float32. Gradients need O(N D) memory as well. A callable as feature map is applied before,
    outside the chunks, so that gradients reach whatever parameters it holds. Tangents and second derivatives
    are computed in plain torch.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together, or a chunk size below 1.
    """
    dtype = v.dtype
    q, k, v, name = mapped_before(feature_map, q, k, v)
    if chunk_size is None:
        chunk_size = default_chunk_size(q.shape[-1], causal=causal)
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    out: Tensor
    if differentiated(q, k, v):
        out = chunked_differentiable(q, k, v, causal, name, eps, chunk_size)[0]
    else:
        out = chunked_forward(q, k, v, causal, name, eps, chunk_size, False)[0]
    return out.to(dtype)


register_kernel("linear-chunked", linear_chunked, costs=chunked_costs)
