"""The parts that Triton passes share: feature maps, the walk of a program, and tiles with their edges."""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def exp2(x):
    """2^x, below 1e-38 zero."""
    if INTERPRETED:
        return tl.exp2(x)
    else:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def exp(x):
    """e^x, below 1e-38 zero: without that licence each exponential costs three more instructions."""
    if INTERPRETED:
        return tl.exp(x)
    else:
        return exp2(x * 1.4426950408889634)


@triton.jit
def features(x, MAP: tl.constexpr):
    """phi(x), float32. NaN stays NaN: ``maximum`` alone would drop it."""
    x = x.to(tl.float32)
    if MAP == "elu":
        return tl.maximum(x + 1.0, exp(tl.minimum(x, 0.0)), propagate_nan=tl.PropagateNan.ALL)
    elif MAP == "relu":
        return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    else:
        return x


@triton.jit
def slope(x, MAP: tl.constexpr):
    """phi'(x), float32."""
    x = x.to(tl.float32)
    if MAP == "elu":
        return exp(tl.minimum(x, 0.0, propagate_nan=tl.PropagateNan.ALL))
    elif MAP == "relu":
        return tl.where(x > 0, 1.0, 0.0)
    else:
        return tl.full(x.shape, 1.0, tl.float32)


@triton.jit
def in_range(x, T: tl.constexpr):
    """X [rows, columns] as an operand of dtype T; of float16, which holds no sums, divided by its sizes."""
    if tl.float16 == T:
        return (x / sizes(x)[:, None]).to(T)
    else:
        return x.to(T)


@triton.jit
def sizes(x):
    """The largest element of each row, 1 where all are 0."""
    largest = tl.max(tl.abs(x), 1)
    return tl.where(largest > 0, largest, 1.0)


@triton.jit
def grown(peak, unit, state, x):
    """The largest element so far, with those of x; the unit in which x can be added; the state in that unit.

    What is in a unit is to be multiplied by it.
    """
    peak = tl.maximum(peak, tl.max(tl.max(tl.abs(x), 1), 0))
    new = tl.where(peak > 0, peak, 1.0)
    return peak, new, state * (unit / new)


