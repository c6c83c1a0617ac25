"""The closed forms of linear-native's costs."""

from __future__ import annotations

from collections.abc import Sequence
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


def forward_terms(
    sizes: Sizes, causal: bool, threads: int, packed: Sequence[int] | None = None, brief: bool = True
) -> dict[str, int]:
    """MACs: V'k of each segment, and where causal k'v once more, QK' and AV; qS.

    Of packed sequences of these lengths, those of one chunk are scores alone where ``brief``: without states.
    """
    n, d, dv, rows = sizes.keys, sizes.width, sizes.value_width, sizes.query_rows
    lengths, short, size = _lengths(sizes, n, threads, packed, brief)
    walked = n - sum(short)
    before = sizes.key_heads * (sum(max(0, x - 1) // size * size for x in lengths) if causal else walked)
    readout = sizes.query_heads * (sizes.queries - sum(short)) * d * dv
    terms = {"states": before * d * dv, "readout": readout, "normaliser": (before + rows) * d}
    scores = sizes.query_heads * _scores(lengths, short, causal)
    if causal:
        terms["states"] += sizes.key_heads * walked * d * dv
    return terms | ({"scores": scores * d, "weighted_values": scores * dv} if causal or short else {})


def backward_terms(
    sizes: Sizes, causal: bool, threads: int, packed: Sequence[int] | None = None, brief: bool = True
) -> dict[str, int]:
    """MACs: G'q, then G S', V U' and k U; where causal V'k, G'q and q'g, and scores thrice.

    Of packed sequences of these lengths, those of one chunk are scores alone where ``brief``: without states.
    Without a mask the others of one segment kept no V'k, which is computed once more.
    """
    n, d, dv = sizes.queries, sizes.width, sizes.value_width
    lengths, short, size = _lengths(sizes, n, threads, packed, brief)
    walked = n - sum(short)
    rows = sizes.query_heads * walked
    keys = sizes.key_heads * (walked if packed is not None else sizes.keys)
    before = sizes.query_heads * (sum(max(0, x - size) for x in lengths) if causal else walked)
    if packed is not None and not causal:
        before += sizes.key_heads * (sum(x for x in lengths if x <= size) - sum(short))
    terms = {"states": before * d * dv, "readout": (rows + 2 * keys) * d * dv}
    terms["normaliser"] = (before + rows + keys) * d
    scores = sizes.query_heads * _scores(lengths, short, causal)
    if causal:
        terms["states"] += (keys + 2 * rows) * d * dv
        terms["normaliser"] += (keys + rows) * d
    terms["normaliser"] += 2 * scores
    return terms | (
        {"scores": scores * (2 * dv + d), "weighted_values": scores * (2 * d + dv)} if causal or short else {}
    )


def _lengths(
    sizes: Sizes, tokens: int, threads: int, packed: Sequence[int] | None, brief: bool
) -> tuple[Sequence[int], list[int], int]:
    """Lengths in tokens: of all sequences, of those which are computed by scores alone, and of a segment."""
    size = max(1, plan.segment_tokens(tokens, plan.segments(tokens, sizes.key_heads, threads)))
    if packed is None:
        return [tokens], [], size
    return packed, [x for x in packed if x <= plan.CHUNK] if brief else [], size


def _scores(lengths: Sequence[int], short: Sequence[int], causal: bool) -> int:
    """Scores that a head computes: unmasked ones of chunks where causal, else those of brief sequences."""
    return sum(map(plan.unmasked_scores, lengths)) if causal else sum(x * x for x in short)
