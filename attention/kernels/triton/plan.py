"""How the Triton passes cut a case: tiles of a pass, segments of the sequence. Plain arithmetic, no Triton.

Nothing is tuned on first use: a search would cost seconds at each new length. The rules were measured on an
H200; what they cost elsewhere is speed, not correctness.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

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
WHOLE = 128
"""The Gluon passes' width, and tokens of a chunk: what two warpgroups hold without a second block."""
GLUON = ("3.6",)
"""Versions of Triton with which the Gluon passes ran on a card: that language is still being changed.

Those of 3.9 compile, which a test holds, but have run nowhere yet.
"""


class Tiles(NamedTuple):
    """A pass on chunks of ``C`` tokens: of one width each program holds all, of the other a block."""

    C: int
    whole: int
    block: int
    blocks: int
    num_warps: int
    num_stages: int


@lru_cache(maxsize=1024)
def tiles(whole: int, split: int, narrow: bool, gluon: bool = False) -> Tiles:
    """Tiles of a pass that holds all of the width ``whole``, and blocks of ``split``.

    ``narrow``: operands of two bytes; float32 ones fill the shared memory twice as fast. A ``gluon`` pass
    holds all of both.
    """
    if gluon:
        return Tiles(WHOLE, WHOLE, WHOLE, 1, 8, 2)
    whole, block = padded(whole), min(padded(split), 64)
    C = 64 if narrow and whole <= 128 else 32 if narrow or whole <= 128 else 16
    small = narrow and whole <= 64
    return Tiles(C, whole, block, -(-split // block), 4 if whole <= 128 else 8, 3 if small else 2)


def padded(width: int) -> int:
    """The power of two that holds it, and at least the 16 of a matrix unit."""
    return max(16, 1 << (width - 1).bit_length())


def segments(tokens: int, heads: int, device: torch.device, gluon: bool = False) -> tuple[int, int]:
    """Tokens of a segment, a multiple of those of a chunk, and how many segments.

    A Gluon pass fills a multiprocessor's shared memory with one program.
    """
    programs, chunk = (1, WHOLE) if gluon else (PROGRAMS, 64)
    wanted = max(1, programs * _multiprocessors(device) // max(1, heads))
    size = max(LEAST_TOKENS, -(-tokens // wanted))
    size = -(-size // chunk) * chunk
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


def whole(width: int, value_dim: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the Gluon passes are written for such tensors, which they take if ``described``.

    That is 65 to 128: narrower ones fit the registers of Triton's own passes, where they are as fast.
    """
    if dtype != torch.bfloat16 or not (WHOLE // 2 < width <= WHOLE and WHOLE // 2 < value_dim <= WHOLE):
        return False
    return _has_gluon(device)


def in_gluon(
    shape: tuple[int, ...], value_dim: int, device: torch.device, dtype: torch.dtype,
    strides: Iterable[tuple[int, ...]],
) -> bool:  # fmt: skip
    """Whether the Gluon passes take q and k of this shape, in tensors that begin at multiples of 16 bytes."""
    batch, heads, N, D = shape
    if not whole(D, value_dim, dtype, device):
        return False
    return described(batch * heads * N, dtype, tile_strides(strides, N, D, value_dim), device)


def tile_strides(strides: Iterable[tuple[int, ...]], N: int, D: int, E: int) -> list[int]:
    """Of what is moved tile by tile, unlike states, and of what is made here, contiguous."""
    return [*(s for each in strides if len(each) == 4 for s in each[:3]), N * D, N * E, D, E]


def segments_like(q: Tensor, k: Tensor, v: Tensor) -> tuple[int, int]:
    """Those of a call on these; what else it is given counts not, so that a backward finds its forward's."""
    strides = [x.stride() for x in (q, k, v)]
    gluon = in_gluon(q.shape, v.shape[-1], q.device, q.dtype, strides)
    return segments(q.shape[2], q.shape[0] * q.shape[1], q.device, gluon)


@lru_cache(maxsize=64)
def _has_gluon(device: torch.device) -> bool:
    if device.type != "cuda" or os.environ.get("TRITON_INTERPRET") == "1":
        return False
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return False
    return version.startswith(tuple(f"{known}." for known in GLUON)) and _capability(device)[0] == 9


@lru_cache(maxsize=64)
def _has_descriptors(device: torch.device) -> bool:
    return device.type != "cuda" or _capability(device) >= (9, 0)


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device) if torch.cuda.is_available() else (9, 0)


@lru_cache(maxsize=64)
def _multiprocessors(device: torch.device) -> int:
    if device.type == "cuda" and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    return MULTIPROCESSORS