@triton.jit
def fold(x):
    """Partial sums of rows: of every sixteenth, which one thread holds."""
    return tl.sum(tl.reshape(x, [x.shape[0] // 16, 16, x.shape[1]]), 0)


class Moved(NamedTuple):
    """A tensor moved in tiles: its descriptor, or a pointer to the sequence, and the stride of its tokens."""

    base: Any
    stride: Any


class Chunk(NamedTuple):
    """C tokens of a sequence, in ``rows`` 0 to C - 1 of a tile, from token ``start`` on, ``left`` to its end.

    ``offset`` is the start in 64 bits.
    """

    batch: Any
    head: Any
    start: Any
    offset: Any
    rows: Any
    left: Any


class Columns(NamedTuple):
    """The columns of a tile: ``numbers`` from ``first`` on, where a tensor has those below ``width``."""

    first: Any
    numbers: Any
    width: Any


class Walk(NamedTuple):
    """The segment of a program, tokens ``first`` to ``last`` - 1, in tiles of ``rows`` and two widths.

    Of one width the program has all columns, ``held``; of the other, which is ``split``, those of its block.
    ``sequence`` counts batch and head together, 0 to B H - 1, and ``group`` those of several heads as one.
    """

    rows: Any
    held: Columns
    split: Columns
    block: Any
    batch: Any
    head: Any
    sequence: Any
    group: Any
    segment: Any
    first: Any
    last: Any


@triton.jit
def walk_of(
    H, N, held_width, split_width, segments, segment_tokens,
    C: tl.constexpr, HELD: tl.constexpr, SPLIT: tl.constexpr, BLOCKS: tl.constexpr, skipped=0,
    HEADS: tl.constexpr = 1,
):  # fmt: skip
    """The walk of this program, in a grid of ``segments`` times BLOCKS programs a sequence.

    ``skipped`` segments before those have no program. HEADS of H groups each are neighbours in the grid: what
    they share is in the cache.
    """
    program = tl.program_id(0)
    block = program % BLOCKS
    segment = (program // (BLOCKS * HEADS)) % segments + skipped
    group = (program // (BLOCKS * HEADS * segments)).to(tl.int64)
    sequence = group * HEADS + (program // BLOCKS) % HEADS
    first = segment * segment_tokens
    last = tl.minimum(first + segment_tokens, N)
    rows = tl.arange(0, C)
    held = Columns(0, tl.arange(0, HELD), held_width)
    split = Columns(block * SPLIT, block * SPLIT + tl.arange(0, SPLIT), split_width)
    batch, head = sequence // (H * HEADS), sequence % (H * HEADS)
    return Walk(rows, held, split, block, batch, head, sequence, group, segment, first, last)


@triton.jit
def chunk_of(walk, i, chunks, N, C: tl.constexpr, REVERSE: tl.constexpr):
    """The i-th chunk of a walk, in reverse from the end."""
    start = walk.first + (chunks - 1 - i if REVERSE else i) * C
    return Chunk(walk.batch, walk.head, start, start.to(tl.int64), walk.rows, N - start)


@triton.jit
def at_head(chunk, head):
    """A chunk of the tokens of another, at this head."""
    return Chunk(chunk.batch, head, chunk.start, chunk.offset, chunk.rows, chunk.left)


@triton.jit
def seen(rows, REVERSE: tl.constexpr):
    """Which columns of a chunk each of its rows sees: those up to its own, in reverse from its own on."""
    return rows[:, None] <= rows[None, :] if REVERSE else rows[:, None] >= rows[None, :]


@triton.jit
def moved(x, batch_stride, head_stride, stride, walk, DESCRIBED: tl.constexpr):
    """Tensor x from the sequence of a walk on. A descriptor knows all strides, and begins with the tensor."""
    return moved_to(x, batch_stride, head_stride, stride, walk.batch, walk.head, DESCRIBED)


@triton.jit
def moved_to(x, batch_stride, head_stride, stride, batch, head, DESCRIBED: tl.constexpr):
    """Tensor x from one of its heads on."""
    if not DESCRIBED:
        x += batch * batch_stride + head * head_stride
    return Moved(x, stride)


@triton.jit
def of_head(x, j, head_stride, DESCRIBED: tl.constexpr, HEADS: tl.constexpr):
    """A moved tensor from its j-th head of HEADS on, where j has 64 bits."""
    if DESCRIBED or HEADS == 1:
        return x
    else:
        return Moved(x.base + j * head_stride, x.stride)


@triton.jit
def tile_mask(chunk, columns, RAGGED: tl.constexpr, PADDED: tl.constexpr):
    """Which elements of a tile exist, where a length is ragged or a width padded."""
    if RAGGED and PADDED:
        return (chunk.rows[:, None] < chunk.left) & (columns.numbers[None, :] < columns.width)
    elif RAGGED:
        return (chunk.rows[:, None] < chunk.left) & (columns.numbers[None, :] >= 0)
    elif PADDED:
        return (chunk.rows[:, None] >= 0) & (columns.numbers[None, :] < columns.width)
    else:
        return None


@triton.jit
def load_tile(x, chunk, columns, DESCRIBED: tl.constexpr, RAGGED: tl.constexpr, PADDED: tl.constexpr):
    """Tile ``[C, columns]`` of a tensor whose last stride is 1, zeros beyond its edges."""
    if DESCRIBED:
        tile = x.base.load([chunk.batch.to(tl.int32), chunk.head.to(tl.int32), chunk.start, columns.first])
        return tl.reshape(tile, [chunk.rows.shape[0], columns.numbers.shape[0]])
    else:
        row = x.base + chunk.start.to(tl.int64) * x.stride
        place = row + chunk.rows[:, None] * x.stride + columns.numbers[None, :]
        if RAGGED or PADDED:
            return tl.load(place, mask=tile_mask(chunk, columns, RAGGED, PADDED), other=0.0)
        else:
            return tl.load(place)


@triton.jit
def store_tile(x, value, chunk, columns, DESCRIBED: tl.constexpr, RAGGED: tl.constexpr, PADDED: tl.constexpr):
    """Stores a tile ``[C, columns]`` into a tensor, within its edges."""
    if DESCRIBED:
        block = tl.reshape(value.to(x.base.dtype), [1, 1, chunk.rows.shape[0], columns.numbers.shape[0]])
        x.base.store([chunk.batch.to(tl.int32), chunk.head.to(tl.int32), chunk.start, columns.first], block)
    else:
        row = x.base + chunk.start.to(tl.int64) * x.stride
        place = row + chunk.rows[:, None] * x.stride + columns.numbers[None, :]
        value = value.to(x.base.dtype.element_ty)
        if RAGGED or PADDED:
            tl.store(place, value, mask=tile_mask(chunk, columns, RAGGED, PADDED))
        else:
            tl.store(place, value)


@triton.jit
def load_rows(x, chunk, RAGGED: tl.constexpr):
    """One float32 for each token of a chunk, zeros beyond the last; x begins with the sequence."""
    x += chunk.offset
    if RAGGED:
        return tl.load(x + chunk.rows, mask=chunk.rows < chunk.left, other=0.0)
    else:
        return tl.load(x + chunk.rows)


@triton.jit
def store_rows(x, value, chunk, RAGGED: tl.constexpr):
    """Stores one float32 for each token of a chunk, up to the last; x begins with the sequence."""
    x += chunk.offset
    if RAGGED:
        tl.store(x + chunk.rows, value, mask=chunk.rows < chunk.left)
    else:
        tl.store(x + chunk.rows, value)
