"""Linear attention in Triton: what runs on the device, one program a segment of one head.

The sequence is cut into segments so that every multiprocessor has work. ``states`` sums phi(k) v' over
each segment, ``scan`` turns the sums into what stands before (or behind) each, and ``attend`` and
``differentiate`` walk their segment in chunks of C tokens from there: scores within the chunk, the state for
all before it. A backward is three such walks: dv is ``attend`` from the end with q and k exchanged, dq is
``differentiate``, and dk the same from the end.

T is the dtype of the operands of matrix products: bfloat16 for bfloat16, else float32 (float16 sums
would overflow). All sums are float32. Rows are 64-bit offsets, so that B H N D may pass 2^31.
"""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from attention.kernels.linear_triton.triton.states import Sums, gather, scan, states
from attention.kernels.triton_common.tiles import (
    chunk_of,
    features,
    fold,
    load_rows,
    load_tile,
    moved,
    seen,
    slope,
    store_rows,
    store_tile,
    walk_of,
)

__all__ = ["attend", "differentiate", "scan", "states"]


@triton.jit
def in_first_row(z_sum):
    """The normaliser's sum as the first of 16 rows: chunks add to all of them."""
    return tl.where(tl.arange(0, 16)[:, None] == 0, z_sum[None, :], 0.0)


