"""Standard attention with the N x N matrix in memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attention.case import Case
from attention.costs import Costs, costs_of_heads, masked_scores, result_elements
from attention.kernels.registry import register_kernel
from attention.kernels.tensors import checked


@checked("standard-explicit")
def standard_explicit(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, scale: float | None = None
) -> Tensor:
    """softmax(scale QK') V with the N x N matrix in memory.

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]`` -> ``[B, H, N, Dv]``, computed in the dtype
    of the inputs. ``scale`` is 1/sqrt(D) unless given.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together.
    """
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = (q * scale) @ k.mT
    if causal:
        seq_len = q.shape[-2]
        later = torch.ones(seq_len, seq_len, dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill_(later, -math.inf)
    # Rebinding frees the scores: two N x N matrices are alive at a time, not three.
    scores = torch.softmax(scores, dim=-1)
    return scores @ v


def explicit_costs(case: Case) -> Costs:
    """QK' and PV, N^2 (D + Dv) MACs; backward twice that. The masked half is computed as well.

    Peak: scores and probabilities (backward: probabilities and two gradients of their size, on CUDA
    three, where the gradient of the mask or the scale is a copy).
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    products = 3 if case.backward else 1
    matrices = (4 if case.device == "cuda" else 3) if case.backward else 2
    peak = (matrices * n * n + result_elements(case)) * case.itemsize
    terms = {"scores": products * n * n * d, "weighted_values": products * n * n * dv}
    masked = products * masked_scores(n) * (d + dv) if case.causal else 0
    return costs_of_heads(case, terms, peak, masked_macs=masked)


register_kernel("standard-explicit", standard_explicit, costs=explicit_costs)
