"""How the programs cut a case, and what they hold meanwhile. Plain arithmetic, as in ``chunks.h``."""

from __future__ import annotations

CHUNK = 64
"""C: tokens whose scores are computed at once; their tiles stay in the cache of a core."""
LEAST_TOKENS = 256
"""Tokens of the shortest segment: in a shorter one the sums cost more than another core saves."""
TASKS = 4
"""Segments of each thread: so many leave no core idle for long."""


def segments(tokens: int, heads: int, threads: int) -> int:
    """How many segments a sequence is cut into: one, unless cores would be idle."""
    count, most = 1, max(1, tokens // LEAST_TOKENS)
    while count < most and heads * count < TASKS * threads and heads * count % threads:
        count += 1
    return max(1, -(-tokens // max(1, segment_tokens(tokens, count))))


def segment_tokens(tokens: int, count: int) -> int:
    """Tokens of each of ``count`` segments but the last, a multiple of a chunk's."""
    return -(-tokens // (count * CHUNK)) * CHUNK


def row(width: int, itemsize: int) -> int:
    """Elements of a row of a buffer, which begins at a multiple of 64 bytes."""
    step = 64 // itemsize
    return -(-width // step) * step


def state_size(head_dim: int, value_dim: int, itemsize: int) -> int:
    """Elements of the sums V'k or G'q of a segment, V = [v | 1]."""
    return (value_dim + 1) * row(head_dim, itemsize)


def scratch_size(head_dim: int, value_dim: int, itemsize: int) -> int:
    """Elements a thread works in: q, k, v, g, a transpose, scores, a result and sums both ways."""
    keys, values = row(head_dim, itemsize), row(value_dim + 1, itemsize)
    tokens = 2 * keys + 2 * values + 2 * max(keys, values) + CHUNK
    return CHUNK * tokens + 2 * keys * values


def summed(count: int, causal: bool) -> int:
    """Number of segments summed before the walk: where causal all but the last (backward: the first)."""
    return count - 1 if causal else count


def packed_slots(count: int) -> int:
    """Room for the sums of packed sequences, which one of as many tokens would be cut into ``count`` for.

    A sequence longer than such a segment is cut into fewer than twice as many segments as its length is of
    them; of a shorter one no sum is kept.
    """
    return 2 * count if count > 1 else 0


def unmasked_scores(n: int) -> int:
    """Scores on and below the diagonal of the chunks of all segments, whose length is a multiple of C."""
    complete, rest = divmod(n, CHUNK)
    return complete * CHUNK * (CHUNK + 1) // 2 + rest * (rest + 1) // 2
