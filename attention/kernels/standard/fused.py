"""Forms that torch's ``scaled_dot_product_attention`` does not have, out of calls that it serves.

- Heads of queries that share keys: torch's ``enable_gqa`` where a backend reads shared keys in place. Else
  the heads of a group are rows of one head, or go one after another where each has its own causal mask.
- Causal, fewer queries than keys: torch aligns ``is_causal`` at the start. On CUDA its ``causal_lower_right``
  is aligned at the end; elsewhere each block of queries has a mask, so that memory grows like Nk.
- Padding: a mask of the keys, and where causal one for each block of queries.
- Packed sequences: torch's ``varlen_attn`` on CUDA where it serves them, else one by one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from inspect import signature
from itertools import pairwise
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from attention.kernels.forms.linear import by_key_heads
from attention.kernels.forms.masks import hidden, never_all, values_of
from attention.torch_internals.transforms import transformed

HALVES = (torch.bfloat16, torch.float16)
BLOCK = 256
"""Rows of a block that has a mask of its own."""
ALIGNING = (None, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
"""Backends of CUDA, torch's choice among them, that have a causal mask aligned at the end."""
MASKING = (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
"""Backends of CUDA behind a mask. cuDNN's plans each number of keys anew, and returns NaN for the gradient of
some lengths (pytorch issue 196678)."""


def core(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    scale: float | None,
    padding: Tensor | None,
    pinned: SDPBackend | None = None,
) -> Tensor:
    """A core of :mod:`attention.kernels.forms.standard`, by the backend that is pinned or torch's choice."""
    if not causal and padding is None:
        if q.shape[2] == 1 or not reads_shared_keys(q, v, pinned):
            return _as_rows(q, k, v, None, scale, pinned)
        return _unmasked(q, k, v, pinned, scale=scale)
    if not causal:
        unseen = hidden(1, k.shape[2], causal=False, device=k.device, padding=padding)
        return _as_rows(q, k, v, ~never_all(unseen), scale, pinned)
    if padding is None and q.shape[2] == k.shape[2]:
        return _unmasked(q, k, v, pinned, is_causal=True, scale=scale)
    if padding is None and aligns_at_the_end(q, pinned):
        # Imported here, as it imports torch's whole compiler.
        from torch.nn.attention.bias import causal_lower_right

        mask = causal_lower_right(q.shape[2], k.shape[2])
        return _unmasked(q, k, v, pinned, attn_mask=mask, scale=scale)
    return _by_blocks(q, k, v, padding, scale, pinned)


def reads_shared_keys(q: Tensor, v: Tensor, pinned: SDPBackend | None) -> bool:
    """Whether the backend reads keys that several heads share where they are; others repeat them first."""
    if q.device.type == "cpu":
        return pinned is not SDPBackend.MATH and q.shape[3] == v.shape[3]
    if pinned is SDPBackend.CUDNN_ATTENTION:
        return True
    fits = q.dtype in HALVES and q.shape[3] == v.shape[3] <= 256
    return fits and pinned in (None, SDPBackend.FLASH_ATTENTION)


def aligns_at_the_end(q: Tensor, pinned: SDPBackend | None) -> bool:
    """Whether torch has a kernel for these queries whose causal mask is aligned at the end."""
    if torch.compiler.is_compiling() or transformed():
        return False
    return q.device.type == "cuda" and q.dtype != torch.float64 and pinned in ALIGNING


def _unmasked(q: Tensor, k: Tensor, v: Tensor, pinned: SDPBackend | None, **how: Any) -> Tensor:
    """One call, or one for each head of a group where the backend would repeat shared keys."""
    if q.shape[1] == k.shape[1]:
        return scaled_dot_product_attention(q, k, v, **how)
    if reads_shared_keys(q, v, pinned):
        return scaled_dot_product_attention(q, k, v, enable_gqa=True, **how)
    members = by_key_heads(q, k.shape[1]).unbind(2)
    return torch.stack([scaled_dot_product_attention(x, k, v, **how) for x in members], 2).flatten(1, 2)


def _as_rows(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, pinned: SDPBackend | None
) -> Tensor:
    """The heads that share keys as rows of one head; ``mask [1 or B, 1, rows or 1, Nk]`` is torch's."""
    group = q.shape[1] // k.shape[1]
    chosen: AbstractContextManager[Any] = nullcontext()
    if mask is not None and q.device.type == "cuda" and pinned is None and not torch.compiler.is_compiling():
        chosen = sdpa_kernel([backend for backend in MASKING if _enabled(backend)])
    rows = q if group == 1 else by_key_heads(q, k.shape[1]).flatten(2, 3)
    with chosen:
        out = scaled_dot_product_attention(rows, k, v, attn_mask=mask, scale=scale)
    if group == 1:
        return out
    batch, kv_heads, _, width = out.shape
    return out.reshape(batch, kv_heads, group, q.shape[2], width).flatten(1, 2)


def _by_blocks(
    q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None, scale: float | None, pinned: SDPBackend | None
) -> Tensor:
    """Causal, aligned at the end: each block of queries sees the keys up to that of its last query.

    Without padding the masks of all blocks are views of one, so that a backward keeps one. With padding it
    keeps one for each, a number for each query and key of a sequence, but not of a head.
    """
    group, keys = q.shape[1] // k.shape[1], k.shape[2]
    size = min(block_size(group), q.shape[2])
    unseen = hidden(size, keys, causal=True, device=q.device)
    whole = _added(unseen, group, q.dtype)
    seen, outputs = keys - q.shape[2], []
    for block in torch.split(q, size, 2):
        rows = block.shape[2]
        seen += rows
        # What a query sees depends on its distance from the end alone.
        mask = whole[..., keys - seen :]
        if padding is not None or rows < size:
            part = unseen[:, :, size - rows :, keys - seen :]
            part = part if padding is None else never_all(part | padding[:, None, None, :seen])
            mask = _added(part, group, q.dtype)
        outputs.append(_as_rows(block, k[:, :, :seen], v[:, :, :seen], mask, scale, pinned))
    return torch.cat(outputs, 2)


def _added(unseen: Tensor, group: int, dtype: torch.dtype) -> Tensor:
    """A mask as torch adds it to the scores: of bool it would make and keep one in each call."""
    mask = torch.zeros(unseen.shape, dtype=dtype, device=unseen.device).masked_fill_(unseen, -inf)
    return mask if group == 1 else mask.repeat(1, 1, group, 1)


def block_size(group: int) -> int:
    """Queries of a block, of which each stands for a group of rows."""
    return max(1, BLOCK // group)


def _enabled(backend: SDPBackend) -> bool:
    cuda: Any = torch.backends.cuda
    return bool(cuda.math_sdp_enabled() if backend is SDPBackend.MATH else cuda.mem_efficient_sdp_enabled())


# --- packed sequences ----------------------------------------------------------------------------------


@cache
def _varlen_attn() -> Any | None:
    """Torch's attention of packed sequences, if it is the one of the options that are used here."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    options = signature(varlen_attn).parameters
    return varlen_attn if {"scale", "window_size", "enable_gqa"} <= set(options) else None


def serves_packed(q: Tensor, v: Tensor, pinned: SDPBackend | None) -> bool:
    """Whether ``varlen_attn`` serves packed sequences of such queries and values."""
    return (
        q.device.type == "cuda"
        and q.dtype in HALVES
        and q.shape[3] == v.shape[3] <= 256
        and q.shape[3] % 8 == 0
        and pinned in (None, SDPBackend.FLASH_ATTENTION)
        and torch.version.hip is None
        and torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]
        and torch.cuda.get_device_capability(q.device) >= (8, 0)
        and not transformed()
        and _varlen_attn() is not None
    )


def packed(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, *, causal: bool, scale: float | None
) -> Tensor:
    """Attention of packed sequences ``[1, H, total, D]`` by one call of ``varlen_attn``."""
    varlen_attn = _varlen_attn()
    assert varlen_attn is not None
    ends = cu_seqlens.to(q.device, torch.int32)
    longest = max(b - a for a, b in pairwise(values_of(cu_seqlens)))
    tokens = (x[0].transpose(0, 1) for x in (q, k, v))
    out: Tensor = varlen_attn(
        *tokens,
        *(ends, ends, longest, longest),
        scale=scale,
        window_size=(-1, 0 if causal else -1),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out.transpose(0, 1).unsqueeze(0)
