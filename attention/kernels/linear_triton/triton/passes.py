"""Linear attention in Triton: what runs on the device, one program a segment of one head.

The sequence is cut into segments so that every multiprocessor has work. ``states`` sums phi(k) v' over
each segment, ``scan`` turns the sums into what stands before (or behind) each, and ``attend`` and
``differentiate`` walk their segment in chunks of C tokens from there: scores within the chunk, the state for
all before it. A backward is three such walks: dv is ``attend`` from the end with q and k exchanged, dq is
``differentiate``, and dk the same from the end.

GROUP heads of queries share one of keys, and one state. Forward and dq have a program for each of them; dk
and dv take them in turn at each chunk, and add them up. PACKED, a sequence may begin within a chunk: scores
and rows of the state before it are masked, and the state behind holds the last sequence of the chunk alone.

T is the dtype of the operands of matrix products: bfloat16 for bfloat16, else float32, but float16 in the
forward of float16: there a sum would overflow, and a small feature vanish, so that each row of an operand is
divided by its largest element first, and keys that are added to the state by the largest of all so far.
All sums are float32. Rows are 64-bit offsets, so that B H N D may pass 2^31.
"""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from attention.kernels.linear_triton.triton.packed import (
    find_ends,
    load_bounds,
    load_edge,
    reaches,
    within,
)
from attention.kernels.linear_triton.triton.sequences import attend_sequences, differentiate_sequences
from attention.kernels.linear_triton.triton.states import Sums, gather, in_first_row, scan, states, total
from attention.kernels.triton_common.tiles import (
    at_head,
    chunk_of,
    features,
    fold,
    grown,
    in_range,
    load_rows,
    load_tile,
    moved,
    moved_to,
    of_head,
    seen,
    sizes,
    slope,
    store_rows,
    store_tile,
    walk_of,
)

__all__ = [
    "attend",
    "attend_sequences",
    "differentiate",
    "differentiate_sequences",
    "find_ends",
    "scan",
    "states",
    "total",
]


