"""The half of the warps of ``attend`` and ``differentiate`` that maps tiles, for products of the other half.

Products read shared memory through the async proxy: between a store and the word that a tile is ready lie a
fence of that proxy and a barrier of these warps.
"""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier

from attention.kernels.gluon_common.tiles import (
    QUARTER,
    ROWS,
    features,
    fold,
    load_rows,
    map_tile,
    two_quarters,
)
from attention.kernels.linear_triton.gluon.packed import load_edge, reaches, within
from attention.kernels.linear_triton.gluon.sums import gather_z


@gluon.jit
def map_queries_and_keys(
    inv, sums, queries, keys, z_tile, z_empty, walk,
    CAUSAL: gl.constexpr, REVERSE: gl.constexpr, SCANNED: gl.constexpr,
    MAP: gl.constexpr, PAD_D: gl.constexpr,
):  # fmt: skip
    """For ``attend``: phi of keys and queries in place, and z before each chunk."""
    STAGES: gl.constexpr = queries.tiles.shape[0]
    PACKED: gl.constexpr = sums.ends is not None
    if not REVERSE:
        z_sum = gather_z(sums, walk, CAUSAL, REVERSE, SCANNED)
        if not CAUSAL:
            z_tile.store(z_sum.to(gl.bfloat16))
    row = gl.arange(0, QUARTER, gl.SliceLayout(1, ROWS))
    for i in range(walk.chunks):
        slot, phase, start = i % STAGES, (i // STAGES) & 1, walk.begin + i * walk.step
        if CAUSAL:
            tile = keys.tiles.index(slot)
            if not REVERSE:
                before = z_sum.to(gl.bfloat16)
                if PACKED:
                    edge = load_edge(sums.ends, start, walk.N, REVERSE)
                    z_sum = gl.where(reaches(edge, start, REVERSE), z_sum, 0.0)
            # Keys, once loaded: mapped, in reverse scaled, else added to z.
            mbarrier.wait(keys.full.index(slot), phase)
            for j in gl.static_range(4):
                if j % 2 == 0:
                    pair = two_quarters(tile, j // 2)
                phi = features(pair[j % 2], MAP)
                if REVERSE:
                    scale = load_rows(inv, start + j * QUARTER, walk.N, row)
                    phi = (phi.to(gl.float32) * scale[:, None]).to(gl.bfloat16)
                elif PACKED:
                    token = start + j * QUARTER + row
                    z_sum += fold(gl.where(within(token, edge, REVERSE)[:, None], phi, 0.0))
                else:
                    z_sum += fold(phi)
                tile.slice(j * QUARTER, QUARTER).store(phi)
            # All of these warps have stored, and products see it: the keys are ready.
            fence_async_shared()
            gl.thread_barrier()
            mbarrier.arrive(keys.ready.index(slot), count=1)
        # Queries, once loaded: mapped. Beyond D keys are mapped to 1.
        mbarrier.wait(queries.full.index(slot), phase)
        map_tile(queries.tiles.index(slot), walk.D, MAP, PAD_D)
        if CAUSAL and not REVERSE:
            # z, once the products have read that of the chunk before.
            mbarrier.wait(z_empty, (i + 1) & 1)
            z_tile.store(before)
        # All of these warps have stored, and products see it: queries and z are ready.
        fence_async_shared()
        gl.thread_barrier()
        mbarrier.arrive(queries.ready.index(slot), count=1)


@gluon.jit
def store_z(tile, z_sum):
    """Stores the eight rows of z twice."""
    tile.slice(0, 8).store(z_sum.to(gl.bfloat16))
    tile.slice(8, 8).store(z_sum.to(gl.bfloat16))


@gluon.jit
def map_keys(
    inv, minus_delta, sums, keys, z_tile, z_full, z_empty, biases, walk,
    CAUSAL: gl.constexpr, REVERSE: gl.constexpr, SCANNED: gl.constexpr, MAP: gl.constexpr,
):  # fmt: skip
    """For ``differentiate``: phi of keys in place, in reverse scaled, and z before each chunk."""
    PACKED: gl.constexpr = sums.ends is not None
    z_sum = gather_z(sums, walk, CAUSAL, REVERSE, SCANNED)
    if not CAUSAL:
        # All of these warps have stored, and products see it: z is full, for all chunks.
        store_z(z_tile, z_sum)
        fence_async_shared()
        gl.thread_barrier()
        mbarrier.arrive(z_full, count=1)
    else:
        row = gl.arange(0, QUARTER, gl.SliceLayout(1, ROWS))
        for i in range(walk.chunks):
            slot, phase, start = i % 2, (i // 2) & 1, walk.begin + i * walk.step
            before = z_sum
            tile = keys.tiles.index(slot)
            if PACKED:
                edge = load_edge(sums.ends, start, walk.N, REVERSE)
                z_sum = gl.where(reaches(edge, start, REVERSE), z_sum, 0.0)
            # Keys, once loaded: mapped and added to z, in reverse scaled and weighed by their biases.
            mbarrier.wait(keys.full.index(slot), phase)
            for j in gl.static_range(4):
                if j % 2 == 0:
                    pair = two_quarters(tile, j // 2)
                phi = features(pair[j % 2], MAP).to(gl.float32)
                if REVERSE:
                    phi *= load_rows(inv, start + j * QUARTER, walk.N, row)[:, None]
                    bias = load_rows(minus_delta, start + j * QUARTER, walk.N, row)
                    biases.index(slot).slice(j * QUARTER, QUARTER).store(bias)
                if PACKED:
                    counted = gl.where(within(start + j * QUARTER + row, edge, REVERSE)[:, None], phi, 0.0)
                else:
                    counted = phi
                z_sum += fold(counted * bias[:, None] if REVERSE else counted)
                tile.slice(j * QUARTER, QUARTER).store(phi.to(gl.bfloat16))
            # z, once the products have read that of the chunk before.
            mbarrier.wait(z_empty, (i + 1) & 1)
            store_z(z_tile, before)
            # All of these warps have stored, and products see it: keys, biases and z are ready.
            fence_async_shared()
            gl.thread_barrier()
            mbarrier.arrive(keys.ready.index(slot), count=1)
