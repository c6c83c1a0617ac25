"""Questions that several kernels ask of their tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from attention.torch_internals import transformed


def differentiated(*tensors: Tensor | None) -> bool:
    """Whether derivatives may be wanted, so that what a backward reads is worth keeping.

    An exported graph keeps nothing, because its lengths are not known yet: its backward goes forward first.
    """
    if torch.compiler.is_exporting():
        return False
    if transformed():
        return True
    if torch.is_grad_enabled():
        for x in tensors:  # a generator for any() takes three times as long
            if x is not None and x.requires_grad:
                return True
    return False


def contiguous_like(x: Tensor) -> Tensor:
    """An empty contiguous tensor like x: an expanded one, say, has no room for a gradient."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def alike(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three tensors in the widest of their dtypes: a feature map may return another than it was given."""
    if q.dtype == k.dtype == v.dtype:
        return q, k, v
    dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
    return q.to(dtype), k.to(dtype), v.to(dtype)


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype as a case has it: ``float32``."""
    return str(dtype).removeprefix("torch.")


def unit_stride(x: Tensor) -> Tensor:
    """The tensor if its last stride is 1, else a contiguous copy."""
    return x if x.stride(-1) == 1 else x.contiguous()
