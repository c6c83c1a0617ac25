"""Closed forms: FLOPs by term, least bytes moved and peak bytes of each kernel.

N, D, Dv are the lengths of the sequence, of a key and of a value; everything is multiplied by
B x H. A term is the MACs of one matrix product as the kernel executes it, forward and backward
together. Where torch's ``FlopCounterMode`` sees more or less than that, the difference is a named
entry of ``uncounted`` (less) or ``overcounted`` (more).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from attention.kernels.chunked import Block, blocks, default_chunk_size, value_columns
from attention.kernels.native import plan
from attention.kernels.registry import Costs
from attention.kernels.triton.plan import DESCRIBED, scanned, segments, summed, tiles, whole

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


def _costs(
    case: Case,
    terms: Mapping[str, int],
    peak_bytes: int,
    *,
    uncounted: Mapping[str, int] | None = None,
    overcounted: Mapping[str, int] | None = None,
    masked: int = 0,
) -> Costs:
    rows = case.batch * case.heads

    def times_rows(macs: Mapping[str, int] | None) -> dict[str, int]:
        return {name: rows * count for name, count in (macs or {}).items()}

    return Costs(
        terms=times_rows(terms),
        min_bytes=min_bytes(case),
        peak_bytes=rows * peak_bytes,
        uncounted=times_rows(uncounted),
        overcounted=times_rows(overcounted),
        masked_macs=rows * masked,
    )


def standard_explicit(case: Case) -> Costs:
    """QK' and PV, N^2 (D + Dv) MACs; backward twice that. The masked half is computed as well.

    Peak: scores and probabilities (backward: probabilities and two gradients of their size, on CUDA
    three, where the gradient of the mask or the scale is a copy).
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    products = 3 if case.backward else 1
    matrices = (4 if case.device == "cuda" else 3) if case.backward else 2
    peak = (matrices * n * n + _results(case)) * case.itemsize
    terms = {"scores": products * n * n * d, "weighted_values": products * n * n * dv}
    masked = products * _masked(n) * (d + dv) if case.causal else 0
    return _costs(case, terms, peak, masked=masked)


def _masked(n: int) -> int:
    """Scores of an n x n block above its diagonal."""
    return n * (n - 1) // 2


def standard_fused(case: Case) -> Costs:
    """The same products on tiles; the backward computes QK' once more.

    A causal fused kernel skips the masked half, so N (N + 1) / 2 scores are counted; torch's
    counter counts N^2. Peak: the results, and a float32 per token.
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    scores = n * (n + 1) // 2 if case.causal else n * n
    per_score = {"scores": d, "weighted_values": dv}
    if case.backward:
        per_score = {"scores": 4 * d, "weighted_values": 3 * dv}
    terms = {name: scores * width for name, width in per_score.items()}
    skipped = {"masked_half": (n * n - scores) * sum(per_score.values())}
    return _costs(case, terms, _results(case) * case.itemsize + 4 * n, overcounted=skipped)


def standard_sdpa(case: Case) -> Costs:
    """What torch picks: a fused form, or the explicit one where no fused one serves.

    That is on a CPU where values have their own width, and on CUDA in float64.
    """
    if case.device == "cpu":
        explicit = case.value_dim != case.head_dim
    else:
        explicit = case.dtype == "float64"
    return standard_explicit(case) if explicit else standard_fused(case)


def linear_explicit(case: Case) -> Costs:
    """phi(k)v', phi(q)S and phi(q).z: N (2 D Dv + D) MACs; backward twice that.

    Causal, the N outer products phi(k)v' and the normaliser are elementwise to torch's counter.
    Peak, causal: the N x D x Dv products and their running sum, and in a backward their gradients.
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    wide = max(4, case.itemsize)
    passes = 3 if case.backward else 1
    terms = {
        "states": passes * n * d * dv,
        "readout": passes * n * d * dv,
        "normaliser": passes * n * d,
    }
    elementwise = {name: terms[name] for name in ("states", "normaliser") if case.causal}
    if case.causal:
        peak = wide * n * ((4 if case.backward else 2) * d * dv + 2 * d)
    else:
        peak = wide * (n * (4 * d + 3 * dv if case.backward else 2 * d + dv) + d * dv)
    if case.itemsize < wide:
        peak += (3 if case.backward else 1) * wide * n * (d + dv)  # inputs of a narrow dtype, made wide
    return _costs(case, terms, peak + _results(case) * case.itemsize, uncounted=elementwise)


