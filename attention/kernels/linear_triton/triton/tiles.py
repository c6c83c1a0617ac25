"""The parts that Triton passes share: feature maps, and tiles of memory with their edges."""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def exp(x):
    """e^x, below 1e-38 zero: without that licence each exponential costs three more instructions."""
    if INTERPRETED:
        return tl.exp(x)
    else:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x * 1.4426950408889634],
            dtype=tl.float32, is_pure=True, pack=1,
        )  # fmt: skip


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
def tile_mask(rows, columns, left, width, RAGGED: tl.constexpr, PADDED: tl.constexpr):
    """Which elements of a tile exist: only a ragged length or a padded width needs to ask."""
    if RAGGED and PADDED:
        return (rows[:, None] < left) & (columns[None, :] < width)
    elif RAGGED:
        return (rows[:, None] < left) & (columns[None, :] >= 0)
    elif PADDED:
        return (rows[:, None] >= 0) & (columns[None, :] < width)
    else:
        return None


@triton.jit
def load_tile(
    x, stride, at, rows, columns, left, width,
    DESCRIBED: tl.constexpr, RAGGED: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """``[C, width]`` of a tensor whose last stride is 1, zeros beyond its edges.

    ``at``: batch, head, first token and first column. A descriptor knows its edges; a pointer stands at the
    head already.
    """
    if DESCRIBED:
        tile = x.load([at[0].to(tl.int32), at[1].to(tl.int32), at[2], at[3]])
        return tl.reshape(tile, [rows.shape[0], columns.shape[0]])
    else:
        place = x + at[2].to(tl.int64) * stride + rows[:, None] * stride + columns[None, :]
        if RAGGED or PADDED:
            return tl.load(place, mask=tile_mask(rows, columns, left, width, RAGGED, PADDED), other=0.0)
        else:
            return tl.load(place)


@triton.jit
def store_tile(
    x, value, stride, at, rows, columns, left, width,
    DESCRIBED: tl.constexpr, RAGGED: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """The reverse, within the edges."""
    if DESCRIBED:
        block = tl.reshape(value.to(x.dtype), [1, 1, rows.shape[0], columns.shape[0]])
        x.store([at[0].to(tl.int32), at[1].to(tl.int32), at[2], at[3]], block)
    else:
        place = x + at[2].to(tl.int64) * stride + rows[:, None] * stride + columns[None, :]
        value = value.to(x.dtype.element_ty)
        if RAGGED or PADDED:
            tl.store(place, value, mask=tile_mask(rows, columns, left, width, RAGGED, PADDED))
        else:
            tl.store(place, value)


@triton.jit
def load_rows(x, rows, left, RAGGED: tl.constexpr):
    """A float32 for each token, zeros beyond the last."""
    if RAGGED:
        return tl.load(x + rows, mask=rows < left, other=0.0)
    else:
        return tl.load(x + rows)


@triton.jit
def store_rows(x, value, rows, left, RAGGED: tl.constexpr):
    """The reverse, up to the last."""
    if RAGGED:
        tl.store(x + rows, value, mask=rows < left)
    else:
        tl.store(x + rows, value)
