"""The output and dv in Gluon, for bfloat16 of widths 65 to 128 on a Hopper card.

Triton's own pass cuts a width of 128 into two blocks, whose programs both map the keys and compute the
scores. Here a program holds all of both widths and has a multiprocessor to itself, as those of linear-triton
have: half of its warps map the next chunk in place while the other half multiply this one. A chunk is two of
those whose gates ``cumulate`` sums.

Shared memory of a program, of 232448 bytes that there are: 3 rings x 2 tiles x 32768 + state 32768 + gates
2048 + barriers and captures 248 = 231672. Registers of a thread: the mapping warps ask for 56, which leaves
the multiplying ones (65536 - 256 x 56) / 256 = 200. Of these ptxas spills 32 bytes, in reverse 96.
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

from attention.kernels.gluon_common.rings import async_load, async_store, expect, new_ring, with_ready
from attention.kernels.gluon_common.tiles import (
    LEFT,
    PRODUCT,
    TILE,
    VECTOR,
    WIDTH,
    as_left,
    map_tile,
    opaque,
    power,
    product,
)
from attention.kernels.gluon_common.walk import walk_of
from attention.kernels.linear_decay_triton.gluon.gates import gates_of


class Gates(NamedTuple):
    """The gates of chunks, in shared memory, a float32 for each token; chunks take its slots in turn.

    ``until``: the sum of the gates up to a token, a power of two; ``weights``: what the gates between a token
    and the state after its chunk keep.
    """

    until: Any
    weights: Any


@gluon.jit
def new_gates(count: gl.constexpr):
    """Room for the gates of ``count`` chunks."""
    return Gates(
        gl.allocate_shared_memory(gl.float32, [count, WIDTH], VECTOR),
        gl.allocate_shared_memory(gl.float32, [count, WIDTH], VECTOR),
    )


@gluon.jit
def map_chunks(
    sums, queries, keys, gates, walk, REVERSE: gl.constexpr, MAP: gl.constexpr, PAD_D: gl.constexpr
):  # fmt: skip
    """Half of the warps: phi of keys and queries in place, and the gates."""
    STAGES: gl.constexpr = queries.tiles.shape[0]
    for i in range(walk.chunks):
        slot, phase, start = i % STAGES, (i // STAGES) & 1, walk.begin + i * walk.step
        until, weights, _ = gates_of(sums, start, walk.N, REVERSE)
        # Keys, once loaded. By then the gates that lay in this slot are read, as are the keys.
        mbarrier.wait(keys.full.index(slot), phase)
        gates.until.index(slot).store(until)
        gates.weights.index(slot).store(weights)
        map_tile(keys.tiles.index(slot), walk.D, MAP, False)
        # All of these warps have stored, and products see it: the keys and the gates are ready.
        fence_async_shared()
        gl.thread_barrier()
        mbarrier.arrive(keys.ready.index(slot), count=1)
        # Queries, once loaded. Beyond D keys are mapped to 1.
        mbarrier.wait(queries.full.index(slot), phase)
        map_tile(queries.tiles.index(slot), walk.D, MAP, PAD_D)
        fence_async_shared()
        gl.thread_barrier()
        mbarrier.arrive(queries.ready.index(slot), count=1)


@gluon.jit
def multiply(
    queries, keys, values, out, S, totals, state_ring, gates, bounds, across, walk,
    REVERSE: gl.constexpr, SCANNED: gl.constexpr, SUMS: gl.constexpr, GROUP: gl.constexpr,
    PAD_D: gl.constexpr,
):  # fmt: skip
    """Half of the warps: products, and loads into each tile as soon as it is empty."""
    STAGES: gl.constexpr = queries.tiles.shape[0]
    state = gather(S, totals, walk, REVERSE, SCANNED, SUMS)
    # All of these warps have stored the state, and products see it.
    state_ring.index(0).store(state.to(gl.bfloat16))
    fence_async_shared()
    gl.thread_barrier()
    for i in range(walk.chunks):
        slot, phase, start = i % STAGES, (i // STAGES) & 1, walk.begin + i * walk.step
        state_tile, query = state_ring.index(opaque(0)), queries.tiles.index(slot)
        key, value = keys.tiles.index(slot).permute((1, 0)), values.tiles.index(slot)

        if REVERSE:
            following = start + WIDTH
            if (following % GROUP == 0) & (following < walk.N):
                group, groups = following // GROUP, gl.cdiv(walk.N, GROUP)
                multiply_states(bounds, across, state, walk, group, groups, PAD_D)

        # The state after the chunk, of keys weighed by the gates in between.
        mbarrier.wait(keys.ready.index(slot), phase)
        until = gates.until.index(slot)
        weights = gates.weights.index(slot).load(gl.SliceLayout(0, LEFT))[None, :]
        kept = (key.load(LEFT).to(gl.float32) * weights).to(gl.bfloat16)
        end = until.slice(WIDTH - 1, 1).load(gl.SliceLayout(1, PRODUCT))
        mbarrier.wait(values.full.index(slot), phase)
        growing = warpgroup_mma(kept, value, state * power(end)[:, None], is_async=True)

        # Scores, once queries are mapped; each weighed by the gates between its tokens.
        mbarrier.wait(queries.ready.index(slot), phase)
        scores = product(query, key)
        state, scores = warpgroup_mma_wait(0, [growing, scores])
        scores = as_left(weighed(scores, until, REVERSE))

        # The result: from before the chunk, and from within it.
        of_rows = until.load(gl.SliceLayout(1, PRODUCT))
        before = power(end - of_rows if REVERSE else of_rows)
        result = warpgroup_mma_wait(0, [product(query, state_tile)]) * before[:, None]
        result = warpgroup_mma(scores, value, result, is_async=True)

        # The copy engine has read the output before this one: its tile is empty and takes a later chunk.
        tma.store_wait(0)
        last, far = (i + STAGES - 1) % STAGES, start + (STAGES - 1) * walk.step
        wanted = (i > 0) & (i + STAGES - 1 < walk.chunks)
        expect(values, last, wanted)
        async_load(values, last, walk, far, wanted)

        # In both warpgroups: keys, queries, gates and the state before the chunk are read.
        gl.thread_barrier()
        wanted, far = i + STAGES < walk.chunks, start + STAGES * walk.step
        expect(keys, slot, wanted)
        expect(queries, slot, wanted)
        async_load(keys, slot, walk, far, wanted)
        async_load(queries, slot, walk, far, wanted)
        state_tile.store(state.to(gl.bfloat16))

        # The last product is done in both warpgroups: its tile is empty and takes the output.
        result = warpgroup_mma_wait(0, [result])
        gl.thread_barrier()
        value.store(result.to(gl.bfloat16))
        # All of these warps have stored output and state: the copy engine and the next products see it.
        fence_async_shared()
        gl.thread_barrier()
        async_store(out, value, walk, start)
    # Shared memory stays until the copy engine has read the last output.
    tma.store_wait(0)


@gluon.jit
def weighed(scores, until, REVERSE: gl.constexpr):
    """Scores times what the gates between their tokens keep, zero where no token sees the other."""
    row = opaque(gl.arange(0, WIDTH, gl.SliceLayout(1, PRODUCT)))[:, None]
    column = gl.arange(0, WIDTH, gl.SliceLayout(0, PRODUCT))[None, :]
    of_rows = until.load(gl.SliceLayout(1, PRODUCT))[:, None]
    of_columns = until.load(gl.SliceLayout(0, PRODUCT))[None, :]
    if REVERSE:
        return gl.where(row <= column, scores * power(of_columns - of_rows), 0.0)
    else:
        return gl.where(row >= column, scores * power(of_rows - of_columns), 0.0)


@gluon.jit
def multiply_states(bounds, across, state, walk, group, groups, PAD_D: gl.constexpr):
    """The products of the state before a group, as `tiled` in ``bounds``, and that behind; sums over E."""
    row = opaque(gl.arange(0, WIDTH, gl.SliceLayout(1, PRODUCT)))
    d, e = row[:, None], gl.arange(0, WIDTH, gl.SliceLayout(0, PRODUCT))[None, :]
    slot = walk.sequence * groups + group
    # The lines of eight columns by eight, of which each is read at once.
    place = bounds + slot * (WIDTH * WIDTH) + (d // 8 * (WIDTH // 8) + e // 8) * 64 + d % 8 * 8 + e % 8
    products = gl.load(place).to(gl.float32) * state
    if PAD_D:
        products = gl.where(d < walk.D, products, 0.0)
    gl.store(across + slot * WIDTH + row, gl.sum(products, 1))


@gluon.jit
def gather(S, totals, walk, REVERSE: gl.constexpr, SCANNED: gl.constexpr, SUMS: gl.constexpr):
    """State ``[D, E]`` before a segment, in reverse behind it; [E, D] in memory, few sums or many SCANNED."""
    D, E = walk.D, walk.E
    d = gl.arange(0, WIDTH, gl.SliceLayout(1, PRODUCT))[:, None]
    e = gl.arange(0, WIDTH, gl.SliceLayout(0, PRODUCT))[None, :]
    exists, at = (d < D) & (e < E), e * D + d
    state = gl.zeros([WIDTH, WIDTH], gl.float32, PRODUCT)
    if SCANNED:
        slot = walk.sequence * (walk.summed + 1) + walk.segment
        state = gl.load(S + slot * D * E + at, mask=exists, other=0.0)
    elif SUMS:
        steps = walk.summed - walk.segment if REVERSE else walk.segment
        for i in range(steps):
            slot = walk.sequence * walk.summed + (walk.summed - 1 - i if REVERSE else i)
            state = state * power(gl.load(totals + slot))
            state += gl.load(S + slot * D * E + at, mask=exists, other=0.0)
    return state


@gluon.jit
def attend(
    a, b, c, out, sums, S, totals, bounds, across, H, N, D, E, segments, segment_tokens,
    REVERSE: gl.constexpr, SCANNED: gl.constexpr, SUMS: gl.constexpr, GROUP: gl.constexpr,
    MAP: gl.constexpr, PAD_D: gl.constexpr,
):  # fmt: skip
    """Forward: out_i = sum_j exp(gates after j to i) (phi(a_i).phi(b_j)) c_j, j <= i.

    In reverse, dv: a = k, b = q, c = do, j >= i; the states before each GROUP of tokens, in ``bounds``, are
    multiplied with those behind. One program a segment. An output lies where its values lay until the copy
    engine has read it.
    """
    STAGES: gl.constexpr = 2
    walk = walk_of(H, N, D, E, segments, segment_tokens, segments - 1, REVERSE, 1)
    sums += walk.sequence * N
    queries, keys = with_ready(new_ring(a, walk.head, STAGES)), with_ready(new_ring(b, walk.head, STAGES))
    values, gates = new_ring(c, walk.head, STAGES), new_gates(STAGES)
    state_ring = gl.allocate_shared_memory(gl.bfloat16, [1, WIDTH, WIDTH], TILE)
    # All warps and the copy engine see the barriers as they were made.
    fence_async_shared()
    gl.thread_barrier()

    # The first chunks.
    for i in gl.static_range(STAGES):
        expect(keys, i, i < walk.chunks)
        expect(values, i, i < walk.chunks)
        expect(queries, i, i < walk.chunks)
    for i in gl.static_range(STAGES):
        start, wanted = walk.begin + i * walk.step, i < walk.chunks
        async_load(keys, i, walk, start, wanted)
        async_load(values, i, walk, start, wanted)
        async_load(queries, i, walk, start, wanted)
    gl.warp_specialize(
        [
            (multiply, (
                queries, keys, values, out, S, totals, state_ring, gates, bounds, across, walk,
                REVERSE, SCANNED, SUMS, GROUP, PAD_D,
            )),
            (map_chunks, (sums, queries, keys, gates, walk, REVERSE, MAP, PAD_D)),
        ],
        [8],
        [56],
    )  # fmt: skip
