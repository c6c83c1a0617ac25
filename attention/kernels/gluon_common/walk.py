"""The way of a Gluon program through its segment."""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

from typing import Any, NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from attention.kernels.gluon_common.tiles import WIDTH


class Walk(NamedTuple):
    """The segment of a program: ``chunks`` chunks of 128 tokens, the first at token ``begin``.

    From one to the next it is ``step`` tokens. ``sequence`` counts batch and head together, 0 to B H - 1, and
    ``group`` those of several heads of queries as one, as ``key_head`` does in a batch. ``summed``: segments
    that have sums, each but the last of ``segment_tokens`` tokens.
    """

    batch: Any
    head: Any
    key_head: Any
    sequence: Any
    group: Any
    segment: Any
    segment_tokens: Any
    summed: Any
    N: Any
    D: Any
    E: Any
    begin: Any
    step: Any
    chunks: Any


@gluon.jit
def walk_of(H, N, D, E, segments, segment_tokens, summed, REVERSE: gl.constexpr, HEADS: gl.constexpr):
    """The walk of this program, in a grid of ``segments`` programs a sequence.

    HEADS that share keys are neighbours in the grid: what they share is in the cache.
    """
    program = gl.program_id(0)
    part, member = program // HEADS, program % HEADS
    segment = part % segments
    batch, key_head = part // segments // H, part // segments % H
    group = (part // segments).to(gl.int64)
    first = segment * segment_tokens
    chunks = gl.cdiv(gl.minimum(first + segment_tokens, N) - first, WIDTH)
    step = -WIDTH if REVERSE else WIDTH
    begin = first + (chunks - 1) * WIDTH if REVERSE else first
    head, sequence = key_head * HEADS + member, group * HEADS + member
    return Walk(
        batch, head, key_head, sequence, group, segment, segment_tokens, summed, N, D, E, begin, step, chunks
    )  # fmt: skip
