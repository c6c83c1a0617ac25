"""The closed forms of linear-native's costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from attention.case import Case
from attention.costs import Costs, add, costs_of_heads, result_elements
from attention.kernels.native import plan

PROGRAM = Path(__file__).parent / "linear_native.cpp"


def native_costs(case: Case) -> Costs:
    """Closed forms, with the half of each chunk's scores that is not masked, and the normaliser as products.

    Bidirectional: N (2 D Dv + 2 D) MACs, backward N (3 D (Dv + 1) + D Dv). Causal, with M = N (C + 1) / 2
    scores: M (D + Dv) + N (2 D Dv + D), backward M (3 (D + Dv) + 2) + N (4 D (Dv + 1) + 2 D Dv), and
    D (Dv + 1) for each token whose segment is summed beforehand.

    Peak: the results, a float32 a token, the sums of the segments, and what each thread works in.
    """
    n, d, dv, rows = case.seq_len, case.head_dim, case.value_dim, case.batch * case.heads
    threads, wide = torch.get_num_threads(), max(4, case.itemsize)
    terms = forward_terms(n, d, dv, rows, case.causal, threads)
    if case.backward:
        terms = add(terms, backward_terms(n, d, dv, rows, case.causal, threads))
    parts = plan.segments(n, rows, threads)
    states = parts * plan.state_size(d, dv, wide) if plan.summed(parts, case.causal) else 0
    held = n + states * (2 if case.backward else 1)
    costs = costs_of_heads(case, terms, wide * held + case.itemsize * result_elements(case))
    return replace(costs, peak_bytes=costs.peak_bytes + wide * threads * scratch_size(d, dv, wide))


def scratch_size(head_dim: int, value_dim: int, itemsize: int) -> int:
    """Elements a thread works in: what all programs have, and z before a chunk and within."""
    return plan.scratch_size(head_dim, value_dim, itemsize) + 2 * plan.row(head_dim, itemsize)


def forward_terms(n: int, d: int, dv: int, rows: int, causal: bool, threads: int) -> dict[str, int]:
    """MACs of one head of ``rows``: V'k of each segment, and where causal k'v once more, QK' and AV; qS."""
    parts = plan.segments(n, rows, threads)
    before = (parts - 1) * plan.segment_tokens(n, parts) if causal else n
    terms = {"states": before * d * dv, "readout": n * d * dv, "normaliser": (before + n) * d}
    if causal:
        scores = plan.unmasked_scores(n)
        terms["states"] += n * d * dv
        terms |= {"scores": scores * d, "weighted_values": scores * dv}
    return terms


def backward_terms(n: int, d: int, dv: int, rows: int, causal: bool, threads: int) -> dict[str, int]:
    """MACs of one head: G'q, then G S', V U' and k U; where causal V'k, G'q and q'g, and scores thrice."""
    first = plan.segment_tokens(n, plan.segments(n, rows, threads))
    before = max(0, n - first) if causal else n
    terms = {"states": before * d * dv, "readout": 3 * n * d * dv, "normaliser": (before + 2 * n) * d}
    if causal:
        scores = plan.unmasked_scores(n)
        terms["states"] += 3 * n * d * dv
        terms["normaliser"] += 2 * n * d + 2 * scores
        terms |= {"scores": scores * (2 * dv + d), "weighted_values": scores * (2 * d + dv)}
    return terms
