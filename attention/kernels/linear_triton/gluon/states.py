"""Sums over segments in Gluon."""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from attention.kernels.gluon_common.rings import async_load, expect, new_ring
from attention.kernels.gluon_common.tiles import (
    LEFT,
    PRODUCT,
    VECTOR,
    WIDE,
    WIDTH,
    features,
    load_rows,
)
from attention.kernels.gluon_common.walk import walk_of


@gluon.jit
def left_features(
    tile, start, lower, upper, MAP: gl.constexpr, FROM: gl.constexpr, UP_TO: gl.constexpr
):  # fmt: skip
    """phi(x)' as a left operand, FROM a token ``lower`` on, UP_TO a token ``upper``, and else zero."""
    phi = features(tile.permute((1, 0)).load(LEFT), MAP)
    token = start + gl.arange(0, WIDTH, gl.SliceLayout(0, LEFT))
    if FROM:
        phi = gl.where((token >= lower)[None, :], phi, 0.0)
    if UP_TO:
        phi = gl.where((token < upper)[None, :], phi, 0.0)
    return phi


@gluon.jit
def states(
    x, y, S, z, ends, H, N, D, E, segments, segment_tokens, counted,
    PACKED: gl.constexpr, MAP: gl.constexpr, RAGGED: gl.constexpr,
):  # fmt: skip
    """S = sum phi(x) y', z = sum phi(x) of each segment: one program a segment of the ``counted`` first.

    PACKED, a segment sums the sequence alone that goes on behind it. A chunk is mapped while the product of
    the one before runs. Shared memory: 2 rings x 3 tiles x 32768 + barriers 56 = 196664 bytes. Registers of a
    thread: 164 to 237 by ptxas, of 255, none spilled.
    """
    STAGES: gl.constexpr = 3
    walk = walk_of(H, N, D, E, counted, segment_tokens, segments, False, 1)
    xs, ys = new_ring(x, walk.head, STAGES), new_ring(y, walk.head, STAGES)
    begin, chunks, lower = walk.begin, walk.chunks, 0
    if PACKED:
        last = gl.minimum(begin + segment_tokens, N)
        goes_on = gl.load(ends + N + last - 1) > last
        lower = gl.where(goes_on, gl.load(ends + last - 1), last)
        skipped = gl.maximum(lower - begin, 0) // WIDTH
        begin, chunks = begin + skipped * WIDTH, gl.where(goes_on, chunks - skipped, 0)
    # All warps and the copy engine see the barriers as they were made.
    fence_async_shared()
    gl.thread_barrier()

    # The first chunks.
    for i in gl.static_range(STAGES):
        expect(xs, i, i < chunks)
        expect(ys, i, i < chunks)
    for i in gl.static_range(STAGES):
        async_load(xs, i, walk, begin + i * WIDTH, i < chunks)
        async_load(ys, i, walk, begin + i * WIDTH, i < chunks)
    state = gl.zeros([WIDTH, WIDTH], gl.float32, PRODUCT)
    z_sum = gl.zeros([WIDTH], gl.float32, gl.SliceLayout(1, LEFT))
    mbarrier.wait(xs.full.index(0), 0, chunks > 0)
    phi = left_features(xs.tiles.index(0), begin, lower, N, MAP, PACKED, RAGGED and MAP == "elu")
    for i in range(chunks):
        slot, start = i % STAGES, begin + i * WIDTH
        # This chunk's product, once y is loaded.
        mbarrier.wait(ys.full.index(slot), (i // STAGES) & 1)
        growing = warpgroup_mma(phi, ys.tiles.index(slot), state, is_async=True)
        z_sum += gl.sum(phi.to(gl.float32), 1)
        # The next chunk's features, once x is loaded. After the last chunk they are of an old tile, unused.
        then, more = (i + 1) % STAGES, i + 1 < chunks
        mbarrier.wait(xs.full.index(then), ((i + 1) // STAGES) & 1, more)
        phi = left_features(
            xs.tiles.index(then), start + WIDTH, lower, N, MAP, PACKED, RAGGED and MAP == "elu"
        )  # fmt: skip
        # The product is done in both warpgroups: this chunk's tiles are empty and take a later one.
        state = warpgroup_mma_wait(0, [growing])
        gl.thread_barrier()
        wanted, far = i + STAGES < chunks, start + STAGES * WIDTH
        expect(xs, slot, wanted)
        expect(ys, slot, wanted)
        async_load(xs, slot, walk, far, wanted)
        async_load(ys, slot, walk, far, wanted)
    store_sums(S, z, state, z_sum, walk.sequence * segments + walk.segment, D, E)


@gluon.jit
def states_back(
    x, y, o, inv, minus_delta, S, z, ends, H, N, D, E, segments, segment_tokens,
    PACKED: gl.constexpr, MAP: gl.constexpr,
):  # fmt: skip
    """Sums for gradients: S = sum phi(x) inv y', z = sum phi(x) inv (-delta), where -delta = -y.o is stored.

    PACKED, a segment sums the sequence alone that began before it. x = q, y = do, o = out; one program a
    segment. Shared memory: 3 rings x 2 tiles x 32768 + factors 512 + barriers 48 = 197168 bytes. Registers of
    a thread: 174 to 230 by ptxas, of 255, none spilled.
    """
    STAGES: gl.constexpr = 2
    walk = walk_of(H, N, D, E, segments, segment_tokens, segments, False, 1)
    inv += walk.sequence * N
    minus_delta += walk.sequence * N
    xs, ys = new_ring(x, walk.head, STAGES), new_ring(y, walk.head, STAGES)
    os = new_ring(o, walk.head, STAGES)
    factors = gl.allocate_shared_memory(gl.float32, [WIDTH], VECTOR)
    # All warps and the copy engine see the barriers as they were made.
    fence_async_shared()
    gl.thread_barrier()

    # The first chunks.
    for i in gl.static_range(STAGES):
        expect(xs, i, i < walk.chunks)
        expect(ys, i, i < walk.chunks)
        expect(os, i, i < walk.chunks)
    for i in gl.static_range(STAGES):
        async_load(ys, i, walk, walk.begin + i * WIDTH, i < walk.chunks)
        async_load(os, i, walk, walk.begin + i * WIDTH, i < walk.chunks)
        async_load(xs, i, walk, walk.begin + i * WIDTH, i < walk.chunks)
    state = gl.zeros([WIDTH, WIDTH], gl.float32, PRODUCT)
    z_sum = gl.zeros([WIDTH], gl.float32, gl.SliceLayout(1, LEFT))
    row, upper = gl.arange(0, WIDTH, gl.SliceLayout(1, WIDE)), N
    if PACKED:
        begun = gl.load(ends + walk.begin) < walk.begin
        upper = gl.where(begun, gl.load(ends + N + walk.begin), 0)
    for i in range(walk.chunks):
        slot, phase, start = i % STAGES, (i // STAGES) & 1, walk.begin + i * WIDTH
        # -delta, once y and o are loaded; y is scaled in place.
        scale = load_rows(inv, start, N, row)
        mbarrier.wait(ys.full.index(slot), phase)
        mbarrier.wait(os.full.index(slot), phase)
        bias = scale_rows(ys.tiles.index(slot), os.tiles.index(slot), scale)
        gl.store(minus_delta + start + row, bias, mask=start + row < N)
        factors.store(bias * scale)
        # Features, once x is loaded.
        mbarrier.wait(xs.full.index(slot), phase)
        phi = left_features(xs.tiles.index(slot), start, 0, upper, MAP, False, PACKED)
        # All warps have stored: the product sees the scaled y, and each warp the factors.
        fence_async_shared()
        gl.thread_barrier()
        growing = warpgroup_mma(phi, ys.tiles.index(slot), state, is_async=True)
        z_sum += gl.sum(phi.to(gl.float32) * factors.load(gl.SliceLayout(0, LEFT))[None, :], 1)
        # The product is done in both warpgroups, and factors are read: tiles are empty and take a later
        # chunk.
        state = warpgroup_mma_wait(0, [growing])
        gl.thread_barrier()
        wanted, far = i + STAGES < walk.chunks, start + STAGES * WIDTH
        expect(xs, slot, wanted)
        expect(ys, slot, wanted)
        expect(os, slot, wanted)
        async_load(ys, slot, walk, far, wanted)
        async_load(os, slot, walk, far, wanted)
        async_load(xs, slot, walk, far, wanted)
    store_sums(S, z, state, z_sum, walk.sequence * segments + walk.segment, D, E)


@gluon.jit
def scale_rows(y_tile, o_tile, scale):
    """-y.o of each row; then the rows of y are scaled in place."""
    y, o = y_tile.load(WIDE).to(gl.float32), o_tile.load(WIDE).to(gl.float32)
    y_tile.store((y * scale[:, None]).to(gl.bfloat16))
    return -gl.sum(y * o, 1)


@gluon.jit
def store_sums(S, z, state, z_sum, slot, D, E):
    """The sums of a segment."""
    d = gl.arange(0, WIDTH, gl.SliceLayout(1, PRODUCT))[:, None]
    e = gl.arange(0, WIDTH, gl.SliceLayout(0, PRODUCT))[None, :]
    gl.store(S + slot * D * E + d * E + e, state, mask=(d < D) & (e < E))
    row = gl.arange(0, WIDTH, gl.SliceLayout(1, LEFT))
    gl.store(z + slot * D + row, z_sum, mask=row < D)
