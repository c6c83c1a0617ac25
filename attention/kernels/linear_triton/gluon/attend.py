"""The output and dv in Gluon, for widths of 65 to 128 on a Hopper card.

Triton's own pass cuts a width of 128 into two blocks, whose programs both map the keys and compute the
scores, and each of its products waits for the one before. Here a program holds all of both widths and has a
multiprocessor to itself. Half of its warps map the next chunk in place, once for all products, while the
other half multiply this one: warps that did both would wait for their own products.

Shared memory of a program, of 232448 bytes that there are:

    causal         3 rings x 2 tiles x 32768 + state 32768 + z 2048 + barriers and captures 272 = 231696
    bidirectional  1 ring  x 4 tiles x 32768 + state 32768 + z 2048 + barriers and captures 168 = 166056
    in reverse     without z, and with more or fewer captures: 229608 and 163976

Registers of a thread: ptxas compiles all 16 warps for 128. The mapping ones ask for 56, which leaves the
multiplying ones (65536 - 256 x 56) / 256 = 200. Of those of a causal pass ptxas spills 2 to 56 bytes, of
packed sequences up to 160: a chunk in which one begins is computed by code of its own, one product after the
other.
"""

# Types are those of Triton's compiler.
# mypy: ignore-errors
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

from attention.kernels.gluon_common.rings import (
    async_load,
    async_store,
    barriers,
    expect,
    new_ring,
    with_ready,
)
from attention.kernels.gluon_common.tiles import (
    NORM,
    PRODUCT,
    TILE,
    WIDTH,
    as_left,
    causal,
    opaque,
    product,
)
from attention.kernels.gluon_common.walk import walk_of
from attention.kernels.linear_triton.gluon.mapping import map_queries_and_keys
from attention.kernels.linear_triton.gluon.packed import (
    left_within,
    load_bounds,
    load_edge,
    reaches,
    seen,
    whole_chunks,
)
from attention.kernels.linear_triton.gluon.sums import Sums, gather_state


@gluon.jit
def multiply(
    queries, keys, values, out, inv, sums, state_ring, z_ring, z_empty, walk, eps,
    CAUSAL: gl.constexpr, REVERSE: gl.constexpr, SCANNED: gl.constexpr, KEEP: gl.constexpr,
):  # fmt: skip
    """Half of the warps: products, and loads into each tile as soon as it is empty."""
    row = gl.arange(0, WIDTH, gl.SliceLayout(1, PRODUCT))
    column = gl.arange(0, WIDTH, gl.SliceLayout(0, PRODUCT))
    state = gather_state(sums, walk, row[:, None], column[None, :], CAUSAL, REVERSE, SCANNED)
    # All of these warps have stored the state, and products see it.
    state_ring.index(0).store(state.to(gl.bfloat16))
    fence_async_shared()
    gl.thread_barrier()
    if sums.ends is None:
        for i in range(walk.chunks):
            state = multiply_chunk(
                queries, keys, values, out, inv, None, state_ring, z_ring, z_empty, walk, eps, i, state,
                CAUSAL, REVERSE, KEEP,
            )  # fmt: skip
    else:
        i = 0
        while i < walk.chunks:
            start, left = walk.begin + i * walk.step, walk.chunks - i
            other = i + whole_chunks(sums.ends, start, left, walk.N, REVERSE)
            for j in range(i, other):
                state = multiply_chunk(
                    queries, keys, values, out, inv, None, state_ring, z_ring, z_empty, walk, eps, j, state,
                    CAUSAL, REVERSE, KEEP,
                )  # fmt: skip
            for j in range(other, gl.minimum(other + 1, walk.chunks)):
                state = multiply_chunk(
                    queries, keys, values, out, inv, sums.ends, state_ring, z_ring, z_empty, walk, eps, j,
                    state, CAUSAL, REVERSE, KEEP,
                )  # fmt: skip
            i = other + 1
    # Shared memory stays until the copy engine has read the last output.
    tma.store_wait(0)


