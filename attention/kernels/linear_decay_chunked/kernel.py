"""The kernel ``linear-decay-chunked``: linear attention with decay by chunks in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from attention.kernels.blocks import default_chunk_size
from attention.kernels.feature_maps import FeatureMap, mapped_before
from attention.kernels.gates import causal_only, check_causal, check_gates, make_gates
from attention.kernels.linear_decay_chunked.costs import chunked_costs
from attention.kernels.linear_decay_chunked.operator import NAME, chunked_differentiable, chunked_forward
from attention.kernels.registry import register_kernel
from attention.kernels.tensors import checked, differentiated


@checked(NAME)
def linear_decay_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    g: Tensor,
    causal: bool = True,
    feature_map: str | FeatureMap = "elu",
    chunk_size: int | None = None,
) -> Tensor:
    """O = phi(q)S, S = exp(g) S + phi(k)v', by chunks: memory O(N D), time O(N D (D + chunk_size)).

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]``, g ``[B, H, N]`` (float32 or the dtype of q; natural
    logarithms of what is kept, -inf forgets all) -> ``[B, H, N, Dv]``; any N. float16 and bfloat16 are
    computed in float32. Gradients need O(N D) memory as well. A callable as feature map is applied before.
    Tangents and second derivatives are computed in plain torch. The chunked form is that of Mamba-2 (Dao and
    Gu 2024, section 6) and GLA (Yang et al. 2024, section 4).

    Raises:
        TypeError: gates that are no dense tensor.
        ValueError: shapes, dtypes or devices that do not fit together, a mode that is not causal, or a chunk
            size below 1.
    """
    check_causal(NAME, causal)
    check_gates(NAME, q, g)
    dtype = v.dtype
    q, k, v, name = mapped_before(feature_map, q, k, v)
    g = g.to(torch.promote_types(q.dtype, torch.float32))
    if chunk_size is None:
        chunk_size = default_chunk_size(q.shape[-1], causal=True)
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    out: Tensor
    if differentiated(q, k, v, g):
        out = chunked_differentiable(q, k, v, g, name, chunk_size)[0]
    else:
        out = chunked_forward(q, k, v, g, name, chunk_size, False)[0]
    return out.to(dtype)


register_kernel(
    NAME,
    linear_decay_chunked,
    reference="decay",
    costs=chunked_costs,
    supports=causal_only,
    make_inputs=make_gates,
)
