"""The closed forms of linear-decay-native's costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from attention.case import Case
from attention.costs import Costs, add
from attention.kernels.gates import decay_costs
from attention.kernels.native import plan

PROGRAM = str(Path(__file__).parent / "linear_decay_native.cpp")


def native_costs(case: Case) -> Costs:
    """Closed forms, with the half of each chunk's scores that is not masked, M = N (C + 1) / 2 in all.

    M (D + Dv) + 2 N D Dv MACs, backward 3 M (D + Dv) + 6 N D Dv, and D Dv for each token whose segment is
    summed beforehand. What decays is multiplied elementwise.

    Peak: the results, the sums of the segments, what each thread works in, and in a backward N / C states.
    """
    n, d, dv, rows = case.seq_len, case.head_dim, case.value_dim, case.batch * case.heads
    threads, wide = torch.get_num_threads(), max(4, case.itemsize)
    terms = forward_terms(n, d, dv, rows, threads)
    if case.backward:
        terms = add(terms, backward_terms(n, d, dv, rows, threads))
    parts = plan.segments(n, rows, threads)
    held = parts * plan.state_size(d, dv, wide) if plan.summed(parts, causal=True) else 0
    if case.backward:
        held = 2 * held + n + before_size(n, d, dv, wide)
    results = n * (2 * d + 2 * dv if case.backward else dv)
    costs = decay_costs(case, terms, wide * held + case.itemsize * results)
    return replace(costs, peak_bytes=costs.peak_bytes + wide * threads * scratch_size(d, dv, wide))


def scratch_size(head_dim: int, value_dim: int, itemsize: int) -> int:
    """Elements a thread works in: what all programs have, decays and scores of a chunk, and four a token."""
    return plan.scratch_size(head_dim, value_dim, itemsize) + 2 * plan.CHUNK**2 + 4 * plan.CHUNK


def before_size(tokens: int, head_dim: int, value_dim: int, itemsize: int) -> int:
    """Elements of the states before each chunk of a head."""
    return -(-tokens // plan.CHUNK) * value_dim * plan.row(head_dim, itemsize)


def forward_terms(n: int, d: int, dv: int, rows: int, threads: int) -> dict[str, int]:
    """MACs of one head of ``rows``: V'k of all segments but the last, then k'v, QK', AV and qS."""
    parts = plan.segments(n, rows, threads)
    before, scores = (parts - 1) * plan.segment_tokens(n, parts), plan.unmasked_scores(n)
    return {
        "states": (before + n) * d * dv,
        "readout": n * d * dv,
        "scores": scores * d,
        "weighted_values": scores * dv,
    }


def backward_terms(n: int, d: int, dv: int, rows: int, threads: int) -> dict[str, int]:
    """MACs of one head: G'q of all segments but the first; V'k, G'q and q'g; G S', V U' and k U; scores."""
    before = max(0, n - plan.segment_tokens(n, plan.segments(n, rows, threads)))
    scores = plan.unmasked_scores(n)
    return {
        "states": (before + 3 * n) * d * dv,
        "readout": 3 * n * d * dv,
        "scores": scores * (2 * dv + d),
        "weighted_values": scores * (2 * d + dv),
    }
