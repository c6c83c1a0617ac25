"""Standard attention with the Nq x Nk matrix in memory."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from attention.case import Case
from attention.costs import Costs, costs_of_heads, result_elements, seen_scores
from attention.kernels.forms.linear import by_key_heads
from attention.kernels.forms.masks import hidden, never_all
from attention.kernels.forms.standard import StandardOptions, attend
from attention.kernels.registry import register_kernel
from attention.kernels.tensors import checked


@checked("standard-explicit", plain=False)
def standard_explicit(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[StandardOptions]) -> Tensor:
    """softmax(scale QK') V with the Nq x Nk matrix in memory, computed in the dtype of the inputs.

    Tensors and options as of ``attention.standard_attention``.

    Raises:
        TypeError: a mask or ends of another kind.
        ValueError: shapes, dtypes or devices that do not fit together.
    """
    return attend(_explicit, q, k, v, **options)


def _explicit(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float | None, padding: Tensor | None
) -> Tensor:
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    group = q.shape[1] // k.shape[1]
    # Heads of queries that share keys meet them in one product, so that these are not repeated.
    rows = q if group == 1 else by_key_heads(q, k.shape[1]).flatten(2, 3)
    scores = (rows * scale) @ k.mT
    if causal or padding is not None:
        unseen = hidden(q.shape[2], k.shape[2], causal=causal, device=q.device, padding=padding)
        if padding is not None:
            unseen = never_all(unseen)
        if group > 1 and causal:
            unseen = unseen.repeat(1, 1, group, 1)
        scores.masked_fill_(unseen, -math.inf)
    # Rebinding frees the scores: two Nq x Nk matrices are alive at a time, not three.
    scores = torch.softmax(scores, dim=-1)
    out = scores @ v
    return out if group == 1 else out.view(*q.shape[:3], v.shape[3])


def explicit_costs(case: Case) -> Costs:
    """QK' and PV, Nq Nk (D + Dv) MACs; backward twice that. The masked half is computed as well.

    Causal, queries that see no key are left out.

    Peak: scores and probabilities (backward: probabilities and two gradients of their size, on CUDA
    three, where the gradient of the mask or the scale is a copy).
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    scores = (min(case.queries, n) if case.causal else case.queries) * n
    products = 3 if case.backward else 1
    matrices = (4 if case.device == "cuda" else 3) if case.backward else 2
    peak = (matrices * scores + result_elements(case)) * case.itemsize
    terms = {"scores": products * scores * d, "weighted_values": products * scores * dv}
    masked = products * (scores - seen_scores(case)) * (d + dv)
    return costs_of_heads(case, terms, peak, masked_macs=masked)


register_kernel("standard-explicit", standard_explicit, costs=explicit_costs)
