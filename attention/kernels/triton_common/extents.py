"""How long and wide the tiles of a pass are, by the widths of its heads and the dtype of its operands.

Measured on an H100; elsewhere the rules cost speed, not correctness.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch

GLUON_WIDTH = 128
"""Width of a Gluon tile, and tokens of a chunk: what two warpgroups hold without a second block."""


class Tiles(NamedTuple):
    """Tiles of a pass on chunks of ``C`` tokens: a program holds all of one width, a block of the other.

    ``operand``: dtype of the operands of matrix products.
    """

    C: int
    held: int
    block: int
    blocks: int
    num_warps: int
    num_stages: int
    operand: torch.dtype


def gluon_tiles() -> Tiles:
    """Tiles of a Gluon pass, which holds all of both widths."""
    return Tiles(GLUON_WIDTH, GLUON_WIDTH, GLUON_WIDTH, 1, 8, 2, torch.bfloat16)


def triton_tiles(held: int, split: int, dtype: torch.dtype, operand: torch.dtype, causal: bool) -> Tiles:
    """Tiles of a Triton pass that holds all of the width ``held``, and blocks of the width ``split``."""
    # A width may be a symbol of torch's compiler: tiles are of one width.
    return _triton_tiles(int(held), int(split), dtype, operand, causal)


@lru_cache(maxsize=1024)
def _triton_tiles(held: int, split: int, dtype: torch.dtype, operand: torch.dtype, causal: bool) -> Tiles:
    held, block = padded(held), min(padded(split), 64)
    blocks, small = -(-split // block), held <= 64
    if operand != torch.float32:
        if max(held, block) <= 32:  # one warp holds a state, and waits for no other
            return Tiles(32, held, block, blocks, 1, 3, operand)
        return Tiles(64, held, block, blocks, 4, 3 if small else 2, operand)
    # Operands of float32 fill the shared memory twice as fast. A walk of three products for one, in tf32x3,
    # has registers for 32 tokens.
    if small:
        return Tiles(32 if causal and dtype == torch.float32 else 64, held, block, blocks, 4, 3, operand)
    if held <= 128:
        return Tiles(32, held, block, blocks, 4, 2, operand)
    return Tiles(16, held, block, blocks, 8, 2, operand)


def padded(width: int) -> int:
    """The power of two that holds a width, and at least the 16 of a matrix unit."""
    return max(16, 1 << (width - 1).bit_length())
