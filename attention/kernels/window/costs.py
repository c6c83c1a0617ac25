"""The closed forms of the costs of a window of w keys: N w scores, less those before the first token."""

from __future__ import annotations

from attention.case import Case
from attention.costs import Costs, costs_of_heads, masked_scores, result_elements
from attention.inputs import WINDOW

TILE = 128
"""Queries and keys of a tile of flex_attention's block mask, which is computed as a whole or not at all."""
LEAST_BLOCK = 64


def window_scores(n: int, window: int) -> int:
    """Scores that N queries see: the sum of min(i, w) over i = 1 to N."""
    first = min(n, window)
    return first * (first + 1) // 2 + (n - first) * window


def block_size(window: int) -> int:
    """Queries of a block of window-sdpa, which sees c + w keys: a quarter of the window costs 1.25 N w."""
    return max(LEAST_BLOCK, window // 4)


def block_scores(n: int, window: int) -> int:
    """Scores of the blocks of window-sdpa behind the first w queries, the masked ones too."""
    size = block_size(window)
    blocks, rest = divmod(n - min(n, window), size)
    return blocks * size * (window + size) + (rest * (window + rest))


def sdpa_costs(case: Case, window: int = WINDOW) -> Costs:
    """Causal attention of the first w queries, then blocks of c queries against c + w keys each.

    torch's fused kernels skip the masked half of the former, and none of the band's corners; on a CPU they
    compute in the wider of D and Dv. In float64 on CUDA the scores are held in memory, and nothing is
    skipped. Peak: the results and a copy of them; with a backward the gradients of each block's keys and
    values, (c + w) / c times those of the tokens.
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    first, in_memory = min(n, window), case.device == "cuda" and case.dtype == "float64"
    if case.device == "cpu":
        d = dv = max(d, dv)
    skipped, blocks = masked_scores(first), block_scores(n, window)
    scores = first * first + blocks
    executed = scores if in_memory else scores - skipped
    per_score = {"scores": d, "weighted_values": dv}
    if case.backward:
        per_score = {"scores": 3 * d if in_memory else 4 * d, "weighted_values": 3 * dv}
    width = sum(per_score.values())
    return costs_of_heads(
        case,
        {name: executed * macs for name, macs in per_score.items()},
        _sdpa_peak(case, window, d, dv, scores if in_memory else 0),
        overcounted={} if in_memory else {"masked_half": skipped * width},
        masked_macs=(executed - window_scores(n, window)) * width,
    )


def _sdpa_peak(case: Case, window: int, d: int, dv: int, held_scores: int) -> int:
    n, size = case.seq_len, block_size(window)
    behind = n - min(n, window)
    elements = result_elements(case) + (case.seq_len * dv if behind else 0)
    elements += held_scores * (4 if case.backward else 2)
    if case.device == "cpu" and case.head_dim != case.value_dim:
        elements += n * 3 * d
    if case.backward:
        elements += behind // size * (size + window) * (d + dv)
    return elements * case.itemsize + 4 * n


def flex_costs(case: Case, window: int = WINDOW) -> Costs:
    """Tiles of 128 queries and keys that hold a visible score, each computed as a whole.

    The backward computes QK' and dO V' twice, for dq and for dk and dv. torch's counter does not see into
    compiled code. Peak: the results, and on CUDA two float32 a token, which are the normaliser and the
    largest score; the code for a CPU copies what it is given of a key and a value instead.
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    executed = tile_scores(n, window)
    per_score = {"scores": d, "weighted_values": dv}
    if case.backward:
        per_score = {"scores": 5 * d, "weighted_values": 4 * dv}
    terms = {name: executed * macs for name, macs in per_score.items()}
    masked = (executed - window_scores(n, window)) * sum(per_score.values())
    copied, kept = (0, 8 * n) if case.device == "cuda" else (n * (d + dv), 0)
    peak = (result_elements(case) + copied) * case.itemsize + kept
    return costs_of_heads(case, terms, peak, uncounted=terms, masked_macs=masked)


def tile_scores(n: int, window: int) -> int:
    """Scores of the tiles that hold a visible one, of which row r has min(r, p) before the diagonal's."""
    before = -(-(window - 1) // TILE)
    rows, rest = divmod(n, TILE)
    ascending = min(rows, before)
    tiles = ascending * (ascending - 1) // 2 + (rows - ascending) * before
    return (tiles + rows) * TILE * TILE + rest * (TILE * min(rows, before) + rest)
