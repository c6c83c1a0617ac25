"""The closed forms of linear-native's costs."""

from __future__ import annotations

from pathlib import Path

import torch

from attention.case import Case
from attention.costs import Costs, Sizes, add, costs_of
from attention.kernels.native import plan

PROGRAM = str(Path(__file__).parent / "linear_native.cpp")


def native_costs(case: Case) -> Costs:
    """Closed forms, with the half of each chunk's scores that is not masked, and the normaliser as products.

    Bidirectional, of each head of keys Nk D (Dv + 1) MACs and of each of queries Nq D (Dv + 1); backward
    Nk D (2 Dv + 1) and Nq D (2 Dv + 2). Causal, with M = N (C + 1) / 2 scores of each head of queries:
    M (D + Dv) + N D (Dv + 1), and N D Dv of keys; backward M (3 (D + Dv) + 2) + N D (3 Dv + 2), and
    N D (3 Dv + 2) of keys; and D (Dv + 1) for each token whose segment is summed beforehand.

    Peak: the results, a float32 a token, the sums of the segments, and what each thread works in.
    """
    sizes = Sizes.of_case(case)
    d, dv = case.head_dim, case.value_dim
    threads, wide = torch.get_num_threads(), max(4, case.itemsize)
    terms = forward_terms(sizes, case.causal, threads)
    if case.backward:
        terms = add(terms, backward_terms(sizes, case.causal, threads))
    parts = _parts(sizes, threads)
    counts = parts if case.backward else parts[:1]
    states = sum(count for count in counts if plan.summed(count, case.causal))
    held = sizes.query_rows + sizes.key_heads * states * plan.state_size(d, dv, wide)
    held += threads * scratch_size(d, dv, wide)
    results = sizes.query_rows * dv
    if case.backward:
        results += sizes.query_rows * d + sizes.key_rows * (d + dv)
    return costs_of(case, terms, wide * held + case.itemsize * results)


def _parts(sizes: Sizes, threads: int) -> tuple[int, int]:
    """Segments of the keys and of the queries."""
    keys, queries = (plan.segments(n, sizes.key_heads, threads) for n in (sizes.keys, sizes.queries))
    return keys, queries


def scratch_size(head_dim: int, value_dim: int, itemsize: int) -> int:
    """Elements a thread works in: what all programs have, z before a chunk and within, a second result."""
    keys, values = plan.row(head_dim, itemsize), plan.row(value_dim + 1, itemsize)
    return plan.scratch_size(head_dim, value_dim, itemsize) + 2 * keys + plan.CHUNK * max(keys, values)


def forward_terms(sizes: Sizes, causal: bool, threads: int) -> dict[str, int]:
    """MACs: V'k of each segment, and where causal k'v once more, QK' and AV; qS."""
    n, d, dv, rows = sizes.keys, sizes.width, sizes.value_width, sizes.query_rows
    count = plan.segments(n, sizes.key_heads, threads)
    before = sizes.key_heads * ((count - 1) * plan.segment_tokens(n, count) if causal else n)
    terms = {"states": before * d * dv, "readout": rows * d * dv, "normaliser": (before + rows) * d}
    if causal:
        scores = sizes.query_heads * plan.unmasked_scores(n)
        terms["states"] += sizes.key_rows * d * dv
        terms |= {"scores": scores * d, "weighted_values": scores * dv}
    return terms


def backward_terms(sizes: Sizes, causal: bool, threads: int) -> dict[str, int]:
    """MACs: G'q, then G S', V U' and k U; where causal V'k, G'q and q'g, and scores thrice."""
    n, d, dv, rows, keys = sizes.queries, sizes.width, sizes.value_width, sizes.query_rows, sizes.key_rows
    first = plan.segment_tokens(n, plan.segments(n, sizes.key_heads, threads))
    before = sizes.query_heads * (max(0, n - first) if causal else n)
    terms = {"states": before * d * dv, "readout": (rows + 2 * keys) * d * dv}
    terms["normaliser"] = (before + rows + keys) * d
    if causal:
        scores = sizes.query_heads * plan.unmasked_scores(n)
        terms["states"] += (keys + 2 * rows) * d * dv
        terms["normaliser"] += (keys + rows) * d + 2 * scores
        terms |= {"scores": scores * (2 * dv + d), "weighted_values": scores * (2 * d + dv)}
    return terms
