"""dq and dk in Gluon, for widths of 65 to 128 on a Hopper card: programs like those of ``attend``.

Shared memory of a program, of 232448 bytes that there are:

    causal         5 tiles x 32768 + state 32768 + z 4096 + barriers and captures 208 = 200912
                   in reverse also biases 1024, and captures more 48 = 201984
    bidirectional  4 tiles x 32768 + state 32768 + z 4096 + barriers and captures 112 = 168048

Registers of a thread: ptxas compiles all 16 warps for 128. The mapping ones ask for 48, which leaves the
multiplying ones (65536 - 256 x 48) / 256 = 208. Of those of a causal pass ptxas spills 8 to 48 bytes, in
reverse 36 to 400.
"""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

from typing import Any, NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from attention.kernels.gluon_common.rings import (
    async_load,
    async_store,
    barriers,
    expect,
    new_ring,
    with_ready,
)
from attention.kernels.gluon_common.tiles import (
    LEFT,
    PRODUCT,
    TILE,
    VECTOR,
    WIDTH,
    as_left,
    causal,
    load_rows,
    opaque,
    product,
    slope,
)
from attention.kernels.gluon_common.walk import walk_of
from attention.kernels.linear_triton.gluon.mapping import map_keys
from attention.kernels.linear_triton.gluon.packed import (
    left_within,
    load_bounds,
    load_edge,
    reaches,
    seen,
    whole_chunks,
)
from attention.kernels.linear_triton.gluon.sums import Sums, gather_state


class Rings(NamedTuple):
    """The rings of a, b, x and y."""

    lefts: Any
    rights: Any
    points: Any
    keys: Any


@gluon.jit
def by_z(factor, z_tile):
    """Begins the product factor_i z_d. A factor is the sum of two bfloat16: each for eight of z's 16 rows."""
    factor = gl.convert_layout(factor, gl.SliceLayout(1, LEFT), assert_trivial=True)
    column = gl.arange(0, 16, gl.SliceLayout(0, LEFT))[None, :]
    high = factor.to(gl.bfloat16)
    low = (factor - high.to(gl.float32)).to(gl.bfloat16)
    left = gl.where(column < 8, high[:, None], low[:, None])
    zero = gl.zeros([WIDTH, WIDTH], gl.float32, PRODUCT)
    return warpgroup_mma(left, z_tile, zero, use_acc=False, is_async=True)


@gluon.jit
def multiply(
    rings, out, inv, minus_delta, sums, state_ring, z_ring, z_full, z_empty, biases, walk,
    CAUSAL: gl.constexpr, REVERSE: gl.constexpr, SCANNED: gl.constexpr, MAP: gl.constexpr,
):  # fmt: skip
    """Half of the warps: products, and loads into each tile as soon as it is empty."""
    row = gl.arange(0, WIDTH, gl.SliceLayout(1, PRODUCT))
    column = gl.arange(0, WIDTH, gl.SliceLayout(0, PRODUCT))
    state = gather_state(sums, walk, column[None, :], row[:, None], CAUSAL, REVERSE, SCANNED)
    # All of these warps have stored the state, and products see it.
    state_ring.index(0).store(state.to(gl.bfloat16))
    fence_async_shared()
    gl.thread_barrier()
    if not CAUSAL:
        # Once z is stored, for all chunks.
        mbarrier.wait(z_full, 0)
    if sums.ends is None:
        for i in range(walk.chunks):
            state = multiply_chunk(
                rings, out, inv, minus_delta, None, state_ring, z_ring, z_empty, biases, walk, i, state,
                CAUSAL, REVERSE, MAP,
            )  # fmt: skip
    else:
        i = 0
        while i < walk.chunks:
            start, left = walk.begin + i * walk.step, walk.chunks - i
            other = i + whole_chunks(sums.ends, start, left, walk.N, REVERSE)
            for j in range(i, other):
                state = multiply_chunk(
                    rings, out, inv, minus_delta, None, state_ring, z_ring, z_empty, biases, walk, j, state,
                    CAUSAL, REVERSE, MAP,
                )  # fmt: skip
            for j in range(other, gl.minimum(other + 1, walk.chunks)):
                state = multiply_chunk(
                    rings, out, inv, minus_delta, sums.ends, state_ring, z_ring, z_empty, biases, walk, j,
                    state, CAUSAL, REVERSE, MAP,
                )  # fmt: skip
            i = other + 1
    # Shared memory stays until the copy engine has read the last output.
    tma.store_wait(0)


