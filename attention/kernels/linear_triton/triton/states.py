"""Sums over segments in Triton: of each one, of all before each, and as a later pass gathers them."""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from attention.kernels.linear_triton.triton.packed import between
from attention.kernels.triton_common.tiles import (
    Chunk,
    features,
    fold,
    grown,
    load_rows,
    load_tile,
    moved_to,
    of_head,
    store_rows,
    walk_of,
)


@triton.jit
def in_first_row(z_sum):
    """The normaliser's sum as the first of 16 rows: chunks add to all of them."""
    return tl.where(tl.arange(0, 16)[:, None] == 0, z_sum[None, :], 0.0)


@triton.jit
def states(
    x, y, o, inv, minus_delta, S, z, ends,
    x_b, x_h, x_n, y_b, y_h, y_n, o_b, o_h, o_n,
    H, N, D, E, segments, segment_tokens, counted,
    GRADIENT: tl.constexpr, GROUP: tl.constexpr, PACKED: tl.constexpr, BOTH: tl.constexpr,
    MAP: tl.constexpr, T: tl.constexpr, PRECISION: tl.constexpr,
    C: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, BLOCKS: tl.constexpr, STAGES: tl.constexpr,
    DESCRIBED: tl.constexpr, RAGGED: tl.constexpr, PAD_D: tl.constexpr, PAD_E: tl.constexpr,
):  # fmt: skip
    """S = sum phi(x) y', z = sum phi(x) of each segment.

    For gradients x = q, y = do, phi is scaled by ``inv``, and z weighed by -delta = -do.o, which is stored;
    sums are those of the GROUP heads of queries that share keys. PACKED, a segment sums the sequence alone
    that goes on behind it, for gradients the one that began before it; BOTH, the first half of the sums are
    the former and the second the latter. One program a segment, of the ``counted`` first, and block of D:
    each holds all of y, which delta needs.

    Of D = Dv = 64 in bfloat16, by pointers: shared memory 5 tiles of x and y x 8192 + operand 8192 = 49152
    bytes, for gradients 6 tiles x 8192 + inv 512 + operand 8192 = 57856; registers of a thread by ptxas 121
    and 157 of 255, none spilled.
    """
    LOOP: tl.constexpr = GROUP if GRADIENT else 1
    walk = walk_of(H, N, E, D, counted, segment_tokens, C, BE, BD, BLOCKS)
    d, e, head = walk.split, walk.held, walk.head * LOOP
    first, last = walk.first, walk.last
    if BOTH:
        behind = walk.segment < counted // 2
        first = walk.segment % (counted // 2) * segment_tokens
        last = tl.minimum(first + segment_tokens, N)
    x = moved_to(x, x_b, x_h, x_n, walk.batch, head, DESCRIBED)
    y = moved_to(y, y_b, y_h, y_n, walk.batch, head, DESCRIBED)
    o = moved_to(o, o_b, o_h, o_n, walk.batch, head, DESCRIBED)
    state = tl.zeros([BE, BD], tl.float32)
    z_sum = tl.zeros([16, BD], tl.float32)
    # Of float16: the largest feature so far, and what the state is to be multiplied by.
    peak, unit = 0.0, 1.0
    chunks, skipped = tl.cdiv(last - first, C), 0
    if PACKED:
        # Tokens from the lower one on, up to the upper one.
        begun, goes_on = tl.load(ends + first) < first, tl.load(ends + N + last - 1) > last
        lower, upper = tl.where(goes_on, tl.load(ends + last - 1), N), N
        if BOTH:
            lower, upper = tl.where(behind, lower, 0), tl.where(behind, N, tl.load(ends + N + first))
            upper = tl.where(behind | begun, upper, 0)
        elif GRADIENT:
            lower, upper = 0, tl.where(begun, tl.load(ends + N + first), 0)
        if not GRADIENT:
            skipped = tl.minimum((tl.maximum(lower, first) - first) // C, chunks)
            chunks = tl.minimum(chunks, tl.cdiv(tl.maximum(upper - first, 0), C))
    for i in tl.range(skipped, chunks * LOOP, num_stages=STAGES):
        j, start = i % LOOP, first + i // LOOP * C
        chunk = Chunk(walk.batch, head + j, start, start.to(tl.int64), walk.rows, N - start)
        row = (walk.group * LOOP + j) * N
        x_j = of_head(x, chunk.head - head, x_h, DESCRIBED, LOOP)
        y_j = of_head(y, chunk.head - head, y_h, DESCRIBED, LOOP)
        phi = features(load_tile(x_j, chunk, d, DESCRIBED, RAGGED, PAD_D), MAP)
        tile = load_tile(y_j, chunk, e, DESCRIBED, RAGGED, PAD_E)
        if GRADIENT:
            o_j = of_head(o, chunk.head - head, o_h, DESCRIBED, LOOP)
            out = load_tile(o_j, chunk, e, DESCRIBED, RAGGED, PAD_E).to(tl.float32)
            bias = -tl.sum(tile.to(tl.float32) * out, 1)
            store_rows(minus_delta + row, bias, chunk, RAGGED)
            phi *= load_rows(inv + row, chunk, RAGGED)[:, None]
            if PACKED:
                phi = tl.where(between(start + walk.rows, lower, upper)[:, None], phi, 0.0)
            z_sum += fold(phi * bias[:, None])
        else:
            if PACKED:
                phi = tl.where(between(start + walk.rows, lower, upper)[:, None], phi, 0.0)
            if RAGGED and MAP == "elu":
                phi = tl.where(chunk.rows[:, None] < chunk.left, phi, 0.0)
            z_sum += fold(phi)
        if tl.float16 == T:
            if PAD_D and MAP == "elu":
                phi = tl.where(d.numbers[None, :] < D, phi, 0.0)
            peak, unit, state = grown(peak, unit, state, phi)
            phi /= unit
        state = tl.dot(tl.trans(tile.to(T)), phi.to(T), state, input_precision=PRECISION)
    if tl.float16 == T:
        state *= unit
    slot = walk.group * segments + walk.segment
    exists = (e.numbers[:, None] < E) & (d.numbers[None, :] < D)
    tl.store(S + slot * D * E + d.numbers[None, :] * E + e.numbers[:, None], state, mask=exists)
    tl.store(z + slot * D + d.numbers, tl.sum(z_sum, 0), mask=d.numbers < D)


@triton.jit
def scan(
    S, z, S_before, z_before, S0, z0, L, D, blocks, blocks_z, segments, positions,
    INITIAL: tl.constexpr, REVERSE: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Sums of segments into the sums before each: slot s of ``segments`` + 1 holds those of all j < s.

    In reverse slot s holds those of all j >= s. ``positions`` segments have a sum, counted from where
    the scan begins. One program a sequence and WIDTH of the L columns of S, in ``blocks``, or of the D of z.
    """
    head = (tl.program_id(0) // (blocks + blocks_z)).to(tl.int64)
    block = tl.program_id(0) % (blocks + blocks_z)
    partial, prefix, initial = S, S_before, S0
    if block >= blocks:
        partial, prefix, initial = z, z_before, z0
        block -= blocks
        L = D
    columns = block * WIDTH + tl.arange(0, WIDTH)
    exists = columns < L
    partial += head * segments * L
    prefix += head * (segments + 1) * L
    total = tl.zeros([WIDTH], tl.float32)
    if INITIAL:
        total = tl.load(initial + head * L + columns, mask=exists, other=0.0)
    begin = segments if REVERSE else 0
    tl.store(prefix + begin * L + columns, total, mask=exists)
    for first in range(0, positions, ROWS):
        position = first + tl.arange(0, ROWS)
        source = segments - 1 - position if REVERSE else position
        target = source if REVERSE else source + 1
        mask = (position[:, None] < positions) & exists[None, :]
        sums = tl.load(partial + source[:, None] * L + columns[None, :], mask=mask, other=0.0)
        tl.store(
            prefix + target[:, None] * L + columns[None, :], total[None, :] + tl.cumsum(sums, 0), mask=mask
        )
        total += tl.sum(sums, 0)


@triton.jit
def total(S, z, row, L, D, blocks, blocks_z, segments, heads, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """The sum over ``segments`` of S of all ``heads``, and behind it that of z; programs as in ``scan``."""
    head = (tl.program_id(0) // (blocks + blocks_z)).to(tl.int64)
    block = tl.program_id(0) % (blocks + blocks_z)
    partial = S
    if block >= blocks:
        partial = z
        row += heads * L
        block -= blocks
        L = D
    columns = block * WIDTH + tl.arange(0, WIDTH)
    exists = columns < L
    partial += head * segments * L
    found = tl.zeros([WIDTH], tl.float32)
    for first in range(0, segments, ROWS):
        position = first + tl.arange(0, ROWS)
        mask = (position[:, None] < segments) & exists[None, :]
        found += tl.sum(tl.load(partial + position[:, None] * L + columns[None, :], mask=mask, other=0.0), 0)
    tl.store(row + head * L + columns, found, mask=exists)


class Sums(NamedTuple):
    """Pointers to the sums ``S`` and ``z`` of segments, ``summed`` in all, or None.

    ``S0`` and ``z0``: of what preceded, ``ends`` of packed sequences, or None.
    """

    S: Any
    z: Any
    S0: Any
    z0: Any
    ends: Any
    summed: Any


@triton.jit
def gather(
    sums, walk, N, segment_tokens, d, e, CAUSAL: tl.constexpr, REVERSE: tl.constexpr, SCANNED: tl.constexpr
):  # fmt: skip
    """State ``[BE, BD]`` and z ``[BD]`` before a segment; in reverse behind it, not causal of all.

    Few sums are added up here, by each program its own, and so are those of one packed sequence; many were
    SCANNED.
    """
    D, E = d.width, e.width
    BD: tl.constexpr = d.numbers.shape[0]
    BE: tl.constexpr = e.numbers.shape[0]
    exists = (e.numbers[:, None] < E) & (d.numbers[None, :] < D)
    at = d.numbers[None, :] * E + e.numbers[:, None]
    state = tl.zeros([BE, BD], tl.float32)
    z_sum = tl.zeros([BD], tl.float32)
    if SCANNED:
        slot = walk.segment
        if not CAUSAL:
            slot = 0 if REVERSE else sums.summed
        elif REVERSE:
            slot = walk.segment + 1
        slot += walk.group * (sums.summed + 1)
        state = tl.load(sums.S + slot * D * E + at, mask=exists, other=0.0)
        z_sum = tl.load(sums.z + slot * D + d.numbers, mask=d.numbers < D, other=0.0)
    else:
        if sums.S0 is not None:
            state = tl.load(sums.S0 + walk.group * D * E + at, mask=exists, other=0.0)
            z_sum = tl.load(sums.z0 + walk.group * D + d.numbers, mask=d.numbers < D, other=0.0)
        if sums.S is not None:
            begin, end = 0, sums.summed
            if CAUSAL:
                if REVERSE:
                    begin = walk.segment + 1
                else:
                    end = walk.segment
            if sums.ends is not None:
                if REVERSE:
                    end = (tl.load(sums.ends + N + walk.last - 1) - 1) // segment_tokens + 1
                else:
                    begin = tl.load(sums.ends + walk.first) // segment_tokens
            # Loaded ahead where that takes 49 kB of shared memory, not four times as much.
            for j in tl.range(begin, end, num_stages=4 if BD * BE <= 4096 else 1):
                slot = walk.group * sums.summed + j
                state += tl.load(sums.S + slot * D * E + at, mask=exists, other=0.0)
                z_sum += tl.load(sums.z + slot * D + d.numbers, mask=d.numbers < D, other=0.0)
    return state, z_sum
