"""Which passes a call takes, in Triton or in Gluon, worked out once for calls that are alike."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from attention.kernels.triton.gluon.launches import GluonLaunches
from attention.kernels.triton.launches import Launches
from attention.kernels.triton.plan import in_gluon


def launches(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, precision: str, *,
    eps: float = 0.0, others: tuple[Tensor | None, ...] = (),
) -> Launches:  # fmt: skip
    """Those for tensors like these: beside the tensors all is worked out once.

    ``others`` that the caller gave, ``do`` first: they count like q, k and v.
    """
    given = [q, k, v, *[x for x in others if x is not None]]
    aligned = sum([x.data_ptr() % 16 for x in given]) == 0
    like = tuple([(x.device, x.dtype, x.stride()) for x in given])
    return _launches(q.shape, v.shape[-1], like, aligned, causal, phi, precision, eps)


@lru_cache(maxsize=4096)
def _launches(
    shape: tuple[int, ...], value_dim: int,
    like: tuple[tuple[torch.device, torch.dtype, tuple[int, ...]], ...], aligned: bool, *how: Any,
) -> Launches:  # fmt: skip
    gluon = in_gluon(shape, value_dim, *like[0][:2], [stride for _, _, stride in like])
    return (GluonLaunches if gluon and aligned else Launches)(shape, value_dim, like, aligned, *how)


forget = _launches.cache_clear
"""What was planned: a test that changes the rules wants it planned anew."""
