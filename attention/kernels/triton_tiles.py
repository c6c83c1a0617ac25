"""What the Triton passes share: feature maps, and tiles of memory with their edges."""

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
    if MAP == "elu":
        return tl.maximum(x + 1.0, exp(tl.minimum(x, 0.0)), propagate_nan=tl.PropagateNan.ALL)
    elif MAP == "relu":
        return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    else:
        return x


@triton.jit
def slope(x, MAP: tl.constexpr):
    """phi'(x)."""
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
def load_tile(x, stride, rows, columns, left, width, RAGGED: tl.constexpr, PADDED: tl.constexpr):
    """``[C, width]`` of a tensor whose last stride is 1, zeros beyond its edges."""
    at = x + rows[:, None] * stride + columns[None, :]
    if RAGGED or PADDED:
        return tl.load(at, mask=tile_mask(rows, columns, left, width, RAGGED, PADDED), other=0.0)
    else:
        return tl.load(at)


@triton.jit
def store_tile(x, value, stride, rows, columns, left, width, RAGGED: tl.constexpr, PADDED: tl.constexpr):
    """The reverse, within the edges."""
    at = x + rows[:, None] * stride + columns[None, :]
    if RAGGED or PADDED:
        tl.store(at, value, mask=tile_mask(rows, columns, left, width, RAGGED, PADDED))
    else:
        tl.store(at, value)


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
