"""Where packed sequences begin and end, as passes in Gluon ask for it.

``ends`` [2, N] in int32 holds for each token where its sequence begins, and where it ends. A walk asks for
the side that it comes from: the beginnings, in reverse the ends. A sequence may begin within a chunk.
"""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from attention.kernels.gluon_common.tiles import LEFT, PRODUCT, WIDTH, opaque


@gluon.jit
def load_bounds(ends, start, N, REVERSE: gl.constexpr):
    """The first token that each row of a chunk sees; in reverse the token behind the last that it sees."""
    token = start + gl.arange(0, WIDTH, gl.SliceLayout(1, PRODUCT))
    exists = (token >= 0) & (token < N)
    return gl.load(ends + token + N if REVERSE else ends + token, mask=exists, other=0)


@gluon.jit
def load_edge(ends, start, N, REVERSE: gl.constexpr):
    """The bound of the row from which a walk goes on: nothing before it is in the state behind."""
    if REVERSE:
        return gl.load(ends + N + gl.maximum(start, 0))
    else:
        return gl.load(ends + gl.minimum(start + WIDTH, N) - 1)


@gluon.jit
def whole_chunks(ends, start, left, N, REVERSE: gl.constexpr):
    """How many of the ``left`` chunks from ``start`` on are all of the sequence from which the walk comes."""
    if REVERSE:
        behind = gl.minimum(start + WIDTH, N - 1)
        begin = gl.load(ends + behind)
        count = gl.where(start + WIDTH < N, (behind - begin) // WIDTH, 0)
    else:
        end = gl.load(ends + N + gl.maximum(start - 1, 0))
        # Beyond N there is no other sequence.
        count = gl.where(start > 0, gl.where(end < N, gl.maximum(end - start, 0) // WIDTH, left), 0)
    return gl.minimum(count, left)


@gluon.jit
def within(tokens, bound, REVERSE: gl.constexpr):
    """Whether tokens lie within a bound."""
    return tokens < bound if REVERSE else tokens >= bound


@gluon.jit
def reaches(bound, start, REVERSE: gl.constexpr):
    """Whether a bound lies beyond the chunk, so that its sequence was begun before the walk came there."""
    return bound > start + WIDTH if REVERSE else bound < start


@gluon.jit
def seen(scores, bounds, start, REVERSE: gl.constexpr):
    """Scores, zero where a column is later than its row (in reverse: earlier) or of another sequence."""
    row = opaque(gl.arange(0, WIDTH, gl.SliceLayout(1, PRODUCT)))[:, None]
    column = gl.arange(0, WIDTH, gl.SliceLayout(0, PRODUCT))[None, :]
    ahead = row <= column if REVERSE else row >= column
    return gl.where(ahead & within(column, (bounds - start)[:, None], REVERSE), scores, 0.0)


@gluon.jit
def left_within(tile, start, edge, REVERSE: gl.constexpr):
    """A tile [width, tokens] as a left operand, zero at the tokens that lie not within an edge."""
    token = start + gl.arange(0, WIDTH, gl.SliceLayout(0, LEFT))
    return gl.where(within(token, edge, REVERSE)[None, :], tile.load(LEFT), 0.0)
