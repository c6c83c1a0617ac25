"""Rings of tiles in shared memory, which the copy engine fills and empties while the warps compute.

A tile is 128 tokens of a tensor, filled up with zeros to a width of 128. A barrier is in phase 0 first, then
in 1, then in 0 again: each arrival ends a phase, and ``wait`` returns unless the barrier is in the given one.
"""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

from typing import Any, NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma

from attention.kernels.gluon_common.tiles import TILE, WIDTH


class Ring(NamedTuple):
    """Tiles of a head of a tensor, for chunks in turn; ``full`` of each: the copy engine has written it."""

    tensor: Any
    head: Any
    tiles: Any
    full: Any


class MappedRing(NamedTuple):
    """A ring whose tiles are mapped in place; ``ready`` of each: it is mapped."""

    tensor: Any
    head: Any
    tiles: Any
    full: Any
    ready: Any


@gluon.jit
def barriers(count: gl.constexpr):
    """``count`` barriers, each of one arrival. Each must be waited for or arrived at later on.

    Memory of a barrier that is made and not used is free for tiles, but a barrier it stays. Where processes
    take turns on a card, the bytes of a tile there come back wrong.
    """
    made = gl.allocate_shared_memory(gl.int64, [count, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(count):
        mbarrier.init(made.index(i), count=1)
    return made


@gluon.jit
def new_ring(tensor, head, count: gl.constexpr):
    """A ring of ``count`` tiles, 32768 bytes each."""
    tiles = gl.allocate_shared_memory(gl.bfloat16, [count, WIDTH, WIDTH], TILE)
    return Ring(tensor, head, tiles, barriers(count))


@gluon.jit
def with_ready(ring):
    """A ring as one whose tiles are mapped in place."""
    return MappedRing(ring.tensor, ring.head, ring.tiles, ring.full, barriers(ring.tiles.shape[0]))


@gluon.jit
def expect(ring, slot, wanted):
    """Tells the barrier of a tile for how many bytes to wait, if the tile is wanted."""
    mbarrier.expect(ring.full.index(slot), 2 * WIDTH * WIDTH, wanted)


@gluon.jit
def async_load(ring, slot, walk, start, wanted):
    """Begins to load a tile from token ``start`` on, if it is wanted; it is full once all bytes are there."""
    block = ring.tiles.index(slot).reshape([1, 1, WIDTH, WIDTH])
    at = [walk.batch, ring.head, start, 0]
    tma.async_copy_global_to_shared(ring.tensor, at, ring.full.index(slot), block, wanted)


@gluon.jit
def async_store(tensor, tile, walk, start):
    """Begins to store a tile into a tensor from token ``start`` on, within the tensor's edges."""
    block = tile.reshape([1, 1, WIDTH, WIDTH])
    tma.async_copy_shared_to_global(tensor, [walk.batch, walk.head, start, 0], block)
