"""The costs of ``scaled_dot_product_attention``, and the formulas that torch's counter lacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.nn.attention import SDPBackend
from torch.utils.flop_counter import (
    flop_registry,
    register_flop_formula,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from attention.case import Case
from attention.costs import Costs, costs_of_heads, result_elements, seen_scores
from attention.kernels.standard.cpu_peaks import fused_peak, math_peak
from attention.kernels.standard.fused import ALIGNING, block_size


def fused_costs(case: Case, pinned: SDPBackend | None = None) -> Costs:
    """QK' and PV on tiles; the backward computes QK' once more.

    A causal fused kernel skips the masked half, so N (N + 1) / 2 scores are counted of equal lengths; torch's
    counter counts N^2. Blocks of queries compute all scores of their keys. Peak: the results, a float32 per
    query, and what blocks hold beside them: the output of each, and a gradient of keys and values. On a CPU
    that of :func:`attention.kernels.standard.cpu_peaks.fused_peak`.
    """
    d, dv, queries = case.head_dim, case.value_dim, _seeing(case)
    per_score = {"scores": d, "weighted_values": dv}
    if case.backward:
        per_score = {"scores": 4 * d, "weighted_values": 3 * dv}
    blocks = _blocks(case, pinned)
    seen, all_scores = seen_scores(case), queries * case.seq_len
    executed = sum(blocks) if blocks else seen
    counted = executed if blocks else all_scores
    terms = {name: executed * width for name, width in per_score.items()}
    skipped = {"masked_half": (counted - executed) * sum(per_score.values())}
    peak = result_elements(case) * case.itemsize + 4 * queries + _beside(case, blocks)
    masked = (executed - seen) * sum(per_score.values())
    costs = costs_of_heads(case, terms, peak, overcounted=skipped, masked_macs=masked)
    return replace(costs, peak_bytes=fused_peak(case)) if case.device == "cpu" else costs


def math_costs(case: Case, pinned: SDPBackend | None = None) -> Costs:
    """As of the explicit form, whose matrices are here those of a block of queries, or of a head of a group.

    Peak: scores and probabilities of what is computed at a time (backward: all probabilities, and two
    gradients, on CUDA three). On a CPU that of :func:`attention.kernels.standard.cpu_peaks.math_peak`.
    """
    d, dv, queries = case.head_dim, case.value_dim, _seeing(case)
    blocks = _blocks(case, SDPBackend.MATH)
    executed = sum(blocks) if blocks else queries * case.seq_len
    one_by_one = case.causal and queries > 1 and not blocks
    at_once = max(blocks, default=executed * case.key_heads // case.heads if one_by_one else executed)
    products = 3 if case.backward else 1
    matrices = 2 * at_once
    if case.backward:
        matrices = executed + (3 if case.device == "cuda" else 2) * at_once
    peak = (matrices + result_elements(case)) * case.itemsize + _beside(case, blocks)
    terms = {"scores": products * executed * d, "weighted_values": products * executed * dv}
    masked = products * (executed - seen_scores(case)) * (d + dv)
    costs = costs_of_heads(case, terms, peak, masked_macs=masked)
    if case.device != "cpu":
        return costs
    return replace(costs, peak_bytes=math_peak(case, matrices * case.batch * case.heads))


def sdpa_costs(case: Case) -> Costs:
    """The costs of what torch picks: a fused form, or the explicit one where no fused one serves.

    No fused one serves on a CPU where values have their own width, and on CUDA in float64.
    """
    if case.device == "cpu":
        explicit = case.value_dim != case.head_dim
    else:
        explicit = case.dtype == "float64"
    return math_costs(case) if explicit else fused_costs(case)


def _seeing(case: Case) -> int:
    """Queries that see a key."""
    return min(case.queries, case.seq_len) if case.causal else case.queries


def _blocks(case: Case, pinned: SDPBackend | None) -> list[int]:
    """Scores of each block of queries of one head; none where a call serves all queries."""
    queries, group = _seeing(case), case.heads // case.key_heads
    aligned = case.device == "cuda" and case.dtype != "float64" and pinned in ALIGNING
    if not case.causal or queries in (1, case.seq_len) or aligned:
        return []
    ahead, size = case.seq_len - queries, block_size(group)
    starts = range(0, queries, size)
    stops = [min(start + size, queries) for start in starts]
    return [(stop - start) * (ahead + stop) for start, stop in zip(starts, stops, strict=True)]


def _beside(case: Case, blocks: list[int]) -> int:
    """Bytes that calls one after another hold beside their results, by the heads of queries."""
    if not blocks:
        return 0
    d, dv = case.head_dim, case.value_dim
    keys = case.seq_len * (d + dv) * case.key_heads // case.heads if case.backward else 0
    return (_seeing(case) * dv + keys) * case.itemsize


def _count_forward(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]


def _count_backward(
    grad_out: torch.Size, q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(grad_out, q, k, v))  # type: ignore[no-untyped-call]


# torch's counter has formulas for the fused attention of CUDA, and counts nothing for that of a CPU.
for _operator, _formula in (
    (torch.ops.aten._scaled_dot_product_flash_attention_for_cpu, _count_forward),
    (torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward, _count_backward),
):
    if _operator not in flop_registry:
        register_flop_formula(_operator)(_formula)
