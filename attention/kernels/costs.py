"""Closed forms: FLOPs, least bytes moved and peak bytes of each kernel.

N, D, Dv are the lengths of the sequence, of a key and of a value; everything is multiplied by
B x H. MACs are those of the matrix products as the kernel executes them, so that they equal what
torch's ``FlopCounterMode`` counts; what it cannot see is named where it occurs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attention.kernels.chunked import BLOCK_ROWS, default_chunk_size, iterate_chunks
from attention.kernels.registry import Costs

if TYPE_CHECKING:
    from attention.case import Case


def min_bytes(case: Case) -> int:
    """Each input read once, each output written once.

    Forward: q, k, v read and o written. Backward: q, k, v, o and do read, dq, dk and dv written.
    """
    d, dv = case.head_dim, case.value_dim
    per_token = 2 * d + 2 * dv + (case.backward and 4 * d + 4 * dv)
    return case.batch * case.heads * case.seq_len * per_token * case.itemsize


def _results(case: Case) -> int:
    """Elements that a call leaves behind: o, and with a backward dq, dk, dv beside o and do."""
    d, dv = case.head_dim, case.value_dim
    return case.seq_len * (2 * d + 3 * dv if case.backward else dv)


def _costs(case: Case, macs: int, peak_bytes: int) -> Costs:
    rows = case.batch * case.heads
    return Costs(macs=rows * macs, min_bytes=min_bytes(case), peak_bytes=rows * peak_bytes)


def standard_explicit(case: Case) -> Costs:
    """QK' and PV, N^2 (D + Dv) MACs; backward twice that. The masked half is computed as well.

    Peak: scores and probabilities (backward: probabilities and two gradients of their size, on CUDA
    three, where the gradient of the mask or the scale is a copy).
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    products = 3 if case.backward else 1
    matrices = (4 if case.device == "cuda" else 3) if case.backward else 2
    peak = (matrices * n * n + _results(case)) * case.itemsize
    return _costs(case, products * n * n * (d + dv), peak)


def standard_fused(case: Case) -> Costs:
    """The same products on tiles; the backward computes QK' once more.

    A causal fused kernel skips the masked half, so N (N + 1) / 2 scores are counted; torch's
    counter counts N^2. Peak: the results, and a float32 per token.
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    scores = n * (n + 1) // 2 if case.causal else n * n
    products = (d + dv) + (3 * d + 2 * dv if case.backward else 0)
    return _costs(case, scores * products, _results(case) * case.itemsize + 4 * n)


def linear_explicit(case: Case) -> Costs:
    """phi(k)v', phi(q)S and phi(q).z: N (2 D Dv + D) MACs; backward twice that.

    Causal, the N outer products phi(k)v' and the normaliser are elementwise to torch's counter.
    Peak, causal: the N x D x Dv products and their running sum, and in a backward their gradients.
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    wide = max(4, case.itemsize)
    macs = n * (2 * d * dv + d)
    if case.causal:
        peak = wide * n * ((4 if case.backward else 2) * d * dv + 2 * d)
    else:
        peak = wide * (n * (4 * d + 3 * dv if case.backward else 2 * d + dv) + d * dv)
    return _costs(case, macs * (3 if case.backward else 1), peak + _results(case) * case.itemsize)


def linear_chunked(case: Case) -> Costs:
    """Bidirectional: N (2 D Dv + D) MACs, backward N (4 D Dv + D).

    Causal, each chunk of c tokens: c^2 (D + Dv) + 2 c D Dv + c D, backward c^2 (3 D + 2 Dv) + 5 c D Dv + c D.

    Peak: the results, the normaliser, one block of scratch and, in a causal backward, N / C states.
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    chunk = default_chunk_size(d, causal=case.causal)
    if case.causal:
        macs = sum(c * c * (d + dv) + 2 * c * d * dv + c * d for c in iterate_chunks(n, chunk))
        if case.backward:
            macs += sum(c * c * (3 * d + 2 * dv) + 5 * c * d * dv + c * d for c in iterate_chunks(n, chunk))
    else:
        macs = n * (2 * d * dv + d) + (n * (4 * d * dv + d) if case.backward else 0)
    return _costs(case, macs, _chunked_peak_bytes(case, chunk))


def _chunked_peak_bytes(case: Case, chunk: int) -> int:
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    wide = max(4, case.itemsize)
    rows = case.batch * case.heads
    tokens = min(n, max(chunk, BLOCK_ROWS[case.device] // max(1, rows)))
    block = tokens * (4 * d + 3 * dv) + (tokens * chunk if case.causal else 0)
    states = (2 * tokens // chunk + 3) * d * (dv + 1)
    if case.causal and case.backward:
        states += (n // chunk + 2) * d * (dv + 1)
    return wide * (n + block + states) + _results(case) * case.itemsize
