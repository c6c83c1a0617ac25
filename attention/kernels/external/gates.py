"""Inputs beside q, k and v of the gated kernels: logarithms of gates, and rates beta of writing.

All are in float32 at least, as layers compute them, and require gradients where a case has a backward.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from attention.case import Case
from attention.kernels.gates import NORMALISER, make_gates


def key_gates(case: Case) -> dict[str, Tensor]:
    """``gk [B, H, N, D]``: a gate for each column of the keys."""
    return _with_gradients(case, {"gk": logsigmoid(_normal(case, 3, case.head_dim)) / NORMALISER})


def head_gates_and_rates(case: Case) -> dict[str, Tensor]:
    """``g [B, H, N]`` and ``beta [B, H, N]`` in (0, 1)."""
    return make_gates(case) | _rates(case)


def key_gates_and_rates(case: Case) -> dict[str, Tensor]:
    """``gk [B, H, N, D]`` and ``beta [B, H, N]`` in (0, 1)."""
    return key_gates(case) | _rates(case)


def _rates(case: Case) -> dict[str, Tensor]:
    return _with_gradients(case, {"beta": _normal(case, 4).sigmoid()})


def _normal(case: Case, seed: int, *width: int) -> Tensor:
    """Standard normal numbers ``[B, H, N, *width]`` from a generator of their own."""
    return torch.randn(
        (case.batch, case.heads, case.seq_len, *width),
        generator=torch.Generator(case.device).manual_seed(seed),
        device=case.device,
        dtype=torch.promote_types(case.torch_dtype, torch.float32),
    )


def _with_gradients(case: Case, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.requires_grad_(case.backward) for name, x in tensors.items()}
