"""How kernels in plain torch cut a sequence: into chunks, and blocks of chunks."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

BLOCK_ROWS = {"cpu": 2**12, "cuda": 2**18}
"""Rows (tokens times heads) worked on at a time.

CPU: 1 MB a tensor at D = 64 in float32. Larger ones leave the second-level cache, smaller ones cost more
calls than they save. CUDA: about half a GB of scratch at D = 64.
"""


def default_chunk_size(head_dim: int, *, causal: bool) -> int:
    """C: the causal form spends C of D + C on masked products, so it stays near D."""
    return (64 if head_dim <= 64 else 128) if causal else 512


class Block(NamedTuple):
    """Tokens ``start`` to ``stop``: ``chunks`` chunks of ``size`` tokens, the first of index ``first``."""

    start: int
    stop: int
    first: int
    chunks: int
    size: int


def blocks(seq_len: int, chunk_size: int, rows_per_token: int, device: str) -> list[Block]:
    """The sequence in order; a ragged end is a block of one shorter chunk, so nothing is padded."""
    group = max(1, BLOCK_ROWS[device] // (chunk_size * max(1, rows_per_token)))
    complete, rest = divmod(seq_len, chunk_size)
    result = []
    for first in range(0, complete, group):
        chunks = min(group, complete - first)
        start = first * chunk_size
        result.append(Block(start, start + chunks * chunk_size, first, chunks, chunk_size))
    if rest:
        result.append(Block(seq_len - rest, seq_len, complete, 1, rest))
    return result


def of_block(x: Tensor, block: Block) -> Tensor:
    """``[B, H, N, ...]`` as ``[B, H, chunks, C, ...]``, a view."""
    shape = (*x.shape[:2], block.chunks, block.size, *x.shape[3:])
    return x[:, :, block.start : block.stop].view(shape)
