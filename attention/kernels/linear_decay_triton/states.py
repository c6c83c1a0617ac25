"""Sums in Triton: of the gates of a chunk, of what segments leave, and of what stands before each."""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from attention.kernels.triton_common.tiles import (
    chunk_of,
    exp2,
    features,
    load_tile,
    moved,
    walk_of,
)

LOG2E = tl.constexpr(1.4426950408889634)
LEAST = tl.constexpr(-128.0)
"""Gates below it are taken for it: e^-128 is zero in float32, and -inf would have no differences."""


@triton.jit
def cumulate(g, sums, N, chunks, all_chunks, C: tl.constexpr, ROWS: tl.constexpr):
    """Sums of the gates of each chunk up to each token, as powers of two. One program ROWS chunks.

    A sequence's first gate counts as 0: nothing is before it, which e^200 times as much would make NaN.
    """
    chunk = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    token = (chunk % chunks)[:, None] * C + tl.arange(0, C)[None, :]
    place = (chunk // chunks)[:, None] * N + token
    exists = (chunk < all_chunks)[:, None] & (token < N)
    gates = tl.load(g + place, mask=exists & (token > 0), other=0.0)
    tl.store(sums + place, tl.cumsum(least(gates), 1), mask=exists)


@triton.jit
def sum_gates(g, sums, chunk, RAGGED: tl.constexpr):
    """Sums of the gates of a chunk up to each of its tokens, which are stored, and to its end."""
    C: tl.constexpr = chunk.rows.shape[0]
    exists = chunk.rows < chunk.left if RAGGED else chunk.rows < C
    gates = tl.load(g + chunk.offset + chunk.rows, mask=exists & (chunk.start + chunk.rows > 0), other=0.0)
    until = tl.cumsum(least(gates), 0).to(sums.dtype.element_ty)
    tl.store(sums + chunk.offset + chunk.rows, until, mask=exists)
    return until, tl.sum(tl.where(chunk.rows == C - 1, until, 0.0), 0)


@triton.jit
def least(gates):
    """Gates as powers of two, float64."""
    return tl.maximum(gates, LEAST, propagate_nan=tl.PropagateNan.ALL).to(tl.float64) * LOG2E


@triton.jit
def gates_of(sums, chunk, RAGGED: tl.constexpr):
    """Sums of the gates of a chunk up to each of its tokens, beyond the last too, and to its end."""
    sums += chunk.offset
    C: tl.constexpr = chunk.rows.shape[0]
    if RAGGED:
        last = tl.minimum(chunk.left, C) - 1
        return tl.load(sums + tl.minimum(chunk.rows, last)), tl.load(sums + last)
    else:
        return tl.load(sums + chunk.rows), tl.load(sums + C - 1)


@triton.jit
def power(x):
    """2^x, float32."""
    return exp2(x.to(tl.float32))


@triton.jit
def states(
    x, y, g, sums, S, totals,
    x_b, x_h, x_n, y_b, y_h, y_n,
    H, N, D, E, segments, segment_tokens, counted,
    REVERSE: tl.constexpr, GATES: tl.constexpr,
    MAP: tl.constexpr, T: tl.constexpr, PRECISION: tl.constexpr,
    C: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, BLOCKS: tl.constexpr, STAGES: tl.constexpr,
    DESCRIBED: tl.constexpr, RAGGED: tl.constexpr, PAD_D: tl.constexpr, PAD_E: tl.constexpr,
):  # fmt: skip
    """What a segment leaves behind, sum exp(gates after x) y phi(x)', and the sum of its gates.

    Of the ``counted`` first segments; with GATES, where one program holds a state, the gates of all segments
    are summed on the way, else their sums are known. In reverse, for gradients, what the last segments leave
    to those before: exp(gates from its beginning to x). One program a segment and block of D.
    """
    skipped = segments - counted if REVERSE else 0
    walked = segments if GATES else counted
    walk = walk_of(H, N, E, D, walked, segment_tokens, C, BE, BD, BLOCKS, skipped)
    d, e = walk.split, walk.held
    x = moved(x, x_b, x_h, x_n, walk, DESCRIBED)
    y = moved(y, y_b, y_h, y_n, walk, DESCRIBED)
    g += walk.sequence * N
    sums += walk.sequence * N
    state = tl.zeros([BE, BD], tl.float32)
    total = 0.0
    chunks = tl.cdiv(walk.last - walk.first, C)
    leaves = walk.segment - skipped < counted
    steps = tl.where(leaves, chunks, 0) if GATES else chunks
    for i in tl.range(0, steps, num_stages=STAGES):
        chunk = chunk_of(walk, i, chunks, N, C, REVERSE)
        if GATES:
            until, end = sum_gates(g, sums, chunk, RAGGED)
        else:
            until, end = gates_of(sums, chunk, RAGGED)
        weight = power(until if REVERSE else end - until)
        phi = features(load_tile(x, chunk, d, DESCRIBED, RAGGED, PAD_D), MAP) * weight[:, None]
        tile = load_tile(y, chunk, e, DESCRIBED, RAGGED, PAD_E)
        state = tl.dot(tl.trans(tile.to(T)), phi.to(T), state * power(end), input_precision=PRECISION)
        total += end.to(tl.float32)
    if leaves:
        slot = walk.sequence * counted + walk.segment - skipped
        exists = (e.numbers[:, None] < E) & (d.numbers[None, :] < D)
        tl.store(S + slot * E * D + e.numbers[:, None] * D + d.numbers[None, :], state, mask=exists)
        if walk.block == 0:
            tl.store(totals + slot, total)
    if GATES:
        for i in range(steps, chunks):
            sum_gates(g, sums, chunk_of(walk, i, chunks, N, C, False), RAGGED)


@triton.jit
def scan(
    partial, totals, prefix, L, blocks, counted, REVERSE: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    """What ``counted`` segments leave into what stands before each of them and one more, in reverse behind.

    One program a sequence and WIDTH of its L columns.
    """
    head = (tl.program_id(0) // blocks).to(tl.int64)
    columns = (tl.program_id(0) % blocks) * WIDTH + tl.arange(0, WIDTH)
    exists = columns < L
    partial += head * counted * L
    totals += head * counted
    prefix += head * (counted + 1) * L
    state = tl.zeros([WIDTH], tl.float32)
    tl.store(prefix + (counted if REVERSE else 0) * L + columns, state, mask=exists)
    for position in tl.range(0, counted, num_stages=4):
        source = counted - 1 - position if REVERSE else position
        target = source if REVERSE else source + 1
        own = tl.load(partial + source * L + columns, mask=exists, other=0.0)
        state = state * exp2(tl.load(totals + source)) + own
        tl.store(prefix + target * L + columns, state, mask=exists)


@triton.jit
def gather(
    S, totals, walk, segments, d, e,
    REVERSE: tl.constexpr, SCANNED: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """State ``[BE, BD]`` before a segment, in reverse behind it; few sums are added up here, many SCANNED."""
    D, E = d.width, e.width
    BD: tl.constexpr = d.numbers.shape[0]
    BE: tl.constexpr = e.numbers.shape[0]
    exists = (e.numbers[:, None] < E) & (d.numbers[None, :] < D)
    at = e.numbers[:, None] * D + d.numbers[None, :]
    state = tl.zeros([BE, BD], tl.float32)
    if SCANNED:
        slot = walk.sequence * segments + walk.segment
        state = tl.load(S + slot * E * D + at, mask=exists, other=0.0)
    elif SUMS:
        steps = segments - 1 - walk.segment if REVERSE else walk.segment
        # Loaded ahead where that takes 49 kB of shared memory, not four times as much.
        for i in tl.range(0, steps, num_stages=4 if BD * BE <= 4096 else 1):
            slot = walk.sequence * (segments - 1) + (segments - 2 - i if REVERSE else i)
            own = tl.load(S + slot * E * D + at, mask=exists, other=0.0)
            state = state * exp2(tl.load(totals + slot)) + own
    return state
