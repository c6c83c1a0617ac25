"""Where packed sequences begin and end, as passes in Triton ask for it.

``ends`` [2, N] in int32 holds for each token where its sequence begins, and where it ends. A walk asks for
the side that it comes from: the beginnings, in reverse the ends.
"""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def find_ends(cu_seqlens, ends, N, sequences, STEPS: tl.constexpr, ROWS: tl.constexpr):
    """Fills ``ends`` by a binary search for each token; of any numbers it makes ends around the token."""
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = token < N
    low, high = tl.zeros([ROWS], tl.int32), tl.full([ROWS], 0, tl.int32) + sequences
    # The last sequence that does not begin behind the token: those before it may be empty.
    for _ in range(STEPS):
        middle = (low + high) // 2
        here = (tl.load(cu_seqlens + middle) <= token) & (low < high - 1)
        low, high = tl.where(here, middle, low), tl.where(here | (low >= high - 1), high, middle)
    begin = tl.load(cu_seqlens + low).to(tl.int32)
    end = tl.load(cu_seqlens + tl.minimum(low + 1, sequences)).to(tl.int32)
    tl.store(ends + token, tl.maximum(tl.minimum(begin, token), 0), mask=exists)
    tl.store(ends + N + token, tl.minimum(tl.maximum(end, token + 1), N), mask=exists)


@triton.jit
def load_bounds(ends, chunk, N, REVERSE: tl.constexpr):
    """The first token that each row of a chunk sees; in reverse the token behind the last that it sees."""
    at = ends + chunk.start + chunk.rows
    return tl.load(at + N if REVERSE else at, mask=chunk.rows < chunk.left, other=0)


@triton.jit
def load_edge(ends, chunk, N, C: tl.constexpr, REVERSE: tl.constexpr):
    """The bound of the row from which a walk goes on: nothing before it is in the state behind."""
    if REVERSE:
        return tl.load(ends + N + chunk.start)
    else:
        return tl.load(ends + tl.minimum(chunk.start + C, N) - 1)


@triton.jit
def within(tokens, bound, REVERSE: tl.constexpr):
    """Whether tokens lie within a bound."""
    return tokens < bound if REVERSE else tokens >= bound


@triton.jit
def between(tokens, lower, upper):
    """Whether tokens are from the lower one on, and before the upper one."""
    return (tokens >= lower) & (tokens < upper)


@triton.jit
def reaches(bound, chunk, C: tl.constexpr, REVERSE: tl.constexpr):
    """Whether a bound lies beyond the chunk, so that its sequence was begun before the walk came there."""
    return bound > chunk.start + C if REVERSE else bound < chunk.start
