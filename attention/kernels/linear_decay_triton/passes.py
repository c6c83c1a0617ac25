"""Linear attention with gates in Triton: what runs on the device, one program a segment of one head.

The sequence is cut as for linear-triton. ``cumulate`` sums the gates of each chunk up to each token, where a
state is narrow ``states`` does so on its way; all else works with differences of these sums: no product of
many factors, and no exponential of a large number. ``states`` sums what a segment leaves to those after it,
``scan`` turns what segments leave into what stands before (or behind) each, and ``attend`` and
``differentiate`` walk their segment from there. A backward is three such walks: dq is ``differentiate``, dk
the same from the end, and dv ``attend`` from the end with q and k exchanged.

The gradient of a gate r sums the pairs s < r <= t of its sequence. Where GROUP chunks end, those that reach
across are the product of the state before and the state behind. Within a group each token adds the pairs that
end with it, phi(q).dphi(q), less those that begin with it, phi(k).dphi(k): ``differentiate`` tells both, and
``differentiate_gates`` adds them up. No sum is longer than a group, so no error grows with the length. The
pair of a token with itself crosses no gate and is told in neither: behind strong gates its rounding alone is
more than all other pairs together.

T is the dtype of the operands of matrix products: bfloat16 for bfloat16, else float32. All sums are float32
but those of gates, which are float64 beside float32 operands.
"""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from attention.kernels.linear_decay_triton.states import (
    LEAST,
    LOG2E,
    cumulate,
    gates_of,
    gather,
    power,
    scan,
    states,
)
from attention.kernels.triton_common.tiles import (
    INTERPRETED,
    chunk_of,
    features,
    load_tile,
    moved,
    seen,
    slope,
    store_rows,
    store_tile,
    walk_of,
)

FORGETS = tl.constexpr((LEAST.value + 1) * LOG2E.value)
"""Gates below it, as powers of two, are LEAST but for the rounding of their sums."""

__all__ = ["attend", "cumulate", "differentiate", "differentiate_gates", "scan", "states"]


@triton.jit
def attend(
    a, b, c, out, sums, S, totals, bounds, across,
    a_b, a_h, a_n, b_b, b_h, b_n, c_b, c_h, c_n, out_b, out_h, out_n,
    H, N, D, E, segments, segment_tokens,
    REVERSE: tl.constexpr, SCANNED: tl.constexpr, SUMS: tl.constexpr,
    GROUP: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr,
    MAP: tl.constexpr, T: tl.constexpr, PRECISION: tl.constexpr,
    C: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, BLOCKS: tl.constexpr, STAGES: tl.constexpr,
    DESCRIBED: tl.constexpr, RAGGED: tl.constexpr, PAD_D: tl.constexpr, PAD_E: tl.constexpr,
):  # fmt: skip
    """Forward: out_i = sum_j exp(gates after j to i) (phi(a_i).phi(b_j)) c_j.

    In reverse, dv: a = k, b = q, c = do, j >= i. One program a segment and block of E.

    In reverse the states before each group, of HIGH rows and WIDE columns in ``bounds``, are multiplied with
    those behind, and summed over D into ``across``.
    """
    walk = walk_of(H, N, D, E, segments, segment_tokens, C, BD, BE, BLOCKS)
    d, e = walk.held, walk.split
    a = moved(a, a_b, a_h, a_n, walk, DESCRIBED)
    b = moved(b, b_b, b_h, b_n, walk, DESCRIBED)
    c = moved(c, c_b, c_h, c_n, walk, DESCRIBED)
    out = moved(out, out_b, out_h, out_n, walk, DESCRIBED)
    sums += walk.sequence * N
    state = gather(S, totals, walk, segments, d, e, REVERSE, SCANNED, SUMS)
    mask = seen(walk.rows, REVERSE)
    chunks = tl.cdiv(walk.last - walk.first, C)
    for i in tl.range(0, chunks, num_stages=STAGES):
        chunk = chunk_of(walk, i, chunks, N, C, REVERSE)
        before = state.to(T)
        until, end = gates_of(sums, chunk, RAGGED)
        behind = end - until
        if REVERSE:
            # A product stands in a branch, in which no shared memory is taken to load ahead.
            following = chunk.start + C
            if (following % (GROUP * C) == 0) & (following < N):
                slot = walk.sequence * tl.cdiv(N, GROUP * C) + following // (GROUP * C)
                place = bounds + slot * (HIGH * WIDE) + tiled(e.numbers[:, None], d.numbers[None, :], HIGH)
                exists = (e.numbers[:, None] < E) & (d.numbers[None, :] < D)
                products = tl.load(place, mask=exists, other=0.0).to(tl.float32) * state
                row = across + (slot * BLOCKS + walk.block) * BE
                tl.store(row + tl.arange(0, BE), tl.sum(products, 1))

        # Keys and values.
        keys = features(load_tile(b, chunk, d, DESCRIBED, RAGGED, PAD_D), MAP)
        right_hand = keys.to(T)
        kept = (keys * power(until if REVERSE else behind)[:, None]).to(T)
        values = load_tile(c, chunk, e, DESCRIBED, RAGGED, PAD_E).to(T)

        # Queries, and what comes from before the chunk.
        phi = features(load_tile(a, chunk, d, DESCRIBED, RAGGED, PAD_D), MAP)
        if PAD_D and MAP == "elu":
            # Beyond D keys are mapped to 1.
            phi = tl.where(d.numbers[None, :] < D, phi, 0.0)
        left_hand = phi.to(T)
        scores = tl.dot(left_hand, tl.trans(right_hand), input_precision=PRECISION)
        result = tl.dot(left_hand, tl.trans(before), input_precision=PRECISION)
        result *= power(behind if REVERSE else until)[:, None]

        # What comes from within the chunk, and the state after it.
        scores = weighed(scores, until, mask, REVERSE).to(T)
        result = tl.dot(scores, values, result, input_precision=PRECISION)
        state = tl.dot(tl.trans(values), kept, state * power(end), input_precision=PRECISION)
        store_tile(out, result, chunk, e, DESCRIBED, RAGGED, PAD_E)


