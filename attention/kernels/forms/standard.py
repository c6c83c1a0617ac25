"""All forms of standard attention out of its core, which each kernel has its own of.

A core is ``core(q, k, v, *, causal, scale, padding)``: q ``[B, Hq, Nq, D]``, k ``[B, Hkv, Nk, D]``, v ``[B,
Hkv, Nk, Dv]`` with a key for each query at least: where causal, Nq is at most Nk, and the mask is aligned at
the end. ``padding [B, Nk]`` marks ignored keys, which are zeros by then, as are their values; or it is None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn.functional import pad

from attention.kernels.forms.linear import by_key_heads
from attention.kernels.forms.masks import check_packed, check_padding, sequences

Core = Callable[..., Tensor]


class StandardOptions(TypedDict, total=False):
    """What kernels of standard attention take beside q, k and v.

    ``causal``: whether query i sees only the keys up to i + Nk - Nq. ``scale``: of the scores, 1/sqrt(D)
    unless given. ``key_padding_mask`` ``[B, Nk]``: True where a key is ignored. ``cu_seqlens``: where packed
    sequences begin, and the last ends.
    """

    causal: bool
    scale: float | None
    key_padding_mask: Tensor | None
    cu_seqlens: Tensor | None


def attend(
    core: Core,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    key_padding_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    packed: Core | None = None,
) -> Tensor:
    """The output ``[B, Hq, Nq, Dv]`` in any form; 0 for a query that sees no key.

    Args:
        core: The kernel's.
        q: queries ``[B, Hq, Nq, D]``.
        k: keys ``[B, Hkv, Nk, D]``.
        v: values ``[B, Hkv, Nk, Dv]``.
        causal: as in :class:`StandardOptions`, like the others.
        scale: of the scores.
        key_padding_mask: what to ignore.
        cu_seqlens: of packed sequences.
        packed: ``packed(q, k, v, cu_seqlens, *, causal, scale)`` where the kernel has one for packed
            sequences; without it they are computed one by one.

    Raises:
        TypeError: a mask or ends of another kind.
        ValueError: the same of other shapes, or padding of packed sequences.
    """
    if cu_seqlens is not None:
        if key_padding_mask is not None:
            raise ValueError("packed sequences have no padding; give cu_seqlens or key_padding_mask")
        ends = check_packed(cu_seqlens, q, k)
        if packed is not None and q.numel() and len(ends) > 1:
            return packed(q, k, v, ends, causal=causal, scale=scale)
        return _one_by_one(core, q, k, v, sequences(ends, q.shape[2]), causal, scale)
    if key_padding_mask is None:
        return _aligned(core, q, k, v, causal, scale, None)
    ignored = check_padding(key_padding_mask, k)[:, None, :, None]
    k, v = k.masked_fill(ignored, 0), v.masked_fill(ignored, 0)
    return _aligned(core, q, k, v, causal, scale, key_padding_mask)


def _aligned(
    core: Core, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float | None, padding: Tensor | None
) -> Tensor:
    """Where causal, the last query sees the last key: of more queries the first see none."""
    blind = q.shape[2] - k.shape[2]
    if causal and blind > 0:
        return pad(_aligned(core, q[:, :, blind:], k, v, causal, scale, padding), (0, 0, blind, 0))
    if 0 in (*q.shape[:3], k.shape[2]):
        return _nothing(q, k, v)
    return core(q, k, v, causal=causal and q.shape[2] > 1, scale=scale, padding=padding)


def _nothing(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The output without any pair of a query and a key: zeros, part of the graph of derivatives."""
    rows = by_key_heads(q, k.shape[1]).flatten(2, 3) @ k.mT
    return (rows @ v).view(*q.shape[:3], v.shape[3])


def _one_by_one(
    core: Core, q: Tensor, k: Tensor, v: Tensor, places: list[slice], causal: bool, scale: float | None
) -> Tensor:
    if not places:
        return _nothing(q, k, v)
    # Split, not sliced: the gradient of a slice is as large as the whole.
    lengths = [place.stop - place.start for place in places]
    each = zip(*(torch.split(x, lengths, 2) for x in (q, k, v)), strict=True)
    return torch.cat([_aligned(core, x, y, z, causal, scale, None) for x, y, z in each], 2)
