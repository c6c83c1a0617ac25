"""The parts that Gluon passes share: layouts of tiles, feature maps, and products."""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import warpgroup_mma

WIDTH = gl.constexpr(128)
QUARTER = gl.constexpr(32)
TILE = gl.constexpr(gl.NVMMASharedLayout(128, 16, 2))
VECTOR = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [0]))
PRODUCT = gl.constexpr(gl.NVMMADistributedLayout([3, 0], [8, 1], [16, 128, 16]))
"""A product of tiles, of which each of two warpgroups holds 64 rows."""
LEFT = gl.constexpr(gl.DotOperandLayout(0, PRODUCT.value, 2))
"""The left operand of a product of tiles, in registers: 64 rows of each warpgroup."""
NORM = gl.constexpr(gl.NVMMADistributedLayout([3, 0], [8, 1], [16, 8, 16]))
"""A product with eight columns."""
ROWS = gl.constexpr(gl.BlockedLayout([1, 4], [1, 32], [8, 1], [1, 0]))
"""A warp a row: a thread holds four columns of every eighth row, which it adds up alone."""
WIDE = gl.constexpr(gl.BlockedLayout([1, 8], [2, 16], [8, 1], [1, 0]))
"""Sixteen threads a row, which is summed by four exchanges."""


@gluon.jit
def features(x, MAP: gl.constexpr):
    """phi(x) in bfloat16, two at a time: the larger of x + 1 and e^min(x, 0). NaN stays NaN."""
    if MAP == "elu":
        return gl.inline_asm_elementwise(
            """{
            .reg .b32 zero, one, low, high, both;
            mov.b32 zero, 0;
            mov.b32 one, 0x3f803f80;
            min.bf16x2 both, $1, zero;
            shl.b32 low, both, 16;
            and.b32 high, both, 0xffff0000;
            mul.f32 low, low, 0f3fb8aa3b;
            mul.f32 high, high, 0f3fb8aa3b;
            ex2.approx.ftz.f32 low, low;
            ex2.approx.ftz.f32 high, high;
            cvt.rn.bf16x2.f32 both, high, low;
            fma.rn.bf16x2 low, $1, one, one;
            max.NaN.bf16x2 $0, low, both;
            }""",
            "=r,r", [x], dtype=gl.bfloat16, is_pure=True, pack=2,
        )  # fmt: skip
    elif MAP == "relu":
        return gl.inline_asm_elementwise(
            "{ .reg .b32 zero; mov.b32 zero, 0; max.NaN.bf16x2 $0, $1, zero; }",
            "=r,r", [x], dtype=gl.bfloat16, is_pure=True, pack=2,
        )  # fmt: skip
    else:
        return x


@gluon.jit
def slope(x, MAP: gl.constexpr):
    """phi'(x), float32."""
    x = x.to(gl.float32)
    if MAP == "elu":
        return gl.inline_asm_elementwise(
            """{
            .reg .f32 y;
            min.NaN.f32 y, $1, 0f00000000;
            mul.f32 y, y, 0f3fb8aa3b;
            ex2.approx.ftz.f32 $0, y;
            }""",
            "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1,
        )  # fmt: skip
    elif MAP == "relu":
        return gl.where(x > 0, 1.0, 0.0)
    else:
        return gl.full_like(x, 1.0)


@gluon.jit
def power(x):
    """2^x, float32; below 1e-38 zero."""
    return gl.inline_asm_elementwise(
        "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1
    )


@gluon.jit
def opaque(x):
    """Value x, hidden from the compiler: addresses and masks that depend on it are computed in each round.

    Else they would be computed once and wait in local memory, for which shared memory leaves hardly a cache.
    """
    return gl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x], dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def two_quarters(tile, half: gl.constexpr):
    """Two quarters of a tile's rows, loaded together: what is made of all four does not fit in registers."""
    first: gl.constexpr = 2 * half * QUARTER
    return tile.slice(first, QUARTER).load(ROWS), tile.slice(first + QUARTER, QUARTER).load(ROWS)


@gluon.jit
def map_tile(tile, D, MAP: gl.constexpr, PADDED: gl.constexpr):
    """Maps a tile in place; beyond D, where it is PADDED, elu's 1 becomes 0."""
    column = gl.arange(0, WIDTH, gl.SliceLayout(0, ROWS))[None, :]
    for j in gl.static_range(4):
        if j % 2 == 0:
            pair = two_quarters(tile, j // 2)
        phi = features(pair[j % 2], MAP)
        if PADDED and MAP == "elu":
            phi = gl.where(column < D, phi, 0.0)
        tile.slice(j * QUARTER, QUARTER).store(phi)


@gluon.jit
def fold(x):
    """Partial sums of rows: of every eighth, which one thread holds."""
    partial = gl.sum(gl.reshape(x.to(gl.float32), [x.shape[0] // 8, 8, WIDTH]), 0)
    return gl.convert_layout(partial, ROWS, assert_trivial=True)


@gluon.jit
def load_rows(x, start, N, rows):
    """A float32 for each token, zeros where there is none."""
    token = start + rows
    return gl.load(x + token, mask=(token >= 0) & (token < N), other=0.0)


@gluon.jit
def product(left, right):
    """Begins the product of two tiles."""
    zero = gl.zeros([WIDTH, WIDTH], gl.float32, PRODUCT)
    return warpgroup_mma(left, right, zero, use_acc=False, is_async=True)


@gluon.jit
def causal(scores, REVERSE: gl.constexpr):
    """Scores, zero where a column is later than its row (in reverse: earlier)."""
    row = opaque(gl.arange(0, WIDTH, gl.SliceLayout(1, PRODUCT)))[:, None]
    column = gl.arange(0, WIDTH, gl.SliceLayout(0, PRODUCT))[None, :]
    return gl.where(row <= column if REVERSE else row >= column, scores, 0.0)


@gluon.jit
def as_left(x):
    """A product as left operand of another: the same registers."""
    return gl.convert_layout(x.to(gl.bfloat16), LEFT, assert_trivial=True)