@triton.jit
def tiled(e, d, HIGH: tl.constexpr):
    """Where an element of a state ``[HIGH, ...]`` lies in ``bounds``: in tiles of 8 by 8, a column together.

    Threads hold neighbours of rows in one pass and of columns in another; of a tile both read whole lines.
    """
    return (d // 8 * (HIGH // 8) + e // 8) * 64 + d % 8 * 8 + e % 8


@triton.jit
def weighed(scores, until, mask, REVERSE: tl.constexpr):
    """Scores times the exponential of the gates between their tokens; zero where no token sees the other."""
    between = until[None, :] - until[:, None] if REVERSE else until[:, None] - until[None, :]
    return tl.where(mask, scores * power(tl.where(mask, between, 0.0)), 0.0)


@triton.jit
def differentiate(
    a, b, x, y, out, sums, S, totals, bounds, lines,
    a_b, a_h, a_n, b_b, b_h, b_n, x_b, x_h, x_n, y_b, y_h, y_n, out_b, out_h, out_n,
    H, N, D, E, segments, segment_tokens,
    REVERSE: tl.constexpr, SCANNED: tl.constexpr, SUMS: tl.constexpr, GROUP: tl.constexpr,
    MAP: tl.constexpr, T: tl.constexpr, PRECISION: tl.constexpr,
    C: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, BLOCKS: tl.constexpr, STAGES: tl.constexpr,
    DESCRIBED: tl.constexpr, RAGGED: tl.constexpr, PAD_D: tl.constexpr, PAD_E: tl.constexpr,
):  # fmt: skip
    """dq_i = phi'(q_i) sum_j exp(gates after j to i) (do_i.v_j) phi(k_j): a = do, b = v, x = q, y = k.

    In reverse, dk_i = phi'(k_i) sum_j exp(...) (v_i.do_j) phi(q_j), j >= i: a = v, b = do, x = k, y = q. One
    program a segment and block of D.

    For the gates phi(x_i).dphi(x_i) of all j but i goes to ``lines``, and the state before each group to
    ``bounds``.
    """
    walk = walk_of(H, N, E, D, segments, segment_tokens, C, BE, BD, BLOCKS)
    d, e = walk.split, walk.held
    a = moved(a, a_b, a_h, a_n, walk, DESCRIBED)
    b = moved(b, b_b, b_h, b_n, walk, DESCRIBED)
    x = moved(x, x_b, x_h, x_n, walk, DESCRIBED)
    y = moved(y, y_b, y_h, y_n, walk, DESCRIBED)
    out = moved(out, out_b, out_h, out_n, walk, DESCRIBED)
    sums += walk.sequence * N
    state = gather(S, totals, walk, segments, d, e, REVERSE, SCANNED, SUMS)
    place = tiled(e.numbers[:, None], d.numbers[None, :], BE)
    heads = tl.num_programs(0) // (segments * BLOCKS)
    lines += (walk.block * heads + walk.sequence) * N
    itself = walk.rows[:, None] == walk.rows[None, :]
    others = seen(walk.rows, REVERSE) & ~itself
    chunks = tl.cdiv(walk.last - walk.first, C)
    for i in tl.range(0, chunks, num_stages=STAGES):
        chunk = chunk_of(walk, i, chunks, N, C, REVERSE)
        until, end = gates_of(sums, chunk, RAGGED)
        behind = end - until
        operand = state.to(T)
        if not REVERSE:
            slot = walk.sequence * tl.cdiv(N, GROUP * C) + chunk.start // (GROUP * C)
            if chunk.start % (GROUP * C) == 0:
                tl.store(bounds + slot * (BE * BD * BLOCKS) + place, operand)

        # What comes from before the chunk.
        point = load_tile(x, chunk, d, DESCRIBED, RAGGED, PAD_D)
        queries = load_tile(a, chunk, e, DESCRIBED, RAGGED, PAD_E).to(T)
        result = tl.dot(queries, operand, input_precision=PRECISION)
        result *= power(behind if REVERSE else until)[:, None]

        # What comes from within the chunk, and the state after it.
        phi = features(load_tile(y, chunk, d, DESCRIBED, RAGGED, PAD_D), MAP)
        values = phi.to(T)
        kept = (phi * power(until if REVERSE else behind)[:, None]).to(T)
        keys = load_tile(b, chunk, e, DESCRIBED, RAGGED, PAD_E).to(T)
        scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION)
        own = tl.where(itself, scores, 0.0).to(T)
        scores = weighed(scores, until, others, REVERSE).to(T)
        result = tl.dot(scores, values, result, input_precision=PRECISION)
        state = tl.dot(tl.trans(keys), kept, state * power(end), input_precision=PRECISION)
        store_rows(lines, along(result, point, d, MAP, T, PRECISION, PAD_D), chunk, RAGGED)
        # A product, because phi beside all this would take more registers than there are.
        result = tl.dot(own, values, result, input_precision=PRECISION) * slope(point, MAP)
        store_tile(out, result, chunk, d, DESCRIBED, RAGGED, PAD_D)


