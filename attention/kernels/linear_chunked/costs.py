"""The closed forms of linear-chunked's costs."""

from __future__ import annotations

from attention.case import Case
from attention.costs import Costs, Sizes, add, chunk_scores, costs_of, masked_chunk_scores
from attention.kernels.blocks import blocks, default_chunk_size
from attention.kernels.linear_chunked.scratch import value_columns


def chunked_costs(case: Case) -> Costs:
    """Closed forms, in which the normaliser is a column of the values, on CUDA 1 to 8 of them: W in all.

    Bidirectional, of each head of keys Nk D W MACs and of each of queries Nq D W; backward Nk D (W + Dv) and
    2 Nq D W. Causal, each chunk of c tokens: c D W of each, and c^2 (D + W) of queries, of which the masked
    half is computed as well; backward c D (W + Dv) of keys, and c^2 (3 D + W + Dv) + 2 c D W of queries.

    Peak: the results, the normaliser, one block of scratch and, in a causal backward, N / C states.
    """
    sizes = Sizes.of_case(case)
    chunk = default_chunk_size(case.head_dim, causal=case.causal)
    terms = forward_terms(sizes, case.causal, chunk, case.device)
    columns = value_columns(case.value_dim, case.device)
    per_score = case.head_dim + columns
    if case.backward:
        terms = add(terms, backward_terms(sizes, case.causal, chunk, case.device))
        per_score += 3 * case.head_dim + columns + case.value_dim
    masked = sizes.query_heads * per_score * masked_chunk_scores(case.queries, chunk) if case.causal else 0
    return costs_of(case, terms, _peak_bytes(case, sizes, chunk), masked_macs=masked)


def forward_terms(sizes: Sizes, causal: bool, chunk: int, device: str) -> dict[str, int]:
    """MACs: S += k'v, qS, and where causal QK' and AV within chunks.

    What the columns of the normaliser add to the products of the values is a term of its own.
    """
    d, dv = sizes.width, sizes.value_width
    beside, rows = value_columns(dv, device) - dv, sizes.query_rows
    terms = {"states": sizes.key_rows * d * dv, "readout": rows * d * dv}
    terms["normaliser"] = (sizes.key_rows + rows) * d * beside
    if causal:
        scores = sizes.query_heads * chunk_scores(sizes.queries, chunk)
        terms |= {"scores": scores * d, "weighted_values": scores * dv}
        terms["normaliser"] += scores * beside
    return terms


def backward_terms(sizes: Sizes, causal: bool, chunk: int, device: str) -> dict[str, int]:
    """MACs: U += q'g, gS', vU' and kU; where causal QK' once more, g V', dA K, dA'Q and A'g.

    All but kU and A'g have the columns of the normaliser too.
    """
    d, dv = sizes.width, sizes.value_width
    beside, rows = value_columns(dv, device) - dv, sizes.query_rows
    terms = {"states": rows * d * dv, "readout": (rows + 2 * sizes.key_rows) * d * dv}
    terms["normaliser"] = (2 * rows + sizes.key_rows) * d * beside
    if causal:
        scores = sizes.query_heads * chunk_scores(sizes.queries, chunk)
        terms |= {"scores": 3 * scores * d, "weighted_values": 2 * scores * dv}
        terms["normaliser"] += scores * beside
    return terms


def _peak_bytes(case: Case, sizes: Sizes, chunk: int) -> int:
    d, dv, columns = case.head_dim, case.value_dim, value_columns(case.value_dim, case.device)
    wide = max(4, case.itemsize)
    factor = case.itemsize if case.device == "cuda" and case.dtype == "bfloat16" else wide
    queries, chunks = _largest(case, sizes.queries, chunk)
    keys = queries if case.causal else _largest(case, sizes.keys, chunk)[0]
    # Of queries q, the map or num, in a backward g; where causal scores and dq. Of keys k, v, and dv.
    of_queries = d + max(d, columns) + (columns if case.backward else 0)
    of_keys = d + columns
    if case.causal:
        of_queries += min(sizes.queries, chunk) + (d if case.backward else 0)
        of_keys += dv if case.backward else 0
        states = 2 + (3 * chunks if case.device == "cuda" else 0)
        states += -(-sizes.queries // chunk) if case.backward else 0
    else:
        states = 2 + chunks
    scratch = sizes.query_heads * queries * of_queries + sizes.key_heads * keys * of_keys
    held = sizes.query_rows + sizes.key_heads * states * d * columns
    results = sizes.query_rows * dv
    if case.backward:
        results += sizes.query_rows * d + sizes.key_rows * (d + dv)
    return wide * held + factor * scratch + case.itemsize * results


def _largest(case: Case, tokens: int, chunk: int) -> tuple[int, int]:
    """Tokens of the largest block, and its chunks."""
    found = blocks(tokens, chunk, case.batch * case.heads, case.device)
    return max(((block.stop - block.start, block.chunks) for block in found), default=(0, 0))