@triton.jit
def attend(
    a, b, c, out, inv, S, z, S0, z0,
    a_b, a_h, a_n, b_b, b_h, b_n, c_b, c_h, c_n, out_b, out_h, out_n,
    H, N, D, E, segments, segment_tokens, eps,
    CAUSAL: tl.constexpr, REVERSE: tl.constexpr, KEEP: tl.constexpr,
    SCANNED: tl.constexpr, SUMS: tl.constexpr, INITIAL: tl.constexpr,
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
    walk = walk_of(H, N, D, E, segments, segment_tokens, C, BD, BE, BLOCKS)
    d, e = walk.held, walk.split
    a = moved(a, a_b, a_h, a_n, walk, DESCRIBED)
    b = moved(b, b_b, b_h, b_n, walk, DESCRIBED)
    c = moved(c, c_b, c_h, c_n, walk, DESCRIBED)
    out = moved(out, out_b, out_h, out_n, walk, DESCRIBED)
    sums = Sums(
        S if SUMS else None, z if SUMS else None, S0 if INITIAL else None, z0 if INITIAL else None
    )  # fmt: skip
    state, z_sum = gather(sums, walk, segments, d, e, CAUSAL, REVERSE, SCANNED)
    mask = seen(walk.rows, REVERSE)
    ones = tl.full([C, 16], 0.0625, T)
    z_sum = in_first_row(z_sum)
    chunks = tl.cdiv(walk.last - walk.first, C)
    for i in tl.range(0, chunks, num_stages=STAGES):
        chunk = chunk_of(walk, i, chunks, N, C, REVERSE)
        before = state.to(T)
        if not REVERSE:
            total = z_sum.to(T)

        # Keys and values, and z after the chunk.
        if CAUSAL:
            keys = features(load_tile(b, chunk, d, DESCRIBED, RAGGED, PAD_D), MAP)
            if REVERSE:
                keys *= load_rows(inv + walk.sequence * N, chunk, RAGGED)[:, None]
            else:
                z_sum += fold(keys)
            right_hand = keys.to(T)
            values = load_tile(c, chunk, e, DESCRIBED, RAGGED, PAD_E).to(T)

        # Queries, and what comes from before the chunk.
        phi = features(load_tile(a, chunk, d, DESCRIBED, RAGGED, PAD_D), MAP)
        if PAD_D and MAP == "elu":
            # Beyond D keys are mapped to 1.
            phi = tl.where(d.numbers[None, :] < D, phi, 0.0)
        left_hand = phi.to(T)
        if CAUSAL:
            scores = tl.dot(left_hand, tl.trans(right_hand), input_precision=PRECISION)
            scores = tl.where(mask, scores, 0.0).to(T)
        result = tl.dot(left_hand, tl.trans(before), input_precision=PRECISION)
        if not REVERSE:
            norm = tl.dot(left_hand, tl.trans(total), input_precision=PRECISION)

        # What comes from within the chunk, and the state after it.
        if CAUSAL:
            if not REVERSE:
                norm = tl.dot(scores, ones, norm, input_precision=PRECISION)
            result = tl.dot(scores, values, result, input_precision=PRECISION)
            state = tl.dot(tl.trans(values), right_hand, state, input_precision=PRECISION)

        # The output, normalised.
        if not REVERSE:
            norm = 1.0 / (tl.sum(norm, 1) + eps)
            result *= norm[:, None]
            if KEEP and walk.block == 0:
                store_rows(inv + walk.sequence * N, norm, chunk, RAGGED)
        store_tile(out, result, chunk, e, DESCRIBED, RAGGED, PAD_E)


@triton.jit
def differentiate(
    a, b, x, y, out, inv, minus_delta, S, z, S0, z0,
    a_b, a_h, a_n, b_b, b_h, b_n, x_b, x_h, x_n, y_b, y_h, y_n, out_b, out_h, out_n,
    H, N, D, E, segments, segment_tokens,
    CAUSAL: tl.constexpr, REVERSE: tl.constexpr,
    SCANNED: tl.constexpr, SUMS: tl.constexpr, INITIAL: tl.constexpr,
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
    walk = walk_of(H, N, E, D, segments, segment_tokens, C, BE, BD, BLOCKS)
    d, e = walk.split, walk.held
    a = moved(a, a_b, a_h, a_n, walk, DESCRIBED)
    b = moved(b, b_b, b_h, b_n, walk, DESCRIBED)
    x = moved(x, x_b, x_h, x_n, walk, DESCRIBED)
    y = moved(y, y_b, y_h, y_n, walk, DESCRIBED)
    out = moved(out, out_b, out_h, out_n, walk, DESCRIBED)
    sums = Sums(
        S if SUMS else None, z if SUMS else None, S0 if INITIAL else None, z0 if INITIAL else None
    )  # fmt: skip
    state, z_sum = gather(sums, walk, segments, d, e, CAUSAL, REVERSE, SCANNED)
    mask = seen(walk.rows, REVERSE)
    chunks = tl.cdiv(walk.last - walk.first, C)
    ones = tl.full([C, 16], 1.0, T)
    z_sum = in_first_row(z_sum)
    for i in tl.range(0, chunks, num_stages=STAGES):
        chunk = chunk_of(walk, i, chunks, N, C, REVERSE)
        point = load_tile(x, chunk, d, DESCRIBED, RAGGED, PAD_D)
        queries = load_tile(a, chunk, e, DESCRIBED, RAGGED, PAD_E).to(T)
        scale = load_rows(inv + walk.sequence * N, chunk, RAGGED)
        bias = load_rows(minus_delta + walk.sequence * N, chunk, RAGGED)

        # What comes from before the chunk.
        result = tl.dot(ones, z_sum.to(T), input_precision=PRECISION)
        if not REVERSE:
            result *= bias[:, None]
        result = tl.dot(queries, state.to(T), result, input_precision=PRECISION)

        # What comes from within the chunk, and state and z after it.
        if CAUSAL:
            keys = load_tile(b, chunk, e, DESCRIBED, RAGGED, PAD_E).to(T)
            phi = features(load_tile(y, chunk, d, DESCRIBED, RAGGED, PAD_D), MAP)
            scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION)
            if REVERSE:
                phi *= scale[:, None]
                scores += bias[None, :]
                z_sum += fold(phi * bias[:, None])
            else:
                scores += bias[:, None]
                z_sum += fold(phi)
            scores = tl.where(mask, scores, 0.0).to(T)
            values = phi.to(T)
            result = tl.dot(scores, values, result, input_precision=PRECISION)
            state = tl.dot(tl.trans(keys), values, state, input_precision=PRECISION)

        # The output.
        if not REVERSE:
            result *= scale[:, None]
        result *= slope(point, MAP)
        store_tile(out, result, chunk, d, DESCRIBED, RAGGED, PAD_D)
