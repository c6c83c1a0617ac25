"""The output and dv in Gluon, for widths of 65 to 128 on a Hopper card.

Triton's own pass cuts a width of 128 into two blocks, whose programs both map the keys and compute the
scores, and each of its products waits for the one before. Here a program holds all of both widths and has a
multiprocessor to itself. Half of its warps map the next chunk in place, once for all products, while the
other half multiply this one: warps that did both would wait for their own products.
"""

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
    NORM,
    PRODUCT,
    QUARTER,
    ROWS,
    TILE,
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
    take,
    tiles,
    two_quarters,
)


@gluon.jit
def map_tiles(
    inv, z, z0, queries, q_here, q_mapped, keys, k_here, k_mapped, weights_tile, w_free,
    head, segment, segments, N, D, begin, step, chunks,
    CAUSAL: gl.constexpr, REVERSE: gl.constexpr,
    SCANNED: gl.constexpr, SUMS: gl.constexpr, INITIAL: gl.constexpr,
    MAP: gl.constexpr, PAD_D: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """Half of the warps: phi of keys and queries, and the keys' sum before each chunk."""
    if not REVERSE:
        weights = gather_weights(z, z0, head, segment, segments, D, CAUSAL, REVERSE, SCANNED, SUMS, INITIAL)
        if not CAUSAL:
            weights_tile.store(weights.to(gl.bfloat16))
    row = gl.arange(0, QUARTER, gl.SliceLayout(1, ROWS))
    column = gl.arange(0, WIDTH, gl.SliceLayout(0, ROWS))[None, :]
    for i in range(chunks):
        slot, phase, start = i % STAGES, (i // STAGES) & 1, begin + i * step
        if CAUSAL:
            tile = keys.index(slot)
            if not REVERSE:
                before = weights.to(gl.bfloat16)
            mbarrier.wait(k_here.index(slot), phase)
            for j in gl.static_range(4):
                if j % 2 == 0:
                    pair = two_quarters(tile, j // 2)
                phi = features(pair[j % 2], MAP)
                if REVERSE:
                    scale = load_rows(inv, start + j * QUARTER, N, row)
                    phi = (phi.to(gl.float32) * scale[:, None]).to(gl.bfloat16)
                else:
                    weights += fold(phi)
                tile.slice(j * QUARTER, QUARTER).store(phi)
            fence_async_shared()
            barrier()
            mbarrier.arrive(k_mapped.index(slot), count=1)
        tile = queries.index(slot)
        mbarrier.wait(q_here.index(slot), phase)
        for j in gl.static_range(4):
            if j % 2 == 0:
                pair = two_quarters(tile, j // 2)
            phi = features(pair[j % 2], MAP)
            if PAD_D and MAP == "elu":
                # Beyond D keys are mapped to 1.
                phi = gl.where(column < D, phi, 0.0)
            tile.slice(j * QUARTER, QUARTER).store(phi)
        if CAUSAL and not REVERSE:
            mbarrier.wait(w_free, (i + 1) & 1)
            weights_tile.store(before)
        fence_async_shared()
        barrier()
        mbarrier.arrive(q_mapped.index(slot), count=1)


@gluon.jit
def multiply(
    a, b, c, out, inv, S, S0, queries, q_here, q_mapped, keys, k_here, k_mapped, values, v_here,
    state_here, weights_here, w_free, batch, of_batch, head, segment, segments, N, D, E,
    begin, step, chunks, eps,
    CAUSAL: gl.constexpr, REVERSE: gl.constexpr, KEEP: gl.constexpr,
    SCANNED: gl.constexpr, SUMS: gl.constexpr, INITIAL: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """The other half: products, and tiles brought as soon as their place is free."""
    at = (batch, of_batch)
    row = gl.arange(0, WIDTH, gl.SliceLayout(1, PRODUCT))
    column = gl.arange(0, WIDTH, gl.SliceLayout(0, PRODUCT))
    state = gather_state(
        S, S0, head, segment, segments, D, E, row[:, None], column[None, :],
        CAUSAL, REVERSE, SCANNED, SUMS, INITIAL,
    )  # fmt: skip
    state_here.index(0).store(state.to(gl.bfloat16))
    fence_async_shared()
    barrier()
    for i in range(chunks):
        slot, phase, start = i % STAGES, (i // STAGES) & 1, begin + i * step
        none = anew(0)
        state_tile = state_here.index(none)
        left = queries.index(slot)
        if CAUSAL:
            right, value = keys.index(slot).permute((1, 0)), values.index(slot)
            mbarrier.wait(v_here.index(slot), phase)
            mbarrier.wait(k_mapped.index(slot), phase)
        mbarrier.wait(q_mapped.index(slot), phase)
        if CAUSAL:
            scores = product(left, right)
        if not REVERSE:
            norm = warpgroup_mma(
                left, weights_here.index(none).permute((1, 0)), gl.zeros([WIDTH, 8], gl.float32, NORM),
                use_acc=False, is_async=True,
            )  # fmt: skip
        if CAUSAL:
            growing = warpgroup_mma(right, value, state, is_async=True)
            scores = causal(warpgroup_mma_wait(1 if REVERSE else 2, [scores]), REVERSE)
            if not REVERSE:
                total = gl.sum(scores, 1)
            scores = as_left(scores)
        result = product(left, state_tile)
        if CAUSAL:
            result = warpgroup_mma(scores, value, result, is_async=True)
        # The output before this one is on its way: its place is free.
        tma.store_wait(0)
        last, far = (i + STAGES - 1) % STAGES, start + (STAGES - 1) * step
        wanted = (i > 0) & (i + STAGES - 1 < chunks)
        if CAUSAL:
            expect(v_here.index(last), wanted)
            bring(c, values.index(last), v_here.index(last), at, far, wanted)
        else:
            expect(q_here.index(last), wanted)
            bring(a, queries.index(last), q_here.index(last), at, far, wanted)
        # All but the last product.
        if CAUSAL and REVERSE:
            state = warpgroup_mma_wait(1, [growing])
        elif CAUSAL:
            norm, state = warpgroup_mma_wait(1, [norm, growing])
        elif not REVERSE:
            norm = warpgroup_mma_wait(1, [norm])
        if CAUSAL:
            barrier()
            wanted, far = i + STAGES < chunks, start + STAGES * step
            expect(k_here.index(slot), wanted)
            expect(q_here.index(slot), wanted)
            bring(b, keys.index(slot), k_here.index(slot), at, far, wanted)
            bring(a, left, q_here.index(slot), at, far, wanted)
            if not REVERSE:
                mbarrier.arrive(w_free, count=1)
            state_tile.store(state.to(gl.bfloat16))
        if not REVERSE:
            norm = gl.convert_layout(gl.sum(norm, 1), gl.SliceLayout(1, PRODUCT), assert_trivial=True)
            if CAUSAL:
                norm += total
            norm = 1.0 / (norm + eps)
            if KEEP:
                gl.store(inv + start + row, norm, mask=start + row < N)
        result = warpgroup_mma_wait(0, [result])
        if not REVERSE:
            result *= norm[:, None]
        place = value if CAUSAL else left
        barrier()
        place.store(result.to(gl.bfloat16))
        fence_async_shared()
        barrier()
        take(out, place, at, start)
    tma.store_wait(0)


@gluon.jit
def attend(
    a, b, c, out, inv, S, z, S0, z0, H, N, D, E, segments, segment_tokens, eps,
    CAUSAL: gl.constexpr, REVERSE: gl.constexpr, KEEP: gl.constexpr,
    SCANNED: gl.constexpr, SUMS: gl.constexpr, INITIAL: gl.constexpr,
    MAP: gl.constexpr, PAD_D: gl.constexpr,
):  # fmt: skip
    """Forward: out_i = sum_j (phi(a_i).phi(b_j)) c_j / normaliser, whose inverse goes to ``inv``.

    In reverse, dv: a = k, b = q, c = do, j >= i, phi(b_j) scaled by ``inv``. One program a segment. An output
    lies where its values (not causal: its queries) lay until the copy engine has it.
    """
    STAGES: gl.constexpr = 2 if CAUSAL else 4
    program = gl.program_id(0)
    segment = program % segments
    batch, of_batch = program // segments // H, program // segments % H
    at = (batch, of_batch)
    head = (program // segments).to(gl.int64)
    inv += head * N
    first = segment * segment_tokens
    chunks = gl.cdiv(gl.minimum(first + segment_tokens, N) - first, WIDTH)
    step = -WIDTH if REVERSE else WIDTH
    begin = first + (chunks - 1) * WIDTH if REVERSE else first

    queries, q_here = tiles(STAGES)
    q_mapped, w_free = barriers(STAGES), barriers(1).index(0)
    if CAUSAL:
        keys, k_here = tiles(STAGES)
        values, v_here = tiles(STAGES)
        k_mapped = barriers(STAGES)
    else:
        # Stand for what there is not.
        keys, k_here, k_mapped, values, v_here = queries, q_here, q_mapped, queries, q_here
    state_here = gl.allocate_shared_memory(gl.bfloat16, [1, WIDTH, WIDTH], TILE)
    if REVERSE:
        weights_here = state_here
    else:
        weights_here = gl.allocate_shared_memory(gl.bfloat16, [1, 8, WIDTH], TILE)
    fence_async_shared()
    barrier()
    for i in gl.static_range(STAGES):
        if CAUSAL:
            expect(k_here.index(i), i < chunks)
            expect(v_here.index(i), i < chunks)
        expect(q_here.index(i), i < chunks)
    for i in gl.static_range(STAGES):
        if CAUSAL:
            bring(b, keys.index(i), k_here.index(i), at, begin + i * step, i < chunks)
        bring(a, queries.index(i), q_here.index(i), at, begin + i * step, i < chunks)
        if CAUSAL:
            bring(c, values.index(i), v_here.index(i), at, begin + i * step, i < chunks)
    gl.warp_specialize(
        [
            (multiply, (
                a, b, c, out, inv, S, S0, queries, q_here, q_mapped, keys, k_here, k_mapped, values, v_here,
                state_here, weights_here, w_free, batch, of_batch, head, segment, segments, N, D, E,
                begin, step, chunks, eps, CAUSAL, REVERSE, KEEP, SCANNED, SUMS, INITIAL, STAGES,
            )),
            (map_tiles, (
                inv, z, z0, queries, q_here, q_mapped, keys, k_here, k_mapped, weights_here.index(0), w_free,
                head, segment, segments, N, D, begin, step, chunks,
                CAUSAL, REVERSE, SCANNED, SUMS, INITIAL, MAP, PAD_D, STAGES,
            )),
        ],
        [8],
        [56],  # registers of a mapping thread: a multiplying one has the 200 that are left
    )  # fmt: skip
