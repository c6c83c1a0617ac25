"""Sums over segments in Gluon, and what later passes gather from them."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from attention.kernels.linear_triton.gluon.tiles import (
    LEFT,
    PRODUCT,
    ROWS,
    VECTOR,
    WIDE,
    WIDTH,
    barrier,
    bring,
    expect,
    features,
    load_rows,
    tiles,
)


@gluon.jit
def left_features(tile, start, N, MAP: gl.constexpr, RAGGED: gl.constexpr):
    """phi(x)' as a left operand, zero after the last token."""
    phi = features(tile.permute((1, 0)).load(LEFT), MAP)
    if RAGGED and MAP == "elu":
        token = start + gl.arange(0, WIDTH, gl.SliceLayout(0, LEFT))
        phi = gl.where((token < N)[None, :], phi, 0.0)
    return phi


@gluon.jit
def states(
    x, y, S, z, H, N, D, E, segments, segment_tokens, counted,
    MAP: gl.constexpr, RAGGED: gl.constexpr,
):  # fmt: skip
    """S = sum phi(x) y', z = sum phi(x) of each segment: one program a segment.

    A chunk is mapped while the product of the one before runs.
    """
    STAGES: gl.constexpr = 3
    program = gl.program_id(0)
    segment, head = program % counted, program // counted
    at = (head // H, head % H)
    first = segment * segment_tokens
    chunks = gl.cdiv(gl.minimum(first + segment_tokens, N) - first, WIDTH)
    xs, x_here = tiles(STAGES)
    ys, y_here = tiles(STAGES)
    fence_async_shared()
    barrier()
    for i in gl.static_range(STAGES):
        expect(x_here.index(i), i < chunks)
        expect(y_here.index(i), i < chunks)
    for i in gl.static_range(STAGES):
        bring(x, xs.index(i), x_here.index(i), at, first + i * WIDTH, i < chunks)
        bring(y, ys.index(i), y_here.index(i), at, first + i * WIDTH, i < chunks)
    state = gl.zeros([WIDTH, WIDTH], gl.float32, PRODUCT)
    weights = gl.zeros([WIDTH], gl.float32, gl.SliceLayout(1, LEFT))
    mbarrier.wait(x_here.index(0), 0)
    phi = left_features(xs.index(0), first, N, MAP, RAGGED)
    for i in range(chunks):
        slot, start = i % STAGES, first + i * WIDTH
        mbarrier.wait(y_here.index(slot), (i // STAGES) & 1)
        growing = warpgroup_mma(phi, ys.index(slot), state, is_async=True)
        weights += gl.sum(phi.to(gl.float32), 1)
        # After the last chunk what lies there is mapped, for nothing.
        then, more = (i + 1) % STAGES, i + 1 < chunks
        mbarrier.wait(x_here.index(then), ((i + 1) // STAGES) & 1, more)
        phi = left_features(xs.index(then), start + WIDTH, N, MAP, RAGGED)
        state = warpgroup_mma_wait(0, [growing])
        barrier()
        wanted, far = i + STAGES < chunks, start + STAGES * WIDTH
        expect(x_here.index(slot), wanted)
        expect(y_here.index(slot), wanted)
        bring(x, xs.index(slot), x_here.index(slot), at, far, wanted)
        bring(y, ys.index(slot), y_here.index(slot), at, far, wanted)
    store(S, z, state, weights, head.to(gl.int64) * segments + segment, D, E)


@gluon.jit
def states_back(
    x, y, o, inv, delta, S, z, H, N, D, E, segments, segment_tokens, MAP: gl.constexpr
):  # fmt: skip
    """``states`` for gradients: x = q, y = do scaled by ``inv``, z weighed by -delta = -do.o, stored."""
    STAGES: gl.constexpr = 2
    program = gl.program_id(0)
    segment, head = program % segments, program // segments
    at = (head // H, head % H)
    inv += head.to(gl.int64) * N
    delta += head.to(gl.int64) * N
    first = segment * segment_tokens
    chunks = gl.cdiv(gl.minimum(first + segment_tokens, N) - first, WIDTH)
    xs, x_here = tiles(STAGES)
    ys, y_here = tiles(STAGES)
    os, o_here = tiles(STAGES)
    factors = gl.allocate_shared_memory(gl.float32, [WIDTH], VECTOR)
    fence_async_shared()
    barrier()
    for i in gl.static_range(STAGES):
        expect(x_here.index(i), i < chunks)
        expect(y_here.index(i), i < chunks)
        expect(o_here.index(i), i < chunks)
    for i in gl.static_range(STAGES):
        bring(y, ys.index(i), y_here.index(i), at, first + i * WIDTH, i < chunks)
        bring(o, os.index(i), o_here.index(i), at, first + i * WIDTH, i < chunks)
        bring(x, xs.index(i), x_here.index(i), at, first + i * WIDTH, i < chunks)
    state = gl.zeros([WIDTH, WIDTH], gl.float32, PRODUCT)
    weights = gl.zeros([WIDTH], gl.float32, gl.SliceLayout(1, LEFT))
    row = gl.arange(0, WIDTH, gl.SliceLayout(1, WIDE))
    for i in range(chunks):
        slot, phase, start = i % STAGES, (i // STAGES) & 1, first + i * WIDTH
        scale = load_rows(inv, start, N, row)
        mbarrier.wait(y_here.index(slot), phase)
        mbarrier.wait(o_here.index(slot), phase)
        bias = weigh(ys.index(slot), os.index(slot), scale)
        gl.store(delta + start + row, bias, mask=start + row < N)
        factors.store(bias * scale)
        mbarrier.wait(x_here.index(slot), phase)
        phi = left_features(xs.index(slot), start, N, MAP, False)
        fence_async_shared()
        barrier()
        growing = warpgroup_mma(phi, ys.index(slot), state, is_async=True)
        weights += gl.sum(phi.to(gl.float32) * factors.load(gl.SliceLayout(0, LEFT))[None, :], 1)
        state = warpgroup_mma_wait(0, [growing])
        barrier()
        wanted, far = i + STAGES < chunks, start + STAGES * WIDTH
        expect(x_here.index(slot), wanted)
        expect(y_here.index(slot), wanted)
        expect(o_here.index(slot), wanted)
        bring(y, ys.index(slot), y_here.index(slot), at, far, wanted)
        bring(o, os.index(slot), o_here.index(slot), at, far, wanted)
        bring(x, xs.index(slot), x_here.index(slot), at, far, wanted)
    store(S, z, state, weights, head.to(gl.int64) * segments + segment, D, E)


@gluon.jit
def weigh(y_tile, o_tile, scale):
    """Minus the rows of y times those of o; then y is scaled in its place."""
    y, o = y_tile.load(WIDE).to(gl.float32), o_tile.load(WIDE).to(gl.float32)
    y_tile.store((y * scale[:, None]).to(gl.bfloat16))
    return -gl.sum(y * o, 1)


@gluon.jit
def store(S, z, state, weights, place, D, E):
    """The sums of a segment."""
    d = gl.arange(0, WIDTH, gl.SliceLayout(1, PRODUCT))[:, None]
    e = gl.arange(0, WIDTH, gl.SliceLayout(0, PRODUCT))[None, :]
    gl.store(S + place * D * E + d * E + e, state, mask=(d < D) & (e < E))
    row = gl.arange(0, WIDTH, gl.SliceLayout(1, LEFT))
    gl.store(z + place * D + row, weights, mask=row < D)


@gluon.jit
def slots(
    head, segment, segments, CAUSAL: gl.constexpr, REVERSE: gl.constexpr, SCANNED: gl.constexpr
):  # fmt: skip
    """Those of the sums before a segment (in reverse: behind it; not causal: all), and the slot after."""
    if SCANNED:
        slot = head * (segments + 1)
        if CAUSAL:
            slot += segment + 1 if REVERSE else segment
        elif not REVERSE:
            slot += segments
        return slot, slot + 1
    else:
        slot = head * segments
        begin = slot + segment + 1 if CAUSAL and REVERSE else slot
        end = slot + segment if CAUSAL and not REVERSE else slot + segments
        return begin, end


@gluon.jit
def gather_state(
    S, S0, head, segment, segments, D, E, d, e,
    CAUSAL: gl.constexpr, REVERSE: gl.constexpr,
    SCANNED: gl.constexpr, SUMS: gl.constexpr, INITIAL: gl.constexpr,
):  # fmt: skip
    """The state where a segment begins, in rows d and columns e or the other way round."""
    exists = (d < D) & (e < E)
    at = d * E + e
    state = gl.zeros([WIDTH, WIDTH], gl.float32, PRODUCT)
    if INITIAL:
        state = gl.load(S0 + head * D * E + at, mask=exists, other=0.0)
    if SUMS:
        begin, end = slots(head, segment, segments, CAUSAL, REVERSE, SCANNED)
        for slot in range(begin, end):
            state += gl.load(S + slot * D * E + at, mask=exists, other=0.0)
    return state


@gluon.jit
def gather_weights(
    z, z0, head, segment, segments, D,
    CAUSAL: gl.constexpr, REVERSE: gl.constexpr,
    SCANNED: gl.constexpr, SUMS: gl.constexpr, INITIAL: gl.constexpr,
):  # fmt: skip
    """The weights there, in the first of the eight rows in which those of chunks are added."""
    row = gl.arange(0, 8, gl.SliceLayout(1, ROWS))[:, None]
    column = gl.arange(0, WIDTH, gl.SliceLayout(0, ROWS))[None, :]
    first = (row == 0) & (column < D)
    column = row * 0 + column
    weights = gl.zeros([8, WIDTH], gl.float32, ROWS)
    if INITIAL:
        weights = gl.load(z0 + head * D + column, mask=first, other=0.0)
    if SUMS:
        begin, end = slots(head, segment, segments, CAUSAL, REVERSE, SCANNED)
        for slot in range(begin, end):
            weights += gl.load(z + slot * D + column, mask=first, other=0.0)
    return weights