@triton.jit
def along(
    gradient, point, d, MAP: tl.constexpr, T: tl.constexpr, PRECISION: tl.constexpr, PAD_D: tl.constexpr
):
    """phi(x).dphi(x) of each token; phi as matrix products see it, so that dq and dk agree on each pair."""
    phi = features(point, MAP)
    if PAD_D and MAP == "elu":
        phi = tl.where(d.numbers[None, :] < d.width, phi, 0.0)
    if PRECISION == "tf32" and not INTERPRETED:
        phi = (phi.to(tl.uint32, bitcast=True) & 0xFFFFE000).to(tl.float32, bitcast=True)
    return tl.sum(gradient * phi.to(T).to(tl.float32), 1)


@triton.jit
def differentiate_gates(
    ends, begins, across, sums, dg, heads, N, groups,
    ROWS: tl.constexpr, PADDED: tl.constexpr, TOKENS: tl.constexpr, BLOCKS: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """dg_r: pairs that reach across the end of its group, and from r on those that end less those that begin.

    Of a gate that keeps nothing it is 0, not the rounding of that difference. One program a group of TOKENS.
    """
    group = tl.program_id(0).to(tl.int64)
    token = (group % groups) * TOKENS + TOKENS - 1 - tl.arange(0, TOKENS)  # the last first
    exists = token < N
    place = (group // groups) * N + token
    pairs = tl.zeros([TOKENS], tl.float32)
    for block in tl.static_range(BLOCKS):
        at = place + block * heads * N
        pairs += tl.load(ends + at, mask=exists, other=0.0) - tl.load(begins + at, mask=exists, other=0.0)
    row = tl.arange(0, PADDED)
    reaches = row < tl.where(group % groups + 1 < groups, ROWS, 0)
    total = tl.sum(tl.load(across + (group + 1) * ROWS + row, mask=reaches, other=0.0), 0)
    until = tl.load(sums + place, mask=exists, other=0.0)
    gate = until - tl.load(sums + place - 1, mask=exists & (token % C > 0), other=0.0)
    forgets = (token == 0) | (gate < FORGETS)  # first: nothing before
    gradient = tl.where(forgets, 0.0, total + tl.cumsum(pairs, 0))
    tl.store(dg + place, gradient, mask=exists)
