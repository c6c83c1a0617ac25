"""The closed forms of linear-chunked's costs."""

from __future__ import annotations

from attention.case import Case
from attention.costs import Costs, add, chunk_scores, costs_of_heads, masked_chunk_scores
from attention.kernels.blocks import Block, blocks, default_chunk_size
from attention.kernels.linear_chunked.scratch import value_columns


def chunked_costs(case: Case) -> Costs:
    """Closed forms, in which the normaliser is a column of the values, on CUDA 1 to 8 of them: W in all.

    Bidirectional: 2 N D W MACs, backward N D (3 W + Dv). Causal, each chunk of c tokens: c^2 (D + W) +
    2 c D W, of which the masked half is computed as well; backward c^2 (3 D + W + Dv) + c D (3 W + Dv).

    Peak: the results, the normaliser, one block of scratch and, in a causal backward, N / C states.
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    chunk = default_chunk_size(d, causal=case.causal)
    terms = forward_terms(n, d, dv, case.causal, chunk, case.device)
    columns = value_columns(dv, case.device)
    per_score = d + columns
    if case.backward:
        terms = add(terms, backward_terms(n, d, dv, case.causal, chunk, case.device))
        per_score += 3 * d + columns + dv
    masked = per_score * masked_chunk_scores(n, chunk) if case.causal else 0
    return costs_of_heads(case, terms, _peak_bytes(case, chunk), masked_macs=masked)


def forward_terms(n: int, d: int, dv: int, causal: bool, chunk: int, device: str) -> dict[str, int]:
    """MACs of one head: S += k'v, qS, and where causal QK' and AV within chunks.

    What the columns of the normaliser add to the products of the values is a term of its own.
    """
    beside = value_columns(dv, device) - dv
    terms = {"states": n * d * dv, "readout": n * d * dv, "normaliser": 2 * n * d * beside}
    if causal:
        scores = chunk_scores(n, chunk)
        terms |= {"scores": scores * d, "weighted_values": scores * dv}
        terms["normaliser"] += scores * beside
    return terms


def backward_terms(n: int, d: int, dv: int, causal: bool, chunk: int, device: str) -> dict[str, int]:
    """MACs of one head: U += q'g, gS', vU' and kU; where causal QK' once more, g V', dA K, dA'Q and A'g.

    All but kU and A'g have the columns of the normaliser too.
    """
    beside = value_columns(dv, device) - dv
    terms = {"states": n * d * dv, "readout": 3 * n * d * dv, "normaliser": 3 * n * d * beside}
    if causal:
        scores = chunk_scores(n, chunk)
        terms |= {"scores": 3 * scores * d, "weighted_values": 2 * scores * dv}
        terms["normaliser"] += scores * beside
    return terms


def _peak_bytes(case: Case, chunk: int) -> int:
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    columns = value_columns(dv, case.device)
    wide = max(4, case.itemsize)
    factor = case.itemsize if case.device == "cuda" and case.dtype == "bfloat16" else wide
    largest = max(blocks(n, chunk, case.batch * case.heads, case.device), key=_tokens, default=None)
    tokens, chunks = (_tokens(largest), largest.chunks) if largest else (0, 0)
    # q, k, v, the map or num; in a backward also g, the map or o, where causal dq and dv.
    scratch = 2 * d + columns + max(d, columns) + (columns if case.backward else 0)
    if case.causal:
        scratch += min(n, chunk) + (d + dv if case.backward else 0)
        states = 2 + (3 * chunks if case.device == "cuda" else 0)
        states += -(-n // chunk) if case.backward else 0
    else:
        states = 2 + chunks
    results = n * (2 * d + 2 * dv if case.backward else dv)
    held = n + states * d * columns
    return wide * held + factor * tokens * scratch + case.itemsize * results


def _tokens(block: Block) -> int:
    return block.stop - block.start
