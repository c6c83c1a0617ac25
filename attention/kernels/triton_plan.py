"""How the Triton passes cut a case: tiles of a pass, segments of the sequence. Plain arithmetic, no Triton.

Nothing is tuned on first use: a search would cost seconds at each new length. The rules were measured on an
H200; what they cost elsewhere is speed, not correctness.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import torch

WIDEST = 256
"""Largest D and Dv: beyond it a tile of a chunk no longer fits in shared memory."""
PROGRAMS = 2
"""Programs a multiprocessor: as many as are resident, so that all start at once and none comes late."""
LEAST_TOKENS = 256
"""Of a segment: its state, written and read, shall not cost more than its tokens."""
FOLDED = 32
"""Up to so many segments each program adds up the states before its own; more are scanned first."""
DESCRIBED = 2**18
"""From so many tokens, of all heads, the copy engine moves tiles: to describe them takes the host 20 us."""
MULTIPROCESSORS = 132
"""What is planned for where no card is present: an H200's."""


class Tiles(NamedTuple):
    """A pass on chunks of ``C`` tokens: of one width each program holds all, of the other a block."""

    C: int
    whole: int
    block: int
    blocks: int
    num_warps: int
    num_stages: int


@lru_cache(maxsize=1024)
def tiles(whole: int, split: int, narrow: bool) -> Tiles:
    """Tiles of a pass that holds all of the width ``whole``, and blocks of ``split``.

    ``narrow``: operands of two bytes; float32 ones fill the shared memory twice as fast.
    """
    whole, block = padded(whole), min(padded(split), 64)
    C = 64 if narrow and whole <= 128 else 32 if narrow or whole <= 128 else 16
    small = narrow and whole <= 64
    return Tiles(C, whole, block, -(-split // block), 4 if whole <= 128 else 8, 3 if small else 2)


def padded(width: int) -> int:
    """The power of two that holds it, and at least the 16 of a matrix unit."""
    return max(16, 1 << (width - 1).bit_length())


def segments(tokens: int, heads: int, device: torch.device) -> tuple[int, int]:
    """Tokens of a segment, a multiple of 64, and how many segments."""
    wanted = max(1, PROGRAMS * _multiprocessors(device) // max(1, heads))
    size = max(LEAST_TOKENS, -(-tokens // wanted))
    size = -(-size // 64) * 64
    return size, max(1, -(-tokens // size))


def summed(parts: int, *, causal: bool, final: bool) -> int:
    """How many segments are summed before the walk: the last only where all or the end is asked for."""
    return parts if final or not causal else parts - 1


def scanned(count: int) -> bool:
    """Whether so many sums are scanned, or each program adds up those before its own."""
    return count > FOLDED


def described(tokens: int, dtype: torch.dtype, strides: Iterable[int], device: torch.device) -> bool:
    """Whether tiles are moved by descriptors, on cards that have them: no registers hold addresses then."""
    if tokens < DESCRIBED or not _has_descriptors(device):
        return False
    return all(stride > 0 and stride * dtype.itemsize % 16 == 0 for stride in strides)


@lru_cache(maxsize=64)
def _has_descriptors(device: torch.device) -> bool:
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (9, 0)


@lru_cache(maxsize=64)
def _multiprocessors(device: torch.device) -> int:
    if device.type == "cuda" and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    return MULTIPROCESSORS
