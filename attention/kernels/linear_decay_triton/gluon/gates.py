"""The gates of a chunk, of which ``cumulate`` has summed each half."""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from attention.kernels.gluon_common.tiles import WIDTH, power

ROW = gl.constexpr(gl.BlockedLayout([1], [32], [8], [0]))


@gluon.jit
def gates_of(sums, start, N, REVERSE: gl.constexpr):
    """The gates of the chunk at ``start``: up to each token, behind each token, and of all of it.

    As powers of two: ``until`` the sum of those up to a token, ``weights`` what those between a token and the
    state after the chunk keep, ``end`` the sum of all. Beyond N there are no gates.
    """
    HALF: gl.constexpr = WIDTH // 2
    last = gl.minimum(N - start, WIDTH) - 1
    row = gl.minimum(gl.arange(0, WIDTH, ROW), last)
    first_half = gl.load(sums + start + gl.minimum(last, HALF - 1))
    until = gl.load(sums + start + row) + gl.where(row < HALF, 0.0, first_half)
    end = gl.load(sums + start + last) + gl.where(last < HALF, 0.0, first_half)
    return until, power(until if REVERSE else end - until), end
