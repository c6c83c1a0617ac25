"""The buffers of linear-chunked, reused from block to block."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from attention.kernels.blocks import Block, of_block


class Rows(NamedTuple):
    """A buffer for one block, in the three orders in which it is used.

    H counts heads of keys, G those of queries that share one of them (1 in a buffer of keys or values).
    """

    all: Tensor  # [chunks * B * H, G * C, W]: products over the whole block
    tokens: Tensor  # [B, H * G, chunks, C, W]: as its tokens lie in an input or a result
    chunks: tuple[Tensor, ...]  # of [B * H, G * C, W]: products chunk by chunk


class Scratch:
    """Buffers by name, reused from block to block: fresh memory costs page faults, and each view a call."""

    def __init__(self, keys: Tensor, dtype: torch.dtype) -> None:
        self._keys, self._dtype = keys, dtype
        self._flat: dict[str, Tensor] = {}
        self._rows: dict[tuple[str, int, int, int, int], Rows] = {}

    def __call__(
        self, name: str, block: Block, width: int, group: int = 1, fill: float | None = None
    ) -> Rows:
        """The buffer of this name with W columns; each column holds ``fill`` until it is overwritten."""
        key = (name, block.chunks, block.size, width, group)
        if key not in self._rows:
            self._rows[key] = self._new(name, block, width, group, fill)
        return self._rows[key]

    def _new(self, name: str, block: Block, width: int, group: int, fill: float | None) -> Rows:
        batch, heads = self._keys.shape[:2]
        size = block.chunks * batch * heads * group * block.size * width
        if name not in self._flat or self._flat[name].numel() < size:
            # The old memory is free once neither it nor a view of it is held.
            self._flat.pop(name, None)
            self._rows = {key: rows for key, rows in self._rows.items() if key[0] != name}
            self._flat[name] = self._keys.new_empty(size, dtype=self._dtype)
            if fill is not None:
                self._flat[name].fill_(fill)
        rows = self._flat[name][:size].view(block.chunks, batch, heads * group, block.size, width)
        by_chunk = rows.view(block.chunks, batch * heads, group * block.size, width)
        return Rows(by_chunk.flatten(0, 1), rows.permute(1, 2, 0, 3, 4), by_chunk.unbind())

    def load(self, name: str, x: Tensor, block: Block) -> Rows:
        """The block of x ``[B, H * G, N, W]``."""
        rows = self(name, block, x.shape[-1], self.group(x))
        rows.tokens.copy_(of_block(x, block))
        return rows

    def group(self, x: Tensor) -> int:
        """G of a tensor ``[B, H * G, N, W]``."""
        return x.shape[1] // self._keys.shape[1] if x.shape[1] else 1

    def product(self, name: str, block: Block, a: Tensor, b: Tensor) -> Rows:
        """The product a @ b of a block, in the buffer of this name."""
        rows = self(name, block, b.shape[2], a.shape[1] // block.size)
        torch.bmm(a, b, out=rows.all)
        return rows


def value_columns(value_dim: int, device: str) -> int:
    """Columns of [v | 1]; on CUDA filled up to a multiple of 8, without which its matrix units are slow."""
    return -(-(value_dim + 1) // 8) * 8 if device == "cuda" else value_dim + 1