def linear_chunked(case: Case) -> Costs:
    """The normaliser is a column of the values, on CUDA 1 to 8 of them: W columns in all.

    Bidirectional: 2 N D W MACs, backward N D (3 W + Dv). Causal, each chunk of c tokens: c^2 (D + W) +
    2 c D W, of which the masked half is computed as well; backward c^2 (3 D + W + Dv) + c D (3 W + Dv).

    Peak: the results, the normaliser, one block of scratch and, in a causal backward, N / C states.
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    chunk = default_chunk_size(d, causal=case.causal)
    terms = chunked_forward_terms(n, d, dv, case.causal, chunk, case.device)
    columns = value_columns(dv, case.device)
    per_score = d + columns
    if case.backward:
        for name, macs in chunked_backward_terms(n, d, dv, case.causal, chunk, case.device).items():
            terms[name] += macs
        per_score += 3 * d + columns + dv
    masked = per_score * _masked_chunks(n, chunk) if case.causal else 0
    return _costs(case, terms, _chunked_peak_bytes(case, chunk), masked=masked)


def _chunk_scores(n: int, chunk: int) -> int:
    whole, rest = divmod(n, chunk)
    return whole * chunk * chunk + rest * rest


def chunked_forward_terms(n: int, d: int, dv: int, causal: bool, chunk: int, device: str) -> dict[str, int]:
    """MACs of one head: S += k'v, qS, and where causal QK' and AV within chunks.

    What the columns of the normaliser add to the products of the values is a term of its own.
    """
    beside = value_columns(dv, device) - dv
    terms = {"states": n * d * dv, "readout": n * d * dv, "normaliser": 2 * n * d * beside}
    if causal:
        scores = _chunk_scores(n, chunk)
        terms |= {"scores": scores * d, "weighted_values": scores * dv}
        terms["normaliser"] += scores * beside
    return terms


def chunked_backward_terms(n: int, d: int, dv: int, causal: bool, chunk: int, device: str) -> dict[str, int]:
    """MACs of one head: U += q'g, gS', vU' and kU; where causal QK' once more, g V', dA K, dA'Q and A'g.

    All but kU and A'g have the columns of the normaliser too.
    """
    beside = value_columns(dv, device) - dv
    terms = {"states": n * d * dv, "readout": 3 * n * d * dv, "normaliser": 3 * n * d * beside}
    if causal:
        scores = _chunk_scores(n, chunk)
        terms |= {"scores": 3 * scores * d, "weighted_values": 2 * scores * dv}
        terms["normaliser"] += scores * beside
    return terms


def _chunked_peak_bytes(case: Case, chunk: int) -> int:
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    columns = value_columns(dv, case.device)
    wide = max(4, case.itemsize)
    factor = case.itemsize if case.device == "cuda" and case.dtype == "bfloat16" else wide
    largest = max(blocks(n, chunk, case.batch * case.heads, case.device), key=_tokens, default=None)
    tokens, chunks = (_tokens(largest), largest.chunks) if largest else (0, 0)
    # q, k, v, the map or num; in a backward also g, the map or o, where causal dq and dv.
    scratch = 2 * d + columns + max(d, columns) + (columns if case.backward else 0)
    if case.causal:
        scratch += min(n, chunk) + (d + dv if case.backward else 0)
        states = 2 + (3 * chunks if case.device == "cuda" else 0)
        states += -(-n // chunk) if case.backward else 0
    else:
        states = 2 + chunks
    results = n * (2 * d + 2 * dv if case.backward else dv)
    held = n + states * d * columns
    return wide * held + factor * tokens * scratch + case.itemsize * results


def _tokens(block: Block) -> int:
    return block.stop - block.start


def linear_native(case: Case) -> Costs:
    """Of each chunk's scores the half that is not masked. The normaliser is counted as the products it is.

    Bidirectional: N (2 D Dv + 2 D) MACs, backward N (3 D (Dv + 1) + D Dv). Causal, with M = N (C + 1) / 2
    scores: M (D + Dv) + N (2 D Dv + D), backward M (3 (D + Dv) + 2) + N (4 D (Dv + 1) + 2 D Dv), and
    D (Dv + 1) for each token whose segment is summed beforehand.

    Peak: the results, a float32 a token, the sums of the segments, and what each thread works in.
    """
    n, d, dv, rows = case.seq_len, case.head_dim, case.value_dim, case.batch * case.heads
    threads, wide = torch.get_num_threads(), max(4, case.itemsize)
    terms = native_forward_terms(n, d, dv, rows, case.causal, threads)
    if case.backward:
        for name, macs in native_backward_terms(n, d, dv, rows, case.causal, threads).items():
            terms[name] += macs
    parts = plan.segments(n, rows, threads)
    states = parts * plan.state_size(d, dv, wide) if plan.summed(parts, case.causal) else 0
    held = n + states * (2 if case.backward else 1)
    costs = _costs(case, terms, wide * held + case.itemsize * _results(case))
    return replace(costs, peak_bytes=costs.peak_bytes + wide * threads * plan.scratch_size(d, dv, wide))


def native_forward_terms(n: int, d: int, dv: int, rows: int, causal: bool, threads: int) -> dict[str, int]:
    """MACs of one head of ``rows``: V'k of each segment, and where causal k'v once more, QK' and AV; qS."""
    parts = plan.segments(n, rows, threads)
    before = (parts - 1) * plan.segment_tokens(n, parts) if causal else n
    terms = {"states": before * d * dv, "readout": n * d * dv, "normaliser": (before + n) * d}
    if causal:
        scores = _chunk_halves(n)
        terms["states"] += n * d * dv
        terms |= {"scores": scores * d, "weighted_values": scores * dv}
    return terms


