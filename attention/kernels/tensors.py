"""What more than one kernel asks of its tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def differentiated(*tensors: Tensor | None) -> bool:
    """Whether a backward may come, so that what it reads is worth keeping."""
    if torch.is_grad_enabled():
        for x in tensors:  # a generator for any() takes three times as long
            if x is not None and x.requires_grad:
                return True
    return False


def contiguous_like(x: Tensor) -> Tensor:
    """Room for a result, whatever the strides of x: an expanded tensor has none for a gradient."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def alike(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All in the widest dtype of the three: a feature map may return another one than it was given."""
    if q.dtype == k.dtype == v.dtype:
        return q, k, v
    dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
    return q.to(dtype), k.to(dtype), v.to(dtype)


def plain(dtype: torch.dtype) -> str:
    """Its name as a case has it."""
    return str(dtype).removeprefix("torch.")


def unit_stride(x: Tensor) -> Tensor:
    """Itself if its last stride is 1, else a copy."""
    return x if x.stride(-1) == 1 else x.contiguous()
