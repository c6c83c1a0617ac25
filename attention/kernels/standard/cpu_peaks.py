"""Peak memory of ``scaled_dot_product_attention`` on a CPU, as torch 2.13 allocates it, of all heads."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attention.case import Case
from attention.costs import result_elements
from attention.kernels.standard.fused import block_size

KEYS = 512
"""Keys of a tile of torch's flash kernel."""


@dataclass(frozen=True)
class Call:
    """One call of torch's: heads, rows of queries of each, and queries of a block that has a mask, or 0."""

    heads: int
    rows: int
    queries: int = 0


def fused_peak(case: Case) -> int:
    """Bytes of the flash kernel: results, a float32 per query, masks of blocks, and scratch of each thread.

    Forward scratch (aten/src/ATen/native/cpu/FlashAttentionKernel.cpp) is ``rows x (keys + 2 + D)`` numbers
    of float32 a thread, for half dtypes ``rows x keys`` of theirs too. A backward has scores and their
    gradients, in both dtypes, and a copy of the output in another layout. Where oneDNN multiplies bfloat16,
    the products of a backward have its scratch besides, some 0.1 MB a thread, which depends on the CPU and is
    not predicted.
    """
    call, wide, threads = _call(case, shared=True), max(4, case.itemsize), torch.get_num_threads()
    tile = min(256 if call.rows >= 768 else 64 if call.rows >= 192 else 32, call.rows)
    keys, halves = min(KEYS, case.seq_len), case.itemsize if case.itemsize < 4 else 0
    outputs, mask = case.batch * case.heads * case.queries * case.value_dim * case.itemsize, _mask(case, call)
    several = 0 < call.queries < case.queries
    held = mask + (call.heads * call.rows * case.head_dim * case.itemsize if several else 0)
    if case.backward:
        results = case.batch * case.heads * result_elements(case) * case.itemsize
        normalisers = case.batch * case.heads * case.queries * wide
        copied = outputs * (2 if call.queries else 1) if case.queries > 1 else 0
        if several:  # gradients of the keys of a block, as large as those of all
            copied += (
                case.batch * case.key_heads * case.seq_len * (case.head_dim + case.value_dim) * case.itemsize
            )
        return results + normalisers + copied + held + threads * 2 * tile * keys * (wide + halves)
    scratch = threads * tile * ((keys + 2 + case.head_dim) * wide + keys * halves)
    held += call.queries * case.seq_len  # of bool
    within = held + outputs + call.heads * call.rows * wide + scratch
    return max(_masking(case, call), within, held + 2 * outputs if call.queries else 0)


def math_peak(case: Case, matrices: int) -> int:
    """Bytes of plain products (aten/src/ATen/native/transformers/attention.cpp).

    Scaled copies of q and k, float32 copies of all inputs in half dtypes, a mask of float32 where causal,
    and in the safe softmax scores, probabilities and a byte for each. A backward begins with that; later it
    has the results, the copies, and ``matrices``: numbers of the probabilities and their gradients.
    """
    call, wide, keys = _call(case, shared=False), max(4, case.itemsize), case.seq_len
    queries, of_keys = (call.heads * n * case.head_dim for n in (call.rows, keys))
    scores = call.heads * call.rows * keys
    outputs = case.batch * case.heads * case.queries * case.value_dim * case.itemsize
    one_by_one = case.causal and case.queries > 1 and not call.queries
    held = queries * wide + (call.rows * keys * wide if one_by_one else 0)
    held += _mask(case, call) + call.queries * keys
    if case.itemsize < wide:
        held += (queries + of_keys + call.heads * keys * case.value_dim) * wide
    if one_by_one or call.queries:
        held += outputs - call.heads * call.rows * case.value_dim * case.itemsize
    within = held + max(of_keys * wide + scores * wide, scores * (2 * wide + 1))
    if case.backward:
        within = max(within, _math_backward(case, call, matrices))
    gathered = 2 * outputs if one_by_one or call.queries else 0
    return max(_masking(case, call), within, gathered)


def _math_backward(case: Case, call: Call, matrices: int) -> int:
    """Bytes of a backward of plain products: scaled copies of q and k, v in float32, gradients of a block."""
    wide = max(4, case.itemsize)
    of_queries, of_keys = case.batch * case.heads * case.queries, case.batch * case.key_heads * case.seq_len
    copies = (of_queries + of_keys) * case.head_dim * wide
    if case.itemsize < wide:
        copies += of_keys * case.value_dim * wide
    if call.queries:
        copies += of_queries * case.value_dim * case.itemsize
    if 0 < call.queries < case.queries:
        copies += of_keys * case.value_dim * case.itemsize
    results = case.batch * case.heads * result_elements(case) * case.itemsize
    return matrices * wide + results + copies + _mask(case, call)


def _call(case: Case, *, shared: bool) -> Call:
    """The largest call of a case; ``shared``: whether the backend reads shared keys where they are."""
    queries = min(case.queries, case.seq_len) if case.causal else case.queries
    group = case.heads // case.key_heads
    if case.causal and queries not in (1, case.seq_len):
        size = min(block_size(group), queries)
        return Call(case.batch * case.key_heads, group * size, size)
    if queries == 1 or not (shared or case.causal):
        return Call(case.batch * case.key_heads, group * queries)
    return Call(case.batch * (case.heads if shared else case.key_heads), queries)


def _mask(case: Case, call: Call) -> int:
    """Bytes of the mask of a block, a row for each head of a group."""
    return call.queries * case.seq_len * case.itemsize * (case.heads // case.key_heads)


def _masking(case: Case, call: Call) -> int:
    """Bytes while a mask is made: of bool, in the dtype, and repeated for the heads of a group."""
    group = case.heads // case.key_heads
    return call.queries * case.seq_len * (1 + case.itemsize * (1 + group if group > 1 else 1))
