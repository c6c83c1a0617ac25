"""What segments leave behind, in Gluon."""

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
from attention.kernels.gluon_common.tiles import LEFT, PRODUCT, VECTOR, WIDTH, features, power
from attention.kernels.gluon_common.walk import walk_of
from attention.kernels.linear_decay_triton.gluon.gates import gates_of


@gluon.jit
def weighed_features(tile, weights, MAP: gl.constexpr):
    """phi(x)' as a left operand, each token times its weight."""
    phi = features(tile.permute((1, 0)).load(LEFT), MAP).to(gl.float32)
    return (phi * weights.load(gl.SliceLayout(0, LEFT))[None, :]).to(gl.bfloat16)


@gluon.jit
def states(
    x, y, sums, S, totals, H, N, D, E, counted, segment_tokens,
    REVERSE: gl.constexpr, MAP: gl.constexpr,
):  # fmt: skip
    """Sum exp(gates after x) y phi(x)' of each of the ``counted`` first segments, and the sum of its gates.

    In reverse, of x = q and y = do: sum exp(gates from the segment's beginning to x), of the last segments.
    One program a segment. A chunk is mapped while the product of the one before runs. Shared memory: 2 rings
    x 3 tiles x 32768 + weights 1024 + barriers 56 = 197688 bytes.
    """
    STAGES: gl.constexpr = 3
    # In reverse, the tokens of the first segment are not read.
    skipped = segment_tokens if REVERSE else 0
    walk = walk_of(H, N - skipped, D, E, counted, segment_tokens, counted, REVERSE, 1)
    sums += walk.sequence * N
    xs, ys = new_ring(x, walk.head, STAGES), new_ring(y, walk.head, STAGES)
    weights = gl.allocate_shared_memory(gl.float32, [2, WIDTH], VECTOR)
    # All warps and the copy engine see the barriers as they were made.
    fence_async_shared()
    gl.thread_barrier()

    # The first chunks.
    begin = walk.begin + skipped
    for i in gl.static_range(STAGES):
        expect(xs, i, i < walk.chunks)
        expect(ys, i, i < walk.chunks)
    for i in gl.static_range(STAGES):
        async_load(xs, i, walk, begin + i * walk.step, i < walk.chunks)
        async_load(ys, i, walk, begin + i * walk.step, i < walk.chunks)
    state = gl.zeros([WIDTH, WIDTH], gl.float32, PRODUCT)
    total = 0.0
    _, first, end = gates_of(sums, begin, N, REVERSE)
    weights.index(0).store(first)
    _, second, next_end = gates_of(sums, begin + gl.minimum(1, walk.chunks - 1) * walk.step, N, REVERSE)
    weights.index(1).store(second)
    gl.thread_barrier()
    mbarrier.wait(xs.full.index(0), 0)
    phi = weighed_features(xs.tiles.index(0), weights.index(0), MAP)
    for i in range(walk.chunks):
        slot, start = i % STAGES, begin + i * walk.step
        # The gates of the chunk after the next; after the last chunk they are of an old one, unused.
        later = gl.minimum(i + 2, walk.chunks - 1)
        _, weight, later_end = gates_of(sums, begin + later * walk.step, N, REVERSE)
        # This chunk's product, once y is loaded.
        mbarrier.wait(ys.full.index(slot), (i // STAGES) & 1)
        growing = warpgroup_mma(phi, ys.tiles.index(slot), state * power(end), is_async=True)
        total += end
        # The next chunk's features, once x is loaded. After the last chunk they are of an old tile, unused.
        then, more = (i + 1) % STAGES, i + 1 < walk.chunks
        mbarrier.wait(xs.full.index(then), ((i + 1) // STAGES) & 1, more)
        phi = weighed_features(xs.tiles.index(then), weights.index((i + 1) % 2), MAP)
        # The product is done in both warpgroups, and the weights of this chunk are read: this chunk's tiles
        # are empty and take a later one.
        state = warpgroup_mma_wait(0, [growing])
        weights.index(i % 2).store(weight)
        end, next_end = next_end, later_end
        gl.thread_barrier()
        wanted, far = i + STAGES < walk.chunks, start + STAGES * walk.step
        expect(xs, slot, wanted)
        expect(ys, slot, wanted)
        async_load(xs, slot, walk, far, wanted)
        async_load(ys, slot, walk, far, wanted)
    slot = walk.sequence * counted + walk.segment
    d = gl.arange(0, WIDTH, gl.SliceLayout(1, PRODUCT))[:, None]
    e = gl.arange(0, WIDTH, gl.SliceLayout(0, PRODUCT))[None, :]
    gl.store(S + slot * D * E + e * D + d, state, mask=(d < D) & (e < E))
    gl.store(totals + slot, total)