def native_backward_terms(n: int, d: int, dv: int, rows: int, causal: bool, threads: int) -> dict[str, int]:
    """MACs of one head: G'q, then G S', V U' and k U; where causal V'k, G'q and q'g, and scores thrice."""
    first = plan.segment_tokens(n, plan.segments(n, rows, threads))
    before = max(0, n - first) if causal else n
    terms = {"states": before * d * dv, "readout": 3 * n * d * dv, "normaliser": (before + 2 * n) * d}
    if causal:
        scores = _chunk_halves(n)
        terms["states"] += 3 * n * d * dv
        terms["normaliser"] += 2 * n * d + 2 * scores
        terms |= {"scores": scores * (2 * dv + d), "weighted_values": scores * (2 * d + dv)}
    return terms


def _chunk_halves(n: int) -> int:
    """Scores on and below the diagonal of the chunks of all segments, whose length is a multiple of C."""
    whole, rest = divmod(n, plan.CHUNK)
    return whole * plan.CHUNK * (plan.CHUNK + 1) // 2 + rest * (rest + 1) // 2


def linear_triton(case: Case) -> Costs:
    """Twice over the states, once to sum a segment and once to walk it: N (3 D Dv + D + C (D + Dv)) MACs.

    Bidirectional N (2 D Dv + D), without the second walk. Where one width is cut into blocks, each computes
    the scores anew; Gluon passes cut none. The normaliser is counted as the D products a token that it is.

    Peak: the results, one or two float32 a token, and the states of the segments.
    """
    n, d, dv, rows = case.seq_len, case.head_dim, case.value_dim, case.batch * case.heads
    device, narrow = torch.device(case.device), case.dtype == "bfloat16"
    gluon = _triton_in_gluon(case)
    terms = triton_forward_terms(n, d, dv, rows, case.causal, narrow, device, gluon=gluon)
    walk, walk_back = tiles(d, dv, narrow, gluon), tiles(dv, d, narrow, gluon)
    masked = _masked_chunks(n, walk.C) * (walk.blocks * d + dv)
    if case.backward:
        for name, macs in triton_backward_terms(n, d, dv, case.causal, narrow, gluon).items():
            terms[name] += macs
        masked *= 2
        masked += 2 * _masked_chunks(n, walk_back.C) * (walk_back.blocks * dv + d)
    _, parts = segments(n, rows, device, gluon)
    sums = 2 * parts + 1 if scanned(parts) else parts
    kept = sums if summed(parts, causal=case.causal, final=False) else 0
    tokens, states = (2 * n, kept + sums) if case.backward else (0, kept)
    peak = 4 * (tokens + states * d * (dv + 1)) + _results(case) * case.itemsize
    return _costs(case, terms, peak, masked=masked if case.causal else 0)


def _triton_in_gluon(case: Case) -> bool:
    """Whether the Gluon passes serve, by the plan for tensors without gaps."""
    if case.batch * case.heads * case.seq_len < DESCRIBED or case.head_dim % 8 or case.value_dim % 8:
        return False
    return whole(case.head_dim, case.value_dim, case.torch_dtype, torch.device(case.device))


def _masked_chunks(n: int, chunk: int) -> int:
    whole, rest = divmod(n, chunk)
    return whole * _masked(chunk) + _masked(rest)


def triton_forward_terms(
    n: int, d: int, dv: int, rows: int, causal: bool, narrow: bool, device: torch.device,
    final: bool = False, gluon: bool = False,
) -> dict[str, int]:  # fmt: skip
    """MACs of one head of ``rows``: S of each segment, and where causal S once more, QK' and AV."""
    size, parts = segments(n, rows, device, gluon)
    before = n if final or not causal else (parts - 1) * size
    terms = {"states": before * d * dv, "readout": n * d * dv, "normaliser": n * d}
    if causal:
        walk = tiles(d, dv, narrow, gluon)
        scores = _chunk_scores(n, walk.C)
        terms["states"] += n * d * dv
        terms |= {"scores": walk.blocks * scores * d, "weighted_values": scores * dv}
    return terms


def triton_backward_terms(
    n: int, d: int, dv: int, causal: bool, narrow: bool, gluon: bool = False
) -> dict[str, int]:
    """MACs of one head: U += q'do, then do S', v U', k U; where causal S once, U twice more, and scores."""
    terms = {"states": n * d * dv, "readout": 3 * n * d * dv, "normaliser": 0}
    if causal:
        walk, walk_back = tiles(d, dv, narrow, gluon), tiles(dv, d, narrow, gluon)
        keys, values = _chunk_scores(n, walk.C), _chunk_scores(n, walk_back.C)
        terms["states"] += 3 * n * d * dv
        terms["scores"] = walk.blocks * keys * d + 2 * walk_back.blocks * values * dv
        terms["weighted_values"] = keys * dv + 2 * values * d
    return terms