@gluon.jit
def multiply_chunk(
    queries, keys, values, out, inv, ends, state_ring, z_ring, z_empty, walk, eps, i, state,
    CAUSAL: gl.constexpr, REVERSE: gl.constexpr, KEEP: gl.constexpr,
):  # fmt: skip
    """The output of chunk ``i``, and the state after it; with ``ends`` a sequence begins in it, or at it."""
    PACKED: gl.constexpr = ends is not None
    STAGES: gl.constexpr = queries.tiles.shape[0]
    row = gl.arange(0, WIDTH, gl.SliceLayout(1, PRODUCT))
    slot, phase, start = i % STAGES, (i // STAGES) & 1, walk.begin + i * walk.step
    zero = opaque(0)
    state_tile, query = state_ring.index(zero), queries.tiles.index(slot)
    if PACKED:
        bounds, edge = load_bounds(ends, start, walk.N, REVERSE), load_edge(ends, start, walk.N, REVERSE)
        reached = reaches(bounds, start, REVERSE)
    # Values are loaded, keys mapped, queries mapped and z stored.
    if CAUSAL:
        key, value = keys.tiles.index(slot).permute((1, 0)), values.tiles.index(slot)
        mbarrier.wait(values.full.index(slot), phase)
        mbarrier.wait(keys.ready.index(slot), phase)
    mbarrier.wait(queries.ready.index(slot), phase)

    # Scores, the normalisers' part from before the chunk, and the state after it.
    if CAUSAL:
        scores = product(query, key)
    if not REVERSE:
        z_tile = z_ring.index(zero).permute((1, 0))
        norm = gl.zeros([WIDTH, 8], gl.float32, NORM)
        norm = warpgroup_mma(query, z_tile, norm, use_acc=False, is_async=True)
    if CAUSAL and not PACKED:
        growing = warpgroup_mma(key, value, state, is_async=True)
        # Waits for the scores alone; what follows them runs on.
        scores = causal(warpgroup_mma_wait(1 if REVERSE else 2, [scores]), REVERSE)
    if PACKED:
        # Nothing of a sequence that ended goes on. One product after the other: registers hold no more.
        scores = seen(warpgroup_mma_wait(0, [scores]), bounds, start, REVERSE)
    if CAUSAL:
        if not REVERSE:
            total = gl.sum(scores, 1)
        scores = as_left(scores)
    if PACKED:
        growing = product(left_within(key, start, edge, REVERSE), value)
        growing = warpgroup_mma_wait(0, [growing])

    # The result: from before the chunk, and from within it.
    result = product(query, state_tile)
    if PACKED:
        result = gl.where(reached[:, None], warpgroup_mma_wait(0, [result]), 0.0)
    if CAUSAL:
        result = warpgroup_mma(scores, value, result, is_async=True)

    # The copy engine has read the output before this one: its tile is empty and takes a later chunk.
    tma.store_wait(0)
    last, far = (i + STAGES - 1) % STAGES, start + (STAGES - 1) * walk.step
    wanted = (i > 0) & (i + STAGES - 1 < walk.chunks)
    outputs = values if CAUSAL else queries
    expect(outputs, last, wanted)
    async_load(outputs, last, walk, far, wanted)

    # All products but the last are done, which reads values and scores alone.
    if CAUSAL and REVERSE:
        state = warpgroup_mma_wait(1, [growing])
    elif CAUSAL:
        norm, state = warpgroup_mma_wait(1, [norm, growing])
    elif not REVERSE:
        norm = warpgroup_mma_wait(1, [norm])
    if CAUSAL:
        # In both warpgroups: keys, queries, z and the state before the chunk are read.
        gl.thread_barrier()
        wanted, far = i + STAGES < walk.chunks, start + STAGES * walk.step
        expect(keys, slot, wanted)
        expect(queries, slot, wanted)
        async_load(keys, slot, walk, far, wanted)
        async_load(queries, slot, walk, far, wanted)
        if not REVERSE:
            mbarrier.arrive(z_empty, count=1)
        state_tile.store(state.to(gl.bfloat16))

    # The output, normalised.
    if not REVERSE:
        norm = gl.convert_layout(gl.sum(norm, 1), gl.SliceLayout(1, PRODUCT), assert_trivial=True)
        if PACKED:
            norm = gl.where(reached, norm, 0.0)
        if CAUSAL:
            norm += total
        norm = 1.0 / (norm + eps)
        if KEEP:
            gl.store(inv + start + row, norm, mask=start + row < walk.N)
    result = warpgroup_mma_wait(0, [result])
    if not REVERSE:
        result *= norm[:, None]
    # The last product is done in both warpgroups: its tile is empty and takes the output.
    output = value if CAUSAL else query
    gl.thread_barrier()
    output.store(result.to(gl.bfloat16))
    # All of these warps have stored output and state: the copy engine and the next products see it.
    fence_async_shared()
    gl.thread_barrier()
    async_store(out, output, walk, start)
    return state


@gluon.jit
def attend(
    a, b, c, out, inv, S, z, S0, z0, ends, H, N, D, E, segments, segment_tokens, summed, eps,
    CAUSAL: gl.constexpr, REVERSE: gl.constexpr, KEEP: gl.constexpr, GROUP: gl.constexpr,
    SCANNED: gl.constexpr, SUMS: gl.constexpr, INITIAL: gl.constexpr, PACKED: gl.constexpr,
    MAP: gl.constexpr, PAD_D: gl.constexpr,
):  # fmt: skip
    """Forward: out_i = sum_j (phi(a_i).phi(b_j)) c_j / normaliser, whose inverse goes to ``inv``.

    In reverse, dv: a = k, b = q, c = do, j >= i, phi(b_j) scaled by ``inv``. One program a segment. An output
    lies where its values (not causal: its queries) lay until the copy engine has read it.
    """
    STAGES: gl.constexpr = 2 if CAUSAL else 4
    walk = walk_of(H, N, D, E, segments, segment_tokens, summed, REVERSE, GROUP)
    sums = Sums(
        S if SUMS else None, z if SUMS else None, S0 if INITIAL else None, z0 if INITIAL else None,
        ends if PACKED else None,
    )  # fmt: skip
    inv += walk.sequence * N

    # Shared memory. Not causal, there are neither keys nor values; in reverse, there is no z.
    queries = with_ready(new_ring(a, walk.head, STAGES))
    if CAUSAL:
        keys, values = new_ring(b, walk.key_head, STAGES), new_ring(c, walk.key_head, STAGES)
        keys = with_ready(keys)
    else:
        keys, values = None, None
    state_ring = gl.allocate_shared_memory(gl.bfloat16, [1, WIDTH, WIDTH], TILE)
    if REVERSE:
        z_ring, z_tile, z_empty = None, None, None
    else:
        z_ring = gl.allocate_shared_memory(gl.bfloat16, [1, 8, WIDTH], TILE)
        z_tile, z_empty = z_ring.index(0), None
        if CAUSAL:
            z_empty = barriers(1).index(0)
    # All warps and the copy engine see the barriers as they were made.
    fence_async_shared()
    gl.thread_barrier()

    # The first chunks.
    for i in gl.static_range(STAGES):
        if CAUSAL:
            expect(keys, i, i < walk.chunks)
            expect(values, i, i < walk.chunks)
        expect(queries, i, i < walk.chunks)
    for i in gl.static_range(STAGES):
        start, wanted = walk.begin + i * walk.step, i < walk.chunks
        if CAUSAL:
            async_load(keys, i, walk, start, wanted)
        async_load(queries, i, walk, start, wanted)
        if CAUSAL:
            async_load(values, i, walk, start, wanted)
    gl.warp_specialize(
        [
            (multiply, (
                queries, keys, values, out, inv, sums, state_ring, z_ring, z_empty, walk, eps,
                CAUSAL, REVERSE, SCANNED, KEEP,
            )),
            (map_queries_and_keys, (
                inv, sums, queries, keys, z_tile, z_empty, walk, CAUSAL, REVERSE, SCANNED, MAP, PAD_D,
            )),
        ],
        [8],
        [56],
    )  # fmt: skip
