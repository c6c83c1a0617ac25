"""What the Gluon passes share: layouts, feature maps, and tiles in shared memory.

A tile is 128 tokens of a tensor, filled up with zeros to a width of 128. The copy engine brings it while all
else goes on, and a barrier on which its bytes arrive tells when it is there.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma

# Later versions of Triton than 3.6 renamed these.
copy_in = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
copy_out = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global
barrier = getattr(gl, "barrier", None) or gl.thread_barrier
REINTERPRETS = gl.constexpr(hasattr(gl.shared_memory_descriptor, "reinterpret"))

WIDTH = gl.constexpr(128)
QUARTER = gl.constexpr(32)
TILE = gl.constexpr(gl.NVMMASharedLayout(128, 16, 2))
VECTOR = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [0]))
PRODUCT = gl.constexpr(gl.NVMMADistributedLayout([3, 0], [8, 1], [16, 128, 16]))
"""A product of tiles, of which each of two warpgroups holds 64 rows."""
LEFT = gl.constexpr(gl.DotOperandLayout(0, PRODUCT.value, 2))
"""Its left operand in registers: the same rows."""
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
def anew(x):
    """x, which the compiler cannot know before: what is made of it holds no registers between rounds.

    It would keep masks and addresses in local memory, which shared memory leaves hardly a cache.
    """
    return gl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x], dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def barriers(count: gl.constexpr):
    """So many barriers, each of one arrival."""
    ring = gl.allocate_shared_memory(gl.int64, [count, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(count):
        mbarrier.init(ring.index(i), count=1)
    return ring


@gluon.jit
def tiles(count: gl.constexpr):
    """So many tiles, and the barriers on which their bytes arrive."""
    return gl.allocate_shared_memory(gl.bfloat16, [count, WIDTH, WIDTH], TILE), barriers(count)


@gluon.jit
def expect(here, wanted):
    """The bytes of a tile, if it is wanted: of all that are brought together before the first is."""
    mbarrier.expect(here, 2 * WIDTH * WIDTH, wanted)


@gluon.jit
def bring(x, tile, here, at, start, wanted):
    """A tensor's tile from token ``start``, of batch and head ``at``, if it is wanted."""
    copy_in(x, [at[0], at[1], start, 0], here, as_block(tile, x), wanted)


@gluon.jit
def take(x, tile, at, start):
    """The reverse, within the edges of the tensor."""
    copy_out(x, [at[0], at[1], start, 0], as_block(tile, x))


@gluon.jit
def as_block(tile, x):
    """A tile as the descriptor of its tensor sees it."""
    if REINTERPRETS:
        return tile.reinterpret(gl.bfloat16, [1, 1, WIDTH, WIDTH], x.layout)
    else:
        return tile._reinterpret(gl.bfloat16, [1, 1, WIDTH, WIDTH], x.layout)


@gluon.jit
def two_quarters(tile, half: gl.constexpr):
    """Of its rows, loaded together: what is made of all at once does not fit in registers."""
    first: gl.constexpr = 2 * half * QUARTER
    return tile.slice(first, QUARTER).load(ROWS), tile.slice(first + QUARTER, QUARTER).load(ROWS)


@gluon.jit
def fold(x):
    """Partial sums of rows: of every eighth."""
    partial = gl.sum(gl.reshape(x.to(gl.float32), [x.shape[0] // 8, 8, WIDTH]), 0)
    return gl.convert_layout(partial, ROWS, assert_trivial=True)


@gluon.jit
def load_rows(x, start, N, rows):
    """A float32 for each token, zeros where there is none."""
    token = start + rows
    return gl.load(x + token, mask=(token >= 0) & (token < N), other=0.0)


@gluon.jit
def product(left, right):
    """Of two tiles, begun."""
    zero = gl.zeros([WIDTH, WIDTH], gl.float32, PRODUCT)
    return warpgroup_mma(left, right, zero, use_acc=False, is_async=True)


@gluon.jit
def causal(scores, REVERSE: gl.constexpr):
    """Zero where a column is later than its row (in reverse: earlier)."""
    row = anew(gl.arange(0, WIDTH, gl.SliceLayout(1, PRODUCT)))[:, None]
    column = gl.arange(0, WIDTH, gl.SliceLayout(0, PRODUCT))[None, :]
    return gl.where(row <= column if REVERSE else row >= column, scores, 0.0)


@gluon.jit
def as_left(x):
    """A product as left operand of another: the same registers."""
    return gl.convert_layout(x.to(gl.bfloat16), LEFT, assert_trivial=True)
