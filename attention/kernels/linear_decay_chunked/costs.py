"""The closed forms of linear-decay-chunked's costs."""

from __future__ import annotations

from attention.case import Case
from attention.costs import Costs, add, chunk_scores, masked_chunk_scores
from attention.kernels.blocks import blocks, default_chunk_size
from attention.kernels.gates import decay_costs


def chunked_costs(case: Case) -> Costs:
    """Closed forms: for each chunk of c tokens c^2 (D + Dv) + 2 c D Dv MACs, backward c^2 3 (D + Dv) + ...

    The masked half of the scores is computed as well. What decays is multiplied elementwise.

    Peak: the results, one block's tensors, its states and, in a backward, those before all chunks.
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    chunk = default_chunk_size(d, causal=True)
    terms = forward_terms(n, d, dv, chunk)
    if case.backward:
        terms = add(terms, backward_terms(n, d, dv, chunk))
    masked = (d + dv) * masked_chunk_scores(n, chunk) * (4 if case.backward else 1)
    return decay_costs(case, terms, _peak_bytes(case, chunk), masked_macs=masked)


def forward_terms(n: int, d: int, dv: int, chunk: int) -> dict[str, int]:
    """MACs of one head: S += k'v, qS, QK' and AV."""
    scores = chunk_scores(n, chunk)
    return {
        "states": n * d * dv,
        "readout": n * d * dv,
        "scores": scores * d,
        "weighted_values": scores * dv,
    }


def backward_terms(n: int, d: int, dv: int, chunk: int) -> dict[str, int]:
    """MACs of one head: U += q'g, gS', vU' and kU; QK' once more, GV', dA K, dA'Q and A'G."""
    scores = chunk_scores(n, chunk)
    return {
        "states": n * d * dv,
        "readout": 3 * n * d * dv,
        "scores": scores * (d + dv),
        "weighted_values": scores * (2 * d + dv),
    }


def _peak_bytes(case: Case, chunk: int) -> int:
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    wide = max(4, case.itemsize)
    cut = blocks(n, chunk, case.batch * case.heads, case.device)
    tokens, chunks = max(((x.stop - x.start, x.chunks) for x in cut), default=(0, 0))
    size = min(n, chunk)
    # q, k, v, their products and the decays; in a backward do, dA, P and gradients as well.
    scratch = 4 * d + 4 * dv + 4 * size if case.backward else 3 * d + 2 * dv + 2 * size
    states = 1 + (3 if case.backward else 2) * chunks + (-(-n // chunk) if case.backward else 0)
    results = n * (2 * d + 2 * dv if case.backward else dv)
    held = tokens * scratch + states * d * dv + (n if case.backward else 0)
    return wide * held + case.itemsize * results