@triton.jit
def attend(
    a, b, c, out, inv, S, z, S0, z0, ends,
    a_b, a_h, a_n, b_b, b_h, b_n, c_b, c_h, c_n, out_b, out_h, out_n,
    H, N, D, E, segments, segment_tokens, summed, eps,
    CAUSAL: tl.constexpr, REVERSE: tl.constexpr, KEEP: tl.constexpr, GROUP: tl.constexpr,
    SCANNED: tl.constexpr, SUMS: tl.constexpr, INITIAL: tl.constexpr, PACKED: tl.constexpr,
    MAP: tl.constexpr, T: tl.constexpr, PRECISION: tl.constexpr,
    C: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, BLOCKS: tl.constexpr, STAGES: tl.constexpr,
    DESCRIBED: tl.constexpr, RAGGED: tl.constexpr, PAD_D: tl.constexpr, PAD_E: tl.constexpr,
):  # fmt: skip
    """Forward: out_i = sum_j (phi(a_i).phi(b_j)) c_j / normaliser, whose inverse goes to ``inv``.

    In reverse, dv: a = k, b = q, c = do, j >= i, phi(b_j) scaled by ``inv``. One program a segment and block
    of E.

    Causal, of D = Dv = 64 in bfloat16, by pointers: shared memory 7 tiles of a, b and c x 8192 + operands
    2 x 8192 + z and ones 2 x 2048 = 77824 bytes, in reverse 74240; registers of a thread by ptxas 248 and 203
    of 255, none spilled.
    """
    LOOP: tl.constexpr = GROUP if CAUSAL and REVERSE else 1
    walk = walk_of(H, N, D, E, segments, segment_tokens, C, BD, BE, BLOCKS, HEADS=1 if REVERSE else GROUP)
    d, e = walk.held, walk.split
    # Of b and c the head that is shared, in reverse the first of those that share.
    other = walk.head * GROUP if REVERSE else walk.head // GROUP
    a = moved(a, a_b, a_h, a_n, walk, DESCRIBED)
    b = moved_to(b, b_b, b_h, b_n, walk.batch, other, DESCRIBED)
    c = moved_to(c, c_b, c_h, c_n, walk.batch, other, DESCRIBED)
    out = moved(out, out_b, out_h, out_n, walk, DESCRIBED)
    sums = Sums(
        S if SUMS else None, z if SUMS else None, S0 if INITIAL else None, z0 if INITIAL else None,
        ends if PACKED else None, summed,
    )  # fmt: skip
    state, z_sum = gather(sums, walk, N, segment_tokens, d, e, CAUSAL, REVERSE, SCANNED)
    ahead = seen(walk.rows, REVERSE)
    ones = tl.full([C, 16], 0.0625, T)
    z_sum = in_first_row(z_sum)
    chunks = tl.cdiv(walk.last - walk.first, C)
    if LOOP > 1:
        result = tl.zeros([C, BE], tl.float32)
    # Of float16: the largest feature so far, and what the state is to be multiplied by.
    peak, unit = 0.0, 1.0
    for i in tl.range(0, chunks * LOOP, num_stages=STAGES):
        j = i % LOOP
        chunk = chunk_of(walk, i // LOOP, chunks, N, C, REVERSE)
        before = in_range(state, T)
        if not REVERSE:
            total = in_range(z_sum, T)
        if tl.float16 == T:
            of_before, of_total = sizes(state) * unit, sizes(z_sum)
        mask = ahead
        if PACKED:
            bounds, edge = load_bounds(ends, chunk, N, REVERSE), load_edge(ends, chunk, N, C, REVERSE)
            tokens, reached = chunk.start + chunk.rows, reaches(bounds, chunk, C, REVERSE)[:, None]
            mask = ahead & within(tokens[None, :], bounds[:, None], REVERSE)
            # Of a sequence that ended nothing goes on; j others of the group have added to the next.
            goes_on = reaches(edge, chunk, C, REVERSE) | (j > 0)
            state, z_sum = tl.where(goes_on, state, 0.0), tl.where(goes_on, z_sum, 0.0)
            if tl.float16 == T:
                peak = tl.where(goes_on, peak, 0.0)

        # Keys and values, and z after the chunk.
        if CAUSAL:
            theirs = at_head(chunk, other + j)
            b_j = of_head(b, theirs.head - other, b_h, DESCRIBED, LOOP)
            c_j = of_head(c, theirs.head - other, c_h, DESCRIBED, LOOP)
            keys = features(load_tile(b_j, theirs, d, DESCRIBED, RAGGED, PAD_D), MAP)
            if REVERSE:
                keys *= load_rows(inv + (walk.group * LOOP + j) * N, chunk, RAGGED)[:, None]
            if tl.float16 == T:
                if PAD_D and MAP == "elu":
                    keys = tl.where(d.numbers[None, :] < D, keys, 0.0)
                of_keys = sizes(keys)
            right_hand = in_range(keys, T)
            added = right_hand
            if PACKED:
                keys = tl.where(within(tokens, edge, REVERSE)[:, None], keys, 0.0)
                added = keys.to(T)
            if tl.float16 == T:
                peak, unit, state = grown(peak, unit, state, keys)
                added = (keys / unit).to(T)
            if not REVERSE:
                z_sum += fold(keys)
            values = load_tile(c_j, theirs, e, DESCRIBED, RAGGED, PAD_E).to(T)

        # Queries, and what comes from before the chunk.
        phi = features(load_tile(a, chunk, d, DESCRIBED, RAGGED, PAD_D), MAP)
        if PAD_D and MAP == "elu":
            # Beyond D keys are mapped to 1.
            phi = tl.where(d.numbers[None, :] < D, phi, 0.0)
        left_hand = in_range(phi, T)
        if tl.float16 == T:
            of_rows = sizes(phi)
        if CAUSAL:
            scores = tl.dot(left_hand, tl.trans(right_hand), input_precision=PRECISION)
            scores = tl.where(mask, scores, 0.0)
            if tl.float16 == T:
                scores *= of_keys[None, :]
                of_scores = sizes(scores)
            scores = in_range(scores, T)
        if LOOP == 1 or j == 0:
            result = tl.dot(left_hand, tl.trans(before), input_precision=PRECISION)
            if tl.float16 == T:
                result *= of_before[None, :]
                if CAUSAL:
                    result /= of_scores[:, None]
            if PACKED:
                result = tl.where(reached, result, 0.0)
        if not REVERSE:
            norm = tl.dot(left_hand, tl.trans(total), input_precision=PRECISION)
            if tl.float16 == T:
                norm *= of_total[None, :]
                if CAUSAL:
                    norm /= of_scores[:, None]
                    of_rows *= of_scores
            if PACKED:
                norm = tl.where(reached, norm, 0.0)

        # What comes from within the chunk, and the state after it.
        if CAUSAL:
            if not REVERSE:
                norm = tl.dot(scores, ones, norm, input_precision=PRECISION)
            result = tl.dot(scores, values, result, input_precision=PRECISION)
            state = tl.dot(tl.trans(values), added, state, input_precision=PRECISION)

        # The output, normalised.
        if not REVERSE:
            if tl.float16 == T:
                norm = 1.0 / (tl.sum(norm, 1) + eps / of_rows)
                result *= norm[:, None]
                norm /= of_rows
            else:
                norm = 1.0 / (tl.sum(norm, 1) + eps)
                result *= norm[:, None]
            if KEEP and walk.block == 0:
                store_rows(inv + walk.sequence * N, norm, chunk, RAGGED)
        if LOOP == 1 or j == LOOP - 1:
            store_tile(out, result, chunk, e, DESCRIBED, RAGGED, PAD_E)


@triton.jit
def differentiate(
    a, b, x, y, out, inv, minus_delta, S, z, S0, z0, ends,
    a_b, a_h, a_n, b_b, b_h, b_n, x_b, x_h, x_n, y_b, y_h, y_n, out_b, out_h, out_n,
    H, N, D, E, segments, segment_tokens, summed,
    CAUSAL: tl.constexpr, REVERSE: tl.constexpr, GROUP: tl.constexpr,
    SCANNED: tl.constexpr, SUMS: tl.constexpr, INITIAL: tl.constexpr, PACKED: tl.constexpr,
    MAP: tl.constexpr, T: tl.constexpr, PRECISION: tl.constexpr,
    C: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, BLOCKS: tl.constexpr, STAGES: tl.constexpr,
    DESCRIBED: tl.constexpr, RAGGED: tl.constexpr, PAD_D: tl.constexpr, PAD_E: tl.constexpr,
):  # fmt: skip
    """dq_i = phi'(q_i) inv_i sum_j (do_i.v_j - delta_i) phi(k_j): a = do, b = v, x = q, y = k.

    In reverse, dk_i = phi'(k_i) sum_j (v_i.do_j - delta_j) inv_j phi(q_j), j >= i: a = v, b = do, x = k,
    y = q. One program a segment and block of D.

    Causal, of D = Dv = 64 in bfloat16, by pointers: shared memory 10 tiles of a, b, x and y x 8192 + operand
    8192 + inv and -delta 1024 = 91136 bytes, in reverse 91648; registers of a thread by ptxas 252 and 254 of
    255, none spilled.
    """
    LOOP: tl.constexpr = GROUP if CAUSAL and REVERSE else 1
    walk = walk_of(H, N, E, D, segments, segment_tokens, C, BE, BD, BLOCKS, HEADS=1 if REVERSE else GROUP)
    d, e = walk.split, walk.held
    # Of b and y the head that is shared, in reverse the first of those that share.
    other = walk.head * GROUP if REVERSE else walk.head // GROUP
    a = moved(a, a_b, a_h, a_n, walk, DESCRIBED)
    b = moved_to(b, b_b, b_h, b_n, walk.batch, other, DESCRIBED)
    x = moved(x, x_b, x_h, x_n, walk, DESCRIBED)
    y = moved_to(y, y_b, y_h, y_n, walk.batch, other, DESCRIBED)
    out = moved(out, out_b, out_h, out_n, walk, DESCRIBED)
    sums = Sums(
        S if SUMS else None, z if SUMS else None, S0 if INITIAL else None, z0 if INITIAL else None,
        ends if PACKED else None, summed,
    )  # fmt: skip
    state, z_sum = gather(sums, walk, N, segment_tokens, d, e, CAUSAL, REVERSE, SCANNED)
    ahead = seen(walk.rows, REVERSE)
    chunks = tl.cdiv(walk.last - walk.first, C)
    ones = tl.full([C, 16], 1.0, T)
    z_sum = in_first_row(z_sum)
    if LOOP > 1:
        result = tl.zeros([C, BD], tl.float32)
    for i in tl.range(0, chunks * LOOP, num_stages=STAGES):
        j = i % LOOP
        chunk = chunk_of(walk, i // LOOP, chunks, N, C, REVERSE)
        point = load_tile(x, chunk, d, DESCRIBED, RAGGED, PAD_D)
        queries = load_tile(a, chunk, e, DESCRIBED, RAGGED, PAD_E).to(T)
        if CAUSAL or not REVERSE:
            row = ((walk.group * LOOP + j) if REVERSE else walk.sequence) * N
            scale = load_rows(inv + row, chunk, RAGGED)
            bias = load_rows(minus_delta + row, chunk, RAGGED)

        # What comes from before the chunk.
        if LOOP == 1:
            result = tl.dot(ones, z_sum.to(T), input_precision=PRECISION)
            if not REVERSE:
                result *= bias[:, None]
            result = tl.dot(queries, state.to(T), result, input_precision=PRECISION)
        else:
            # Once a chunk, by zeros: Triton 3.6 cannot load ahead what a product in a branch reads.
            result = tl.where(j == 0, 0.0, result)
            result = tl.dot(ones, tl.where(j == 0, z_sum, 0.0).to(T), result, input_precision=PRECISION)
            held = tl.where(j == 0, state, 0.0).to(T)
            result = tl.dot(queries, held, result, input_precision=PRECISION)
        mask = ahead
        if PACKED:
            bounds, edge = load_bounds(ends, chunk, N, REVERSE), load_edge(ends, chunk, N, C, REVERSE)
            tokens = chunk.start + chunk.rows
            mask = ahead & within(tokens[None, :], bounds[:, None], REVERSE)
            result = tl.where(reaches(bounds, chunk, C, REVERSE)[:, None] | (j > 0), result, 0.0)
            # Of a sequence that ended nothing goes on; j others of the group have added to the next.
            goes_on = reaches(edge, chunk, C, REVERSE) | (j > 0)
            state, z_sum = tl.where(goes_on, state, 0.0), tl.where(goes_on, z_sum, 0.0)

        # What comes from within the chunk, and state and z after it.
        if CAUSAL:
            theirs = at_head(chunk, other + j)
            b_j = of_head(b, theirs.head - other, b_h, DESCRIBED, LOOP)
            y_j = of_head(y, theirs.head - other, y_h, DESCRIBED, LOOP)
            keys = load_tile(b_j, theirs, e, DESCRIBED, RAGGED, PAD_E).to(T)
            phi = features(load_tile(y_j, theirs, d, DESCRIBED, RAGGED, PAD_D), MAP)
            scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION)
            if REVERSE:
                phi *= scale[:, None]
                scores += bias[None, :]
            else:
                scores += bias[:, None]
            scores = tl.where(mask, scores, 0.0).to(T)
            values = phi.to(T)
            added = values
            if PACKED:
                phi = tl.where(within(tokens, edge, REVERSE)[:, None], phi, 0.0)
                added = phi.to(T)
            if REVERSE:
                z_sum += fold(phi * bias[:, None])
            else:
                z_sum += fold(phi)
            result = tl.dot(scores, values, result, input_precision=PRECISION)
            state = tl.dot(tl.trans(keys), added, state, input_precision=PRECISION)

        # The output.
        if not REVERSE:
            result *= scale[:, None]
        if LOOP == 1 or j == LOOP - 1:
            store_tile(out, result * slope(point, MAP), chunk, d, DESCRIBED, RAGGED, PAD_D)
