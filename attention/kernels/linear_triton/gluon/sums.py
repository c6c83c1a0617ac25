"""The sums from which a Gluon program begins."""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

from typing import Any, NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from attention.kernels.gluon_common.tiles import PRODUCT, ROWS, WIDTH


class Sums(NamedTuple):
    """Pointers to the sums ``S`` and ``z`` of segments, and to ``S0`` and ``z0`` of what preceded.

    ``ends``: of packed sequences. Each is None where there are none.
    """

    S: Any
    z: Any
    S0: Any
    z0: Any
    ends: Any


@gluon.jit
def slots(sums, walk, CAUSAL: gl.constexpr, REVERSE: gl.constexpr, SCANNED: gl.constexpr):
    """Slots of the sums before a segment, first and last + 1; in reverse behind it, not causal all.

    Of packed sequences those of the one that goes on.
    """
    if SCANNED:
        slot = walk.group * (walk.summed + 1)
        if CAUSAL:
            slot += walk.segment + 1 if REVERSE else walk.segment
        elif not REVERSE:
            slot += walk.summed
        return slot, slot + 1
    else:
        slot = walk.group * walk.summed
        begin = slot + walk.segment + 1 if CAUSAL and REVERSE else slot
        end = slot + walk.segment if CAUSAL and not REVERSE else slot + walk.summed
        if sums.ends is not None:
            if REVERSE:
                last = gl.minimum(walk.begin + WIDTH, walk.N) - 1
                end = slot + (gl.load(sums.ends + walk.N + last) - 1) // walk.segment_tokens + 1
            else:
                begin = slot + gl.load(sums.ends + walk.begin) // walk.segment_tokens
        return begin, end


@gluon.jit
def gather_state(sums, walk, d, e, CAUSAL: gl.constexpr, REVERSE: gl.constexpr, SCANNED: gl.constexpr):
    """The state where a segment begins, [D, E] or transposed: as d and e are given, rows or columns."""
    D, E = walk.D, walk.E
    exists = (d < D) & (e < E)
    at = d * E + e
    state = gl.zeros([WIDTH, WIDTH], gl.float32, PRODUCT)
    if sums.S0 is not None:
        state = gl.load(sums.S0 + walk.group * D * E + at, mask=exists, other=0.0)
    if sums.S is not None:
        begin, end = slots(sums, walk, CAUSAL, REVERSE, SCANNED)
        for slot in range(begin, end):
            state += gl.load(sums.S + slot * D * E + at, mask=exists, other=0.0)
    return state


@gluon.jit
def gather_z(sums, walk, CAUSAL: gl.constexpr, REVERSE: gl.constexpr, SCANNED: gl.constexpr):
    """The normaliser's sum where a segment begins, in the first of eight rows: chunks add to all of them."""
    row = gl.arange(0, 8, gl.SliceLayout(1, ROWS))[:, None]
    column = gl.arange(0, WIDTH, gl.SliceLayout(0, ROWS))[None, :]
    first = (row == 0) & (column < walk.D)
    column = row * 0 + column
    z_sum = gl.zeros([8, WIDTH], gl.float32, ROWS)
    if sums.z0 is not None:
        z_sum = gl.load(sums.z0 + walk.group * walk.D + column, mask=first, other=0.0)
    if sums.z is not None:
        begin, end = slots(sums, walk, CAUSAL, REVERSE, SCANNED)
        for slot in range(begin, end):
            z_sum += gl.load(sums.z + slot * walk.D + column, mask=first, other=0.0)
    return z_sum