@gluon.jit
def multiply_chunk(
    rings, out, inv, minus_delta, ends, state_ring, z_ring, z_empty, biases, walk, i, state,
    CAUSAL: gl.constexpr, REVERSE: gl.constexpr, MAP: gl.constexpr,
):  # fmt: skip
    """The output of chunk ``i``, and the state after it; with ``ends`` a sequence begins in it, or at it."""
    lefts, rights, points, keys = rings.lefts, rings.rights, rings.points, rings.keys
    PACKED: gl.constexpr = ends is not None
    STAGES: gl.constexpr = lefts.tiles.shape[0]
    row = gl.arange(0, WIDTH, gl.SliceLayout(1, PRODUCT))
    factor = gl.full([WIDTH], 1.0, gl.float32, gl.SliceLayout(1, PRODUCT))
    slot, phase, start = i % STAGES, (i // STAGES) & 1, walk.begin + i * walk.step
    zero = opaque(0)
    here = slot + zero  # the slot, for addresses computed in each round
    state_tile, z_tile = state_ring.index(zero), z_ring.index(zero)
    left, point = lefts.tiles.index(here), points.tiles.index(here)
    if PACKED:
        bounds, edge = load_bounds(ends, start, walk.N, REVERSE), load_edge(ends, start, walk.N, REVERSE)
    if not REVERSE:
        factor = load_rows(minus_delta, start, walk.N, row)
        scale = load_rows(inv, start, walk.N, row)
    # The right side is loaded, keys are mapped and z is stored; the left side is loaded.
    if CAUSAL:
        right, key = rights.tiles.index(here), keys.tiles.index(i % 2)
        mbarrier.wait(rights.full.index(slot), phase)
        mbarrier.wait(keys.ready.index(i % 2), (i // 2) & 1)
    mbarrier.wait(lefts.full.index(slot), phase)

    # Scores, and the state after the chunk.
    if CAUSAL:
        scores = product(left, right.permute((1, 0)))
        if PACKED:
            # One product after the other: registers hold no more.
            scores = warpgroup_mma_wait(0, [scores])
        else:
            growing = warpgroup_mma(right.permute((1, 0)), key, state, is_async=True)
            # Waits for the scores alone; what follows them runs on.
            scores = warpgroup_mma_wait(1, [scores])
        if REVERSE:
            scores += biases.index(i % 2).load(gl.SliceLayout(0, PRODUCT))[None, :]
        else:
            scores += factor[:, None]
        scores = as_left(seen(scores, bounds, start, REVERSE) if PACKED else causal(scores, REVERSE))
        if PACKED:
            # Nothing of a sequence that ended goes on.
            growing = product(left_within(right.permute((1, 0)), start, edge, REVERSE), key)
            growing = warpgroup_mma_wait(0, [growing])

    # The result: from before the chunk, and from within it.
    result = by_z(factor, z_tile)
    result = warpgroup_mma(left, state_tile, result, is_async=True)
    if PACKED:
        reached = reaches(bounds, start, REVERSE)
        result = gl.where(reached[:, None], warpgroup_mma_wait(0, [result]), 0.0)
    if CAUSAL:
        result = warpgroup_mma(scores, key, result, is_async=True)

    # The copy engine has read the output before this one: its tile is empty and takes a later chunk.
    tma.store_wait(0)
    last, far = (i + STAGES - 1) % STAGES, start + (STAGES - 1) * walk.step
    wanted = (i > 0) & (i + STAGES - 1 < walk.chunks)
    expect(points, last, wanted)
    async_load(points, last, walk, far, wanted)

    if CAUSAL:
        # All products but the last are done, which reads keys and scores alone. In both warpgroups: left
        # and right side, z and the state before the chunk are read.
        state = warpgroup_mma_wait(1, [growing])
        gl.thread_barrier()
        wanted = i + 1 < walk.chunks
        expect(lefts, slot, wanted)
        expect(rights, slot, wanted)
        async_load(lefts, here, walk, start + walk.step, wanted)
        async_load(rights, here, walk, start + walk.step, wanted)
        mbarrier.arrive(z_empty, count=1)
        state_tile.store(state.to(gl.bfloat16))

    # The output, in the place of its point.
    mbarrier.wait(points.full.index(slot), phase)
    result = warpgroup_mma_wait(0, [result])
    if not REVERSE:
        result *= scale[:, None]
    point.store((result * slope(point.load(PRODUCT), MAP)).to(gl.bfloat16))
    # All of these warps are done with all products, and have stored output and state: the copy engine and
    # the next products see it.
    fence_async_shared()
    gl.thread_barrier()
    async_store(out, point, walk, start)
    if CAUSAL:
        wanted = i + 2 < walk.chunks
        expect(keys, i % 2, wanted)
        async_load(keys, i % 2, walk, start + 2 * walk.step, wanted)
    else:
        wanted = i + STAGES < walk.chunks
        expect(lefts, slot, wanted)
        async_load(lefts, here, walk, start + STAGES * walk.step, wanted)
    return state


@gluon.jit
def differentiate(
    a, b, x, y, out, inv, minus_delta, S, z, S0, z0, ends, H, N, D, E, segments, segment_tokens, summed,
    CAUSAL: gl.constexpr, REVERSE: gl.constexpr, GROUP: gl.constexpr,
    SCANNED: gl.constexpr, SUMS: gl.constexpr, INITIAL: gl.constexpr, PACKED: gl.constexpr,
    MAP: gl.constexpr,
):  # fmt: skip
    """dq_i = phi'(q_i) inv_i sum_j (do_i.v_j - delta_i) phi(k_j): a = do, b = v, x = q, y = k.

    In reverse, dk_i = phi'(k_i) sum_j (v_i.do_j - delta_j) inv_j phi(q_j), j >= i: a = v, b = do, x = k,
    y = q. The state is transposed, [Dv, D]. One program a segment. An output lies where its x lay until the
    copy engine has read it.
    """
    STAGES: gl.constexpr = 1 if CAUSAL else 2
    walk = walk_of(H, N, D, E, segments, segment_tokens, summed, REVERSE, GROUP)
    sums = Sums(
        S if SUMS else None, z if SUMS else None, S0 if INITIAL else None, z0 if INITIAL else None,
        ends if PACKED else None,
    )  # fmt: skip
    inv += walk.sequence * N
    minus_delta += walk.sequence * N

    # Shared memory. Not causal, there are neither rights nor keys.
    lefts, points = new_ring(a, walk.head, STAGES), new_ring(x, walk.head, STAGES)
    if CAUSAL:
        rights, keys = new_ring(b, walk.key_head, 1), with_ready(new_ring(y, walk.key_head, 2))
        z_full, z_empty = None, barriers(1).index(0)
    else:
        rights, keys = None, None
        z_full, z_empty = barriers(1).index(0), None
    biases = gl.allocate_shared_memory(gl.float32, [2, WIDTH], VECTOR)
    state_ring = gl.allocate_shared_memory(gl.bfloat16, [1, WIDTH, WIDTH], TILE)
    z_ring = gl.allocate_shared_memory(gl.bfloat16, [1, 16, WIDTH], TILE)
    # All warps and the copy engine see the barriers as they were made.
    fence_async_shared()
    gl.thread_barrier()

    # The first chunks.
    if CAUSAL:
        expect(rights, 0, True)
        expect(keys, 0, True)
        expect(keys, 1, walk.chunks > 1)
    for i in gl.static_range(STAGES):
        expect(lefts, i, i < walk.chunks)
        expect(points, i, i < walk.chunks)
    if CAUSAL:
        async_load(keys, 0, walk, walk.begin, True)
        async_load(rights, 0, walk, walk.begin, True)
    for i in gl.static_range(STAGES):
        async_load(lefts, i, walk, walk.begin + i * walk.step, i < walk.chunks)
        async_load(points, i, walk, walk.begin + i * walk.step, i < walk.chunks)
    if CAUSAL:
        async_load(keys, 1, walk, walk.begin + walk.step, walk.chunks > 1)
    gl.warp_specialize(
        [
            (multiply, (
                Rings(lefts, rights, points, keys), out, inv, minus_delta, sums,
                state_ring, z_ring, z_full, z_empty, biases, walk, CAUSAL, REVERSE, SCANNED, MAP,
            )),
            (map_keys, (
                inv, minus_delta, sums, keys, z_ring.index(0), z_full, z_empty, biases, walk,
                CAUSAL, REVERSE, SCANNED, MAP,
            )),
        ],
        [8],
        [48],
    )  # fmt: skip
