"""dq and dk in Gluon, for widths of 65 to 128 on a Hopper card: programs like those of ``attend``."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from attention.kernels.linear_triton.gluon.states import gather_state, gather_weights
from attention.kernels.linear_triton.gluon.tiles import (
    LEFT,
    PRODUCT,
    QUARTER,
    ROWS,
    TILE,
    VECTOR,
    WIDTH,
    anew,
    as_left,
    barrier,
    barriers,
    bring,
    causal,
    expect,
    features,
    fold,
    load_rows,
    product,
    slope,
    take,
    tiles,
    two_quarters,
)


@gluon.jit
def by_weights(factor, weights_tile):
    """Begins factor_i z_d, z in eight rows: a factor is a bfloat16 and, in eight columns more, its rest."""
    factor = gl.convert_layout(factor, gl.SliceLayout(1, LEFT), assert_trivial=True)
    column = gl.arange(0, 16, gl.SliceLayout(0, LEFT))[None, :]
    high = factor.to(gl.bfloat16)
    low = (factor - high.to(gl.float32)).to(gl.bfloat16)
    left = gl.where(column < 8, high[:, None], low[:, None])
    zero = gl.zeros([WIDTH, WIDTH], gl.float32, PRODUCT)
    return warpgroup_mma(left, weights_tile, zero, use_acc=False, is_async=True)


@gluon.jit
def store_weights(tile, weights):
    """Eight rows, twice."""
    tile.slice(0, 8).store(weights.to(gl.bfloat16))
    tile.slice(8, 8).store(weights.to(gl.bfloat16))


@gluon.jit
def map_tiles(
    inv, delta, z, z0, keys, y_here, y_mapped, weights_tile, w_here, w_free, biases,
    head, segment, segments, N, D, begin, step, chunks,
    CAUSAL: gl.constexpr, REVERSE: gl.constexpr,
    SCANNED: gl.constexpr, SUMS: gl.constexpr, INITIAL: gl.constexpr, MAP: gl.constexpr,
):  # fmt: skip
    """Half of the warps: phi(y), in reverse scaled, and the weights before each chunk."""
    weights = gather_weights(z, z0, head, segment, segments, D, CAUSAL, REVERSE, SCANNED, SUMS, INITIAL)
    if not CAUSAL:
        store_weights(weights_tile, weights)
        fence_async_shared()
        barrier()
        mbarrier.arrive(w_here, count=1)
    else:
        row = gl.arange(0, QUARTER, gl.SliceLayout(1, ROWS))
        for i in range(chunks):
            slot, phase, start = i % 2, (i // 2) & 1, begin + i * step
            before = weights
            tile = keys.index(slot)
            mbarrier.wait(y_here.index(slot), phase)
            for j in gl.static_range(4):
                if j % 2 == 0:
                    pair = two_quarters(tile, j // 2)
                phi = features(pair[j % 2], MAP).to(gl.float32)
                if REVERSE:
                    phi *= load_rows(inv, start + j * QUARTER, N, row)[:, None]
                    bias = load_rows(delta, start + j * QUARTER, N, row)
                    biases.index(slot).slice(j * QUARTER, QUARTER).store(bias)
                    weights += fold(phi * bias[:, None])
                else:
                    weights += fold(phi)
                tile.slice(j * QUARTER, QUARTER).store(phi.to(gl.bfloat16))
            mbarrier.wait(w_free, (i + 1) & 1)
            store_weights(weights_tile, before)
            fence_async_shared()
            barrier()
            mbarrier.arrive(y_mapped.index(slot), count=1)


@gluon.jit
def multiply(
    a, b, x, y, out, inv, delta, S, S0, lefts, a_here, rights, b_here, points, x_here, keys, y_here, y_mapped,
    state_here, weights_here, w_here, w_free, biases,
    batch, of_batch, head, segment, segments, N, D, E, begin, step, chunks,
    CAUSAL: gl.constexpr, REVERSE: gl.constexpr,
    SCANNED: gl.constexpr, SUMS: gl.constexpr, INITIAL: gl.constexpr,
    MAP: gl.constexpr, RING: gl.constexpr,
):  # fmt: skip
    """The other half: products, and tiles brought as soon as their place is free."""
    at = (batch, of_batch)
    row = gl.arange(0, WIDTH, gl.SliceLayout(1, PRODUCT))
    column = gl.arange(0, WIDTH, gl.SliceLayout(0, PRODUCT))
    state = gather_state(
        S, S0, head, segment, segments, D, E, column[None, :], row[:, None],
        CAUSAL, REVERSE, SCANNED, SUMS, INITIAL,
    )  # fmt: skip
    state_here.index(0).store(state.to(gl.bfloat16))
    fence_async_shared()
    barrier()
    factor = gl.full([WIDTH], 1.0, gl.float32, gl.SliceLayout(1, PRODUCT))
    if not CAUSAL:
        mbarrier.wait(w_here, 0)
    for i in range(chunks):
        slot, phase, start = i % RING, (i // RING) & 1, begin + i * step
        none = anew(0)
        state_tile, weights_tile = state_here.index(none), weights_here.index(none)
        left, point = lefts.index(slot + none), points.index(slot + none)
        if not REVERSE:
            factor = load_rows(delta, start, N, row)
            scale = load_rows(inv, start, N, row)
        if CAUSAL:
            right, key = rights.index(slot + none), keys.index(i % 2)
            mbarrier.wait(b_here.index(slot), phase)
            mbarrier.wait(y_mapped.index(i % 2), (i // 2) & 1)
        mbarrier.wait(a_here.index(slot), phase)
        if CAUSAL:
            scores = product(left, right.permute((1, 0)))
            growing = warpgroup_mma(right.permute((1, 0)), key, state, is_async=True)
            scores = warpgroup_mma_wait(1, [scores])
            if REVERSE:
                scores += biases.index(i % 2).load(gl.SliceLayout(0, PRODUCT))[None, :]
            else:
                scores += factor[:, None]
            scores = as_left(causal(scores, REVERSE))
        result = by_weights(factor, weights_tile)
        result = warpgroup_mma(left, state_tile, result, is_async=True)
        if CAUSAL:
            result = warpgroup_mma(scores, key, result, is_async=True)
        # The output before this one is on its way: its place is free.
        tma.store_wait(0)
        last, far = (i + RING - 1) % RING, start + (RING - 1) * step
        wanted = (i > 0) & (i + RING - 1 < chunks)
        expect(x_here.index(last), wanted)
        bring(x, points.index(last), x_here.index(last), at, far, wanted)
        if CAUSAL:
            state = warpgroup_mma_wait(1, [growing])
            barrier()
            wanted = i + 1 < chunks
            expect(a_here.index(slot), wanted)
            expect(b_here.index(slot), wanted)
            bring(a, left, a_here.index(slot), at, start + step, wanted)
            bring(b, right, b_here.index(slot), at, start + step, wanted)
            mbarrier.arrive(w_free, count=1)
            state_tile.store(state.to(gl.bfloat16))
        mbarrier.wait(x_here.index(slot), phase)
        result = warpgroup_mma_wait(0, [result])
        if not REVERSE:
            result *= scale[:, None]
        point.store((result * slope(point.load(PRODUCT), MAP)).to(gl.bfloat16))
        fence_async_shared()
        barrier()
        take(out, point, at, start)
        if CAUSAL:
            wanted = i + 2 < chunks
            expect(y_here.index(i % 2), wanted)
            bring(y, key, y_here.index(i % 2), at, start + 2 * step, wanted)
        else:
            wanted = i + RING < chunks
            expect(a_here.index(slot), wanted)
            bring(a, left, a_here.index(slot), at, start + RING * step, wanted)
    tma.store_wait(0)


@gluon.jit
def differentiate(
    a, b, x, y, out, inv, delta, S, z, S0, z0, H, N, D, E, segments, segment_tokens,
    CAUSAL: gl.constexpr, REVERSE: gl.constexpr,
    SCANNED: gl.constexpr, SUMS: gl.constexpr, INITIAL: gl.constexpr,
    MAP: gl.constexpr,
):  # fmt: skip
    """dq_i = phi'(q_i) inv_i sum_j (do_i.v_j - delta_i) phi(k_j): a = do, b = v, x = q, y = k.

    In reverse, dk_i = phi'(k_i) sum_j (v_i.do_j - delta_j) inv_j phi(q_j), j >= i: a = v, b = do, x = k,
    y = q. ``delta`` holds -delta. The state is transposed, [Dv, D]. Programs as in ``attend``; an output
    lies where its x lay until the copy engine has it.
    """
    RING: gl.constexpr = 1 if CAUSAL else 2
    program = gl.program_id(0)
    segment = program % segments
    batch, of_batch = program // segments // H, program // segments % H
    at = (batch, of_batch)
    head = (program // segments).to(gl.int64)
    inv += head * N
    delta += head * N
    first = segment * segment_tokens
    chunks = gl.cdiv(gl.minimum(first + segment_tokens, N) - first, WIDTH)
    step = -WIDTH if REVERSE else WIDTH
    begin = first + (chunks - 1) * WIDTH if REVERSE else first

    lefts, a_here = tiles(RING)
    points, x_here = tiles(RING)
    w_here, w_free = barriers(1).index(0), barriers(1).index(0)
    if CAUSAL:
        rights, b_here = tiles(1)
        keys, y_here = tiles(2)
        y_mapped = barriers(2)
    else:
        # Stand for what there is not.
        rights, b_here, keys, y_here, y_mapped = lefts, a_here, lefts, a_here, a_here
    biases = gl.allocate_shared_memory(gl.float32, [2, WIDTH], VECTOR)
    state_here = gl.allocate_shared_memory(gl.bfloat16, [1, WIDTH, WIDTH], TILE)
    weights_here = gl.allocate_shared_memory(gl.bfloat16, [1, 16, WIDTH], TILE)
    fence_async_shared()
    barrier()
    if CAUSAL:
        expect(b_here.index(0), True)
        expect(y_here.index(0), True)
        expect(y_here.index(1), chunks > 1)
    for i in gl.static_range(RING):
        expect(a_here.index(i), i < chunks)
        expect(x_here.index(i), i < chunks)
    if CAUSAL:
        bring(y, keys.index(0), y_here.index(0), at, begin, True)
        bring(b, rights.index(0), b_here.index(0), at, begin, True)
    for i in gl.static_range(RING):
        bring(a, lefts.index(i), a_here.index(i), at, begin + i * step, i < chunks)
        bring(x, points.index(i), x_here.index(i), at, begin + i * step, i < chunks)
    if CAUSAL:
        bring(y, keys.index(1), y_here.index(1), at, begin + step, chunks > 1)
    gl.warp_specialize(
        [
            (multiply, (
                a, b, x, y, out, inv, delta, S, S0, lefts, a_here, rights, b_here, points, x_here,
                keys, y_here, y_mapped, state_here, weights_here, w_here, w_free, biases,
                batch, of_batch, head, segment, segments, N, D, E, begin, step, chunks,
                CAUSAL, REVERSE, SCANNED, SUMS, INITIAL, MAP, RING,
            )),
            (map_tiles, (
                inv, delta, z, z0, keys, y_here, y_mapped, weights_here.index(0), w_here, w_free, biases,
                head, segment, segments, N, D, begin, step, chunks,
                CAUSAL, REVERSE, SCANNED, SUMS, INITIAL, MAP,
            )),
        ],
        [8],
        [48],  # and 208 of a multiplying one
    )  # fmt: skip
