"""The kernel ``linear-chunked``: linear attention by chunks in plain torch."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor

from attention.kernels.blocks import default_chunk_size
from attention.kernels.forms.costs import of_forms
from attention.kernels.forms.linear import LinearOptions, attend, begun
from attention.kernels.linear_chunked.costs import chunked_costs
from attention.kernels.linear_chunked.operator import (
    chunked_differentiable,
    chunked_forward,
    chunked_with_state,
    chunked_with_state_differentiable,
)
from attention.kernels.registry import register_kernel
from attention.kernels.tensors import checked, differentiated
from attention.state import State


@checked("linear-chunked", plain=False)
def linear_chunked(
    q: Tensor, k: Tensor, v: Tensor, *, chunk_size: int | None = None, **options: Unpack[LinearOptions]
) -> Any:
    """phi(q)S / (phi(q).z + eps) by chunks of the sequence: memory O(N D), time O(N D (D + chunk_size)).

    Tensors and options as of ``attention.linear_attention``; any lengths. float16 and bfloat16 are
    summed in float32. Gradients need O(N D) memory as well. A callable as feature map is applied before,
    outside the chunks, so that gradients reach whatever parameters it holds. Tangents and second derivatives
    are computed in plain torch.

    Raises:
        TypeError: a mask, ends or a state of another kind.
        ValueError: shapes, dtypes or devices that do not fit together, or a chunk size below 1.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    return attend(_chunked, q, k, v, chunk_size=chunk_size, **options)


def _chunked(
    q: Tensor, k: Tensor, v: Tensor, state: State | None, *, causal: bool, final: bool, phi: str, eps: float,
    chunk_size: int | None,
) -> tuple[Tensor, State | None]:  # fmt: skip
    if chunk_size is None:
        chunk_size = default_chunk_size(q.shape[-1], causal=causal)
    options = causal, phi, eps, chunk_size
    if state is None and not final:
        if differentiated(q, k, v):
            return chunked_differentiable(q, k, v, *options)[0], None
        return chunked_forward(q, k, v, *options, False)[0], None
    tensors = (q, k, v, *begun(state, k, v))
    if differentiated(*tensors):
        out, S, z, *_ = chunked_with_state_differentiable(*tensors, *options)
    else:
        out, S, z, *_ = chunked_with_state(*tensors, *options, False)
    return out, State(S, z)


register_kernel("linear-chunked", linear_chunked, costs=of_forms(chunked_costs))
