"""New tokens behind a state, in one launch: a program reads and writes the state of one head of keys."""

# Types are those of Triton's compiler.
# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from attention.kernels.triton_common.tiles import features


@triton.jit
def step(
    q, k, v, out, S, z, S_new, z_new,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, H, D, E, eps,
    GROUP: tl.constexpr, TOKENS: tl.constexpr, MAP: tl.constexpr,
    BD: tl.constexpr, BE: tl.constexpr, BLOCKS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """S += phi(k_t) v_t', z += phi(k_t), out_t = phi(q_t) S / (phi(q_t).z + eps), one token after the other.

    The state may be written where it was read, as no other program reads it. A program takes it in BLOCKS
    blocks of Dv, and computes ROWS rows of the output, GROUP heads a token.
    """
    sequence = tl.program_id(0).to(tl.int64)
    batch, head = sequence // H, sequence % H
    q += batch * q_b + head * GROUP * q_h
    k += batch * k_b + head * k_h
    v += batch * v_b + head * v_h
    d, rows = tl.arange(0, BD), tl.arange(0, ROWS)
    before = tl.load(z + sequence * D + d, mask=d < D, other=0.0)
    z_sum = before
    for block in tl.static_range(BLOCKS):
        e = block * BE + tl.arange(0, BE)
        at = sequence * D * E + d[:, None] * E + e[None, :]
        exists = (d[:, None] < D) & (e[None, :] < E)
        state = tl.load(S + at, mask=exists, other=0.0)
        z_sum = before
        result = tl.zeros([ROWS, BE], tl.float32)
        for t in range(TOKENS):
            key = features(tl.load(k + t * k_n + d, mask=d < D, other=0.0), MAP)
            key = tl.where(d < D, key, 0.0)
            value = tl.load(v + t * v_n + e, mask=e < E, other=0.0).to(tl.float32)
            state += key[:, None] * value[None, :]
            if TOKENS == 1:  # on its way while the output is computed
                tl.store(S_new + at, state, mask=exists)
            z_sum += key
            for j in tl.static_range(GROUP):
                query = features(tl.load(q + j * q_h + t * q_n + d, mask=d < D, other=0.0), MAP)
                weighted = tl.sum(query[:, None] * state, 0) / (tl.sum(query * z_sum, 0) + eps)
                result = tl.where(rows[:, None] == t * GROUP + j, weighted[None, :], result)
        # Row t GROUP + j is token t of head j of the group.
        place = (sequence * GROUP + rows % GROUP) * TOKENS + rows // GROUP
        inside = (rows[:, None] < GROUP * TOKENS) & (e[None, :] < E)
        tl.store(out + place[:, None] * E + e[None, :], result.to(out.dtype.element_ty), mask=inside)
        if TOKENS != 1:
            tl.store(S_new + at, state, mask=exists)
    # All warps have read z.
    tl.debug_barrier()
    tl.store(z_new + sequence * D + d, z_sum, mask=d < D)
