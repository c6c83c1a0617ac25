"""Linear attention in Triton: what runs on the device, one program a segment of one head.

The sequence is cut into segments so that every multiprocessor has work. ``states`` sums phi(k) v' over
each segment, ``scan`` turns the sums into what stands before (or behind) each, and ``attend`` and
``differentiate`` walk their segment in chunks of C tokens from there: scores within the chunk, the state for
all before it. A backward is three such walks: dv is ``attend`` from the end with q and k exchanged, dq is
``differentiate``, and dk the same from the end.

T is the dtype of the operands of matrix products: bfloat16 for bfloat16, else float32 (float16 sums
would overflow). All sums are float32. Rows are 64-bit offsets, so that B H N D may pass 2^31.
"""

from __future__ import annotations

import triton
import triton.language as tl

from attention.kernels.linear_triton.triton.tiles import (
    features,
    load_rows,
    load_tile,
    slope,
    store_rows,
    store_tile,
)


@triton.jit
def fold(x):
    """Partial sums of rows: of every sixteenth, which one thread holds."""
    return tl.sum(tl.reshape(x, [x.shape[0] // 16, 16, x.shape[1]]), 0)


@triton.jit
def states(
    x, y, o, inv, delta, S, z,
    x_b, x_h, x_n, y_b, y_h, y_n, o_b, o_h, o_n,
    H, N, D, E, segments, segment_tokens, counted,
    GRADIENT: tl.constexpr, MAP: tl.constexpr, T: tl.constexpr, PRECISION: tl.constexpr,
    C: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, BLOCKS: tl.constexpr, STAGES: tl.constexpr,
    DESCRIBED: tl.constexpr, RAGGED: tl.constexpr, PAD_D: tl.constexpr, PAD_E: tl.constexpr,
):  # fmt: skip
    """S = sum phi(x) y', z = sum phi(x) of each segment.

    For gradients x = q, y = do, phi is scaled by ``inv``, and z weighed by -delta = -do.o, which is stored.
    One program a segment and block of D: y is whole in each, because delta needs all of its width.
    """
    program = tl.program_id(0)
    block = program % BLOCKS
    segment = (program // BLOCKS) % counted
    head = (program // (BLOCKS * counted)).to(tl.int64)
    first = segment * segment_tokens
    last = tl.minimum(first + segment_tokens, N)
    rows, e = tl.arange(0, C), tl.arange(0, BE)
    d = block * BD + tl.arange(0, BD)
    batch, of_batch = head // H, head % H
    if not DESCRIBED:
        x += batch * x_b + of_batch * x_h
        y += batch * y_b + of_batch * y_h
        o += batch * o_b + of_batch * o_h
    state = tl.zeros([BE, BD], tl.float32)
    weights = tl.zeros([16, BD], tl.float32)
    for i in tl.range(0, tl.cdiv(last - first, C), num_stages=STAGES):
        start = first + i * C
        at, left = start.to(tl.int64), N - start
        whole, split = (batch, of_batch, start, 0), (batch, of_batch, start, block * BD)
        phi = features(load_tile(x, x_n, split, rows, d, left, D, DESCRIBED, RAGGED, PAD_D), MAP)
        tile = load_tile(y, y_n, whole, rows, e, left, E, DESCRIBED, RAGGED, PAD_E)
        if GRADIENT:
            out = load_tile(o, o_n, whole, rows, e, left, E, DESCRIBED, RAGGED, PAD_E).to(tl.float32)
            bias = -tl.sum(tile.to(tl.float32) * out, 1)
            store_rows(delta + head * N + at, bias, rows, left, RAGGED)
            phi *= load_rows(inv + head * N + at, rows, left, RAGGED)[:, None]
            weights += fold(phi * bias[:, None])
        else:
            if RAGGED and MAP == "elu":
                phi = tl.where(rows[:, None] < left, phi, 0.0)
            weights += fold(phi)
        state = tl.dot(tl.trans(tile.to(T)), phi.to(T), state, input_precision=PRECISION)
    slot = head * segments + segment
    exists = (e[:, None] < E) & (d[None, :] < D)
    tl.store(S + slot * D * E + d[None, :] * E + e[:, None], state, mask=exists)
    tl.store(z + slot * D + d, tl.sum(weights, 0), mask=d < D)


@triton.jit
def scan(
    partial, prefix, initial, L, blocks, segments, positions,
    INITIAL: tl.constexpr, REVERSE: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Sums of segments into the sums before each: slot s of ``segments`` + 1 holds those of all j < s.

    In reverse slot s holds those of all j >= s. ``positions`` segments have a sum, counted from where
    the scan begins.
    """
    head = (tl.program_id(0) // blocks).to(tl.int64)
    columns = (tl.program_id(0) % blocks) * WIDTH + tl.arange(0, WIDTH)
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
def gather(
    S, z, S0, z0, head, segment, segments, D, E, e, d,
    CAUSAL: tl.constexpr, REVERSE: tl.constexpr,
    SCANNED: tl.constexpr, SUMS: tl.constexpr, INITIAL: tl.constexpr,
    BE: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """State ``[BE, BD]`` and weights ``[BD]`` before a segment (in reverse: behind it; not causal: of all).

    Few sums are added up here, by each program its own; many were SCANNED.
    """
    exists = (e[:, None] < E) & (d[None, :] < D)
    at = d[None, :] * E + e[:, None]
    state = tl.zeros([BE, BD], tl.float32)
    weights = tl.zeros([BD], tl.float32)
    if SCANNED:
        slot = segment
        if not CAUSAL:
            slot = 0 if REVERSE else segments
        elif REVERSE:
            slot = segment + 1
        slot += head * (segments + 1)
        state = tl.load(S + slot * D * E + at, mask=exists, other=0.0)
        weights = tl.load(z + slot * D + d, mask=d < D, other=0.0)
    else:
        if INITIAL:
            state = tl.load(S0 + head * D * E + at, mask=exists, other=0.0)
            weights = tl.load(z0 + head * D + d, mask=d < D, other=0.0)
        if SUMS:
            begin, end = 0, segments
            if CAUSAL:
                if REVERSE:
                    begin = segment + 1
                else:
                    end = segment
            # Loaded ahead where that takes 49 kB of shared memory, not four times as much.
            for j in tl.range(begin, end, num_stages=4 if BD * BE <= 4096 else 1):
                slot = head * segments + j
                state += tl.load(S + slot * D * E + at, mask=exists, other=0.0)
                weights += tl.load(z + slot * D + d, mask=d < D, other=0.0)
    return state, weights


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

    In reverse, dv: a = k, b = q, c = do, j >= i, phi(b_j) scaled by ``inv``.
    One program a segment and block of E.
    """
    program = tl.program_id(0)
    block = program % BLOCKS
    segment = (program // BLOCKS) % segments
    head = (program // (BLOCKS * segments)).to(tl.int64)
    first = segment * segment_tokens
    last = tl.minimum(first + segment_tokens, N)
    rows, d = tl.arange(0, C), tl.arange(0, BD)
    e = block * BE + tl.arange(0, BE)
    batch, of_batch = head // H, head % H
    if not DESCRIBED:
        a += batch * a_b + of_batch * a_h
        b += batch * b_b + of_batch * b_h
        c += batch * c_b + of_batch * c_h
        out += batch * out_b + of_batch * out_h
    state, weights = gather(
        S, z, S0, z0, head, segment, segments, D, E, e, d, CAUSAL, REVERSE, SCANNED, SUMS, INITIAL, BE, BD
    )
    seen = rows[:, None] <= rows[None, :] if REVERSE else rows[:, None] >= rows[None, :]
    ones = tl.full([C, 16], 0.0625, T)
    weights = tl.where(tl.arange(0, 16)[:, None] == 0, weights[None, :], 0.0)
    chunks = tl.cdiv(last - first, C)
    for i in tl.range(0, chunks, num_stages=STAGES):
        start = first + (chunks - 1 - i if REVERSE else i) * C
        at, left = start.to(tl.int64), N - start
        whole, split = (batch, of_batch, start, 0), (batch, of_batch, start, block * BE)
        before = state.to(T)
        if not REVERSE:
            total = weights.to(T)
        if CAUSAL:
            keys = features(load_tile(b, b_n, whole, rows, d, left, D, DESCRIBED, RAGGED, PAD_D), MAP)
            if REVERSE:
                keys *= load_rows(inv + head * N + at, rows, left, RAGGED)[:, None]
            else:
                weights += fold(keys)
            right_hand = keys.to(T)
            values = load_tile(c, c_n, split, rows, e, left, E, DESCRIBED, RAGGED, PAD_E).to(T)
        phi = features(load_tile(a, a_n, whole, rows, d, left, D, DESCRIBED, RAGGED, PAD_D), MAP)
        if PAD_D and MAP == "elu":
            phi = tl.where(d[None, :] < D, phi, 0.0)
        left_hand = phi.to(T)
        if CAUSAL:
            scores = tl.dot(left_hand, tl.trans(right_hand), input_precision=PRECISION)
            scores = tl.where(seen, scores, 0.0).to(T)
        result = tl.dot(left_hand, tl.trans(before), input_precision=PRECISION)
        if not REVERSE:
            norm = tl.dot(left_hand, tl.trans(total), input_precision=PRECISION)
        if CAUSAL:
            if not REVERSE:
                norm = tl.dot(scores, ones, norm, input_precision=PRECISION)
            result = tl.dot(scores, values, result, input_precision=PRECISION)
            state = tl.dot(tl.trans(values), right_hand, state, input_precision=PRECISION)
        if not REVERSE:
            norm = 1.0 / (tl.sum(norm, 1) + eps)
            result *= norm[:, None]
            if KEEP and block == 0:
                store_rows(inv + head * N + at, norm, rows, left, RAGGED)
        store_tile(out, result, out_n, split, rows, e, left, E, DESCRIBED, RAGGED, PAD_E)


@triton.jit
def differentiate(
    a, b, x, y, out, inv, delta, S, z, S0, z0,
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
    y = q. One program a segment and block of D. ``delta`` holds -delta.
    """
    program = tl.program_id(0)
    block = program % BLOCKS
    segment = (program // BLOCKS) % segments
    head = (program // (BLOCKS * segments)).to(tl.int64)
    first = segment * segment_tokens
    last = tl.minimum(first + segment_tokens, N)
    rows, e = tl.arange(0, C), tl.arange(0, BE)
    d = block * BD + tl.arange(0, BD)
    batch, of_batch = head // H, head % H
    if not DESCRIBED:
        a += batch * a_b + of_batch * a_h
        b += batch * b_b + of_batch * b_h
        x += batch * x_b + of_batch * x_h
        y += batch * y_b + of_batch * y_h
        out += batch * out_b + of_batch * out_h
    state, weights = gather(
        S, z, S0, z0, head, segment, segments, D, E, e, d, CAUSAL, REVERSE, SCANNED, SUMS, INITIAL, BE, BD
    )
    seen = rows[:, None] <= rows[None, :] if REVERSE else rows[:, None] >= rows[None, :]
    chunks = tl.cdiv(last - first, C)
    ones = tl.full([C, 16], 1.0, T)
    weights = tl.where(tl.arange(0, 16)[:, None] == 0, weights[None, :], 0.0)
    for i in tl.range(0, chunks, num_stages=STAGES):
        start = first + (chunks - 1 - i if REVERSE else i) * C
        at, left = start.to(tl.int64), N - start
        whole, split = (batch, of_batch, start, 0), (batch, of_batch, start, block * BD)
        point = load_tile(x, x_n, split, rows, d, left, D, DESCRIBED, RAGGED, PAD_D)
        queries = load_tile(a, a_n, whole, rows, e, left, E, DESCRIBED, RAGGED, PAD_E).to(T)
        scale = load_rows(inv + head * N + at, rows, left, RAGGED)
        bias = load_rows(delta + head * N + at, rows, left, RAGGED)
        result = tl.dot(ones, weights.to(T), input_precision=PRECISION)
        if not REVERSE:
            result *= bias[:, None]
        result = tl.dot(queries, state.to(T), result, input_precision=PRECISION)
        if CAUSAL:
            keys = load_tile(b, b_n, whole, rows, e, left, E, DESCRIBED, RAGGED, PAD_E).to(T)
            phi = features(load_tile(y, y_n, split, rows, d, left, D, DESCRIBED, RAGGED, PAD_D), MAP)
            scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION)
            if REVERSE:
                phi *= scale[:, None]
                scores += bias[None, :]
                weights += fold(phi * bias[:, None])
            else:
                scores += bias[:, None]
                weights += fold(phi)
            scores = tl.where(seen, scores, 0.0).to(T)
            values = phi.to(T)
            result = tl.dot(scores, values, result, input_precision=PRECISION)
            state = tl.dot(tl.trans(keys), values, state, input_precision=PRECISION)
        if not REVERSE:
            result *= scale[:, None]
        result *= slope(point, MAP)
        store_tile(out, result, out_n, split, rows, d, left, D, DESCRIBED, RAGGED, PAD_D)
