"""Packed sequences that see all of themselves: passes that take one sequence after the other.

A program has a segment, and of each sequence in it reads its rows by the sums of the whole sequence. Those of
a sequence that leaves the segment were summed by ``states``, in two parts of each segment: of the sequence
that goes on behind it, and of the one that began before it. Those of any other the program sums up itself.
"""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from attention.kernels.linear_triton.triton.states import in_first_row
from attention.kernels.triton_common.tiles import (
    Chunk,
    features,
    fold,
    load_rows,
    load_tile,
    moved,
    moved_to,
    of_head,
    slope,
    store_rows,
    store_tile,
    walk_of,
)


@triton.jit
def sum_sequence(
    x, y, x_h, y_h, inv, minus_delta, S, z, walk, begin, end, other, N, d, e, segment_tokens, summed,
    REVERSE: tl.constexpr, WEIGHED: tl.constexpr, LOOP: tl.constexpr,
    MAP: tl.constexpr, T: tl.constexpr, PRECISION: tl.constexpr, C: tl.constexpr, STAGES: tl.constexpr,
    PAD_D: tl.constexpr, PAD_E: tl.constexpr,
):  # fmt: skip
    """S ``[BE, BD]`` and z ``[16, BD]`` of phi(x) and y over one sequence.

    In reverse x = q, scaled by ``inv``, and z is WEIGHED by -delta, of LOOP heads from head ``other`` on.
    """
    D, E = d.width, e.width
    exists = (e.numbers[:, None] < E) & (d.numbers[None, :] < D)
    at = d.numbers[None, :] * E + e.numbers[:, None]
    leaves = (begin < walk.first) | (end > walk.last)
    first = begin // segment_tokens
    last = tl.where(leaves, (end - 1) // segment_tokens, first)
    # What goes on behind each segment but the last, and there what began before it.
    slot = walk.group * summed + summed // 2 + last
    width = tl.where(leaves, D, 0)
    mask = (e.numbers[:, None] < E) & (d.numbers[None, :] < width)
    state = tl.load(S + slot * D * E + at, mask=mask, other=0.0)
    total = tl.load(z + slot * D + d.numbers, mask=d.numbers < width, other=0.0)
    for j in tl.range(first, last):
        slot = walk.group * summed + j
        state += tl.load(S + slot * D * E + at, mask=exists, other=0.0)
        total += tl.load(z + slot * D + d.numbers, mask=d.numbers < D, other=0.0)
    z_sum = in_first_row(total)
    for i in tl.range(0, tl.where(leaves, 0, tl.cdiv(end - begin, C) * LOOP), num_stages=STAGES):
        j, start = i % LOOP, begin + i // LOOP * C
        chunk = Chunk(walk.batch, other + j, start, start.to(tl.int64), walk.rows, end - start)
        x_j = of_head(x, chunk.head - other, x_h, False, LOOP)
        y_j = of_head(y, chunk.head - other, y_h, False, LOOP)
        phi = features(load_tile(x_j, chunk, d, False, True, PAD_D), MAP)
        values = load_tile(y_j, chunk, e, False, True, PAD_E).to(T)
        if REVERSE:
            row = (walk.group * LOOP + j) * N
            phi *= load_rows(inv + row, chunk, True)[:, None]
            if WEIGHED:
                z_sum += fold(phi * load_rows(minus_delta + row, chunk, True)[:, None])
        else:
            phi = tl.where(chunk.rows[:, None] < chunk.left, phi, 0.0)
            z_sum += fold(phi)
        state = tl.dot(tl.trans(values), phi.to(T), state, input_precision=PRECISION)
    return state, z_sum


@triton.jit
def attend_sequences(
    a, b, c, out, inv, S, z, ends,
    a_b, a_h, a_n, b_b, b_h, b_n, c_b, c_h, c_n, out_b, out_h, out_n,
    H, N, D, E, segments, segment_tokens, summed, eps,
    REVERSE: tl.constexpr, KEEP: tl.constexpr, GROUP: tl.constexpr,
    MAP: tl.constexpr, T: tl.constexpr, PRECISION: tl.constexpr,
    C: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, BLOCKS: tl.constexpr, STAGES: tl.constexpr,
    DESCRIBED: tl.constexpr, RAGGED: tl.constexpr, PAD_D: tl.constexpr, PAD_E: tl.constexpr,
):  # fmt: skip
    """As ``attend``: the output and ``inv``, in reverse dv. One program a segment and block of E."""
    LOOP: tl.constexpr = GROUP if REVERSE else 1
    walk = walk_of(H, N, D, E, segments, segment_tokens, C, BD, BE, BLOCKS, HEADS=1 if REVERSE else GROUP)
    d, e = walk.held, walk.split
    other = walk.head * GROUP if REVERSE else walk.head // GROUP
    a = moved(a, a_b, a_h, a_n, walk, False)
    b = moved_to(b, b_b, b_h, b_n, walk.batch, other, False)
    c = moved_to(c, c_b, c_h, c_n, walk.batch, other, False)
    out = moved(out, out_b, out_h, out_n, walk, False)
    token = walk.first
    while token < walk.last:
        begin, end = tl.load(ends + token), tl.load(ends + N + token)
        state, z_sum = sum_sequence(
            b, c, b_h, c_h, inv, inv, S, z, walk, begin, end, other, N, d, e, segment_tokens, summed,
            REVERSE, False, LOOP, MAP, T, PRECISION, C, STAGES, PAD_D, PAD_E,
        )  # fmt: skip
        before, total = state.to(T), z_sum.to(T)
        stop = tl.minimum(end, walk.last)
        for i in tl.range(0, tl.cdiv(stop - token, C), num_stages=STAGES):
            start = token + i * C
            chunk = Chunk(walk.batch, walk.head, start, start.to(tl.int64), walk.rows, stop - start)
            phi = features(load_tile(a, chunk, d, False, True, PAD_D), MAP)
            if PAD_D and MAP == "elu":
                # Beyond D keys are mapped to 1.
                phi = tl.where(d.numbers[None, :] < D, phi, 0.0)
            left_hand = phi.to(T)
            result = tl.dot(left_hand, tl.trans(before), input_precision=PRECISION)
            if not REVERSE:
                norm = tl.sum(tl.dot(left_hand, tl.trans(total), input_precision=PRECISION), 1)
                norm = 1.0 / (norm + eps)
                result *= norm[:, None]
                if KEEP and walk.block == 0:
                    store_rows(inv + walk.sequence * N, norm, chunk, True)
            store_tile(out, result, chunk, e, False, True, PAD_E)
        token = stop


@triton.jit
def differentiate_sequences(
    a, b, x, y, out, inv, minus_delta, S, z, ends,
    a_b, a_h, a_n, b_b, b_h, b_n, x_b, x_h, x_n, y_b, y_h, y_n, out_b, out_h, out_n,
    H, N, D, E, segments, segment_tokens, summed,
    REVERSE: tl.constexpr, GROUP: tl.constexpr,
    MAP: tl.constexpr, T: tl.constexpr, PRECISION: tl.constexpr,
    C: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, BLOCKS: tl.constexpr, STAGES: tl.constexpr,
    DESCRIBED: tl.constexpr, RAGGED: tl.constexpr, PAD_D: tl.constexpr, PAD_E: tl.constexpr,
):  # fmt: skip
    """As ``differentiate``: dq, in reverse dk. One program a segment and block of D."""
    LOOP: tl.constexpr = GROUP if REVERSE else 1
    walk = walk_of(H, N, E, D, segments, segment_tokens, C, BE, BD, BLOCKS, HEADS=1 if REVERSE else GROUP)
    d, e = walk.split, walk.held
    other = walk.head * GROUP if REVERSE else walk.head // GROUP
    a = moved(a, a_b, a_h, a_n, walk, False)
    b = moved_to(b, b_b, b_h, b_n, walk.batch, other, False)
    x = moved(x, x_b, x_h, x_n, walk, False)
    y = moved_to(y, y_b, y_h, y_n, walk.batch, other, False)
    out = moved(out, out_b, out_h, out_n, walk, False)
    ones = tl.full([C, 16], 1.0, T)
    token = walk.first
    while token < walk.last:
        begin, end = tl.load(ends + token), tl.load(ends + N + token)
        state, z_sum = sum_sequence(
            y, b, y_h, b_h, inv, minus_delta, S, z, walk, begin, end, other, N, d, e, segment_tokens, summed,
            REVERSE, True, LOOP, MAP, T, PRECISION, C, STAGES, PAD_D, PAD_E,
        )  # fmt: skip
        before, total = state.to(T), z_sum.to(T)
        stop = tl.minimum(end, walk.last)
        for i in tl.range(0, tl.cdiv(stop - token, C), num_stages=STAGES):
            start = token + i * C
            chunk = Chunk(walk.batch, walk.head, start, start.to(tl.int64), walk.rows, stop - start)
            point = load_tile(x, chunk, d, False, True, PAD_D)
            left_hand = load_tile(a, chunk, e, False, True, PAD_E).to(T)
            result = tl.dot(ones, total, input_precision=PRECISION)
            if not REVERSE:
                result *= load_rows(minus_delta + walk.sequence * N, chunk, True)[:, None]
            result = tl.dot(left_hand, before, result, input_precision=PRECISION)
            if not REVERSE:
                result *= load_rows(inv + walk.sequence * N, chunk, True)[:, None]
            store_tile(out, result * slope(point, MAP), chunk, d, False, True, PAD_D)
        token = stop
