"""How a kernel in Triton cuts a call and moves its tiles: of one plan follow launches, costs and FLOPs.

Plain arithmetic, no Triton. Nothing is tuned on first use: a search would cost seconds at each new length.
The rules were measured on an H200; what they cost elsewhere is speed, not correctness.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attention.kernels.triton_common import card
from attention.kernels.triton_common.extents import (
    GLUON_WIDTH,
    Tiles,
    gluon_tiles,
    padded,
    triton_tiles,
)

WIDEST = 256
"""Largest D and Dv: beyond it a tile of a chunk no longer fits in shared memory."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""The dtypes of its tensors."""
PRECISIONS = ("ieee", "tf32x3", "tf32")
"""How products of float32 operands are computed."""
PROGRAMS = {32: 8, 128: 2, 256: 1}
"""Programs a multiprocessor, up to each width: as many as are resident, so that none comes late."""
LEAST_TOKENS = 256
"""Tokens of the shortest segment: its state, written and read, shall not cost more than its tokens."""
FOLDED = 2**17
"""Elements of the states before its own that each program adds up; more are scanned first."""
DESCRIBED = 2**18
"""From so many tokens of all heads on, the copy engine moves tiles: to describe them takes the host 20 us."""
Strides = tuple[int, ...]
Layout = tuple[torch.device, torch.dtype, Strides]
"""Device, dtype and strides of a tensor: all that a plan asks beside its shape."""


@dataclass(frozen=True)
class Plan:
    """How one call is cut and moved.

    Attributes:
        batch, heads, tokens, key_width, value_width: B, Hq, Nq, D and Dv.
        kv_heads, keys: Hkv and Nk.
        device: of all tensors.
        dtype: of q, k and v.
        half: whether a forward of float16 has operands of float16, which its passes must scale.
        aligned: whether all tensors begin at multiples of 16 bytes, which Triton's compiler makes use of.
        described: whether descriptors move the tiles, by the card's copy engine; else pointers do.
        gluon: whether the Gluon passes serve the call; else Triton's do.
        segments: into how many parts the sequence of queries is cut.
        segment_tokens: of each but the last, a multiple of those of a chunk.
        key_segments, key_segment_tokens: the same of keys.
        packed: whether sequences stand one behind another, and sums end where a sequence does.
        causal: whether a walk goes on with its state from chunk to chunk.
    """

    batch: int
    heads: int
    kv_heads: int
    tokens: int
    keys: int
    key_width: int
    value_width: int
    device: torch.device
    dtype: torch.dtype
    half: bool
    aligned: bool
    described: bool
    gluon: bool
    segments: int
    segment_tokens: int
    key_segments: int
    key_segment_tokens: int
    packed: bool
    causal: bool

    @property
    def narrow(self) -> bool:
        """Whether the operands of matrix products are bfloat16; else they are float32."""
        return self.dtype == torch.bfloat16

    def operand(self, *, reverse: bool) -> torch.dtype:
        """The dtype of the operands of matrix products; ``reverse`` in the passes of a backward."""
        if self.half and not reverse:
            return torch.float16
        return torch.bfloat16 if self.narrow else torch.float32

    @property
    def all_heads(self) -> int:
        """B Hq."""
        return self.batch * self.heads

    @property
    def all_key_heads(self) -> int:
        """B Hkv."""
        return self.batch * self.kv_heads

    @property
    def group(self) -> int:
        """Heads of queries that share a head of keys."""
        return self.heads // max(1, self.kv_heads)

    def in_gluon(self, *, reverse: bool) -> bool:
        """Whether a pass is one of Gluon's: in reverse, where heads of a group are summed, Triton's do it."""
        return self.gluon and not (reverse and self.group > 1)

    def states_tiles(self, *, reverse: bool = False) -> Tiles:
        """Tiles of the pass that sums segments; it holds all of Dv."""
        return self._tiles(self.value_width, self.key_width, reverse)

    def attend_tiles(self, *, reverse: bool = False) -> Tiles:
        """Tiles of the pass that makes the output, and dv; it holds all of D."""
        return self._tiles(self.key_width, self.value_width, reverse)

    def differentiate_tiles(self, *, reverse: bool = False) -> Tiles:
        """Tiles of the pass that makes dq and dk; it holds all of Dv."""
        tiles = self._tiles(self.value_width, self.key_width, reverse, back=True)
        if self.described and not self.in_gluon(reverse=reverse) and tiles.held <= 128:
            return tiles._replace(num_stages=3)  # a program fills a multiprocessor with two as well
        return tiles

    def _tiles(self, held: int, split: int, reverse: bool, back: bool = False) -> Tiles:
        if self.in_gluon(reverse=reverse):
            return gluon_tiles()
        operand = self.operand(reverse=reverse or back)
        return triton_tiles(held, split, self.dtype, operand, self.causal)

    def summed(self, *, final: bool) -> int:
        """How many segments are summed before the walk: the last only where all or the end is asked for.

        Of packed sequences that see all of themselves there are two sums of each.
        """
        if self.packed and not self.causal:
            return 2 * self.key_segments
        return self.key_segments if final or not self.causal else max(0, self.key_segments - 1)

    def gradients_summed(self) -> int:
        """How many segments are summed in a backward."""
        return 2 * self.segments if self.packed and not self.causal else self.segments

    def scanned(self, count: int) -> bool:
        """Whether so many sums are scanned, or each program adds up those that it needs.

        Each head of a group would add them up. Of packed sequences it needs those of one sequence. It follows
        from sizes alone, and not from who moves the tiles: a backward reads what its forward wrote.
        """
        held = min(padded(self.key_width) * padded(self.value_width), GLUON_WIDTH**2)
        return not self.packed and scanned(count * self.group, held)

    def slots(self, count: int) -> int:
        """Slots for the sums of ``count`` segments: scanned ones stand before, between and after segments."""
        return self.key_segments + 1 if self.scanned(count) else max(count, self.key_segments)


def make_plan(
    shape: tuple[int, ...],
    of_values: tuple[int, ...],
    layouts: tuple[Layout, ...],
    aligned: bool,
    *,
    gluon: bool = True,
    packed: bool = False,
    causal: bool = True,
    half: bool = False,
) -> Plan:
    """The plan of one call.

    Args:
        shape: ``[B, Hq, Nq, D]`` of q.
        of_values: ``[B, Hkv, Nk, Dv]`` of v.
        layouts: of q, k, v and what else the caller gave (the gradient of the output first, states).
        aligned: whether all of these begin at multiples of 16 bytes.
        gluon: whether the kernel has passes in Gluon.
        packed: whether sequences stand one behind another; where all of one is seen, no pass in Gluon serves.
        causal: whether a query sees only the keys up to its own.
        half: whether the kernel has a forward of float16 for operands of that dtype.

    Raises:
        ValueError: tensors of several devices.
    """
    (device, dtype, _), devices = layouts[0], {device for device, _, _ in layouts}
    if len(devices) > 1:
        raise ValueError(f"all tensors must be on one device; got {', '.join(sorted(map(str, devices)))}")
    (batch, heads, tokens, width), (_, kv_heads, keys, value_width) = shape, of_values
    strides = [stride for _, _, stride in layouts]
    widths = gluon and (causal or not packed) and gluon_serves(width, value_width, dtype, device)
    least = min(tokens, keys)

    def moved(given: list[Strides]) -> bool:
        return _described(
            batch * heads * least, dtype, _tile_strides(given, (tokens, keys), width, value_width), device
        )

    # Segments follow from q, k and v alone, and not from their addresses: so a backward finds those of its
    # forward, and a compiler those of the call to come.
    # A group of heads is one sequence to the pass that sums keys.
    wide = widths and moved(strides[:3])
    # A Gluon pass fills the shared memory of a multiprocessor with one program.
    programs, chunk = (1, GLUON_WIDTH) if wide else (resident(width, value_width, dtype), 64)
    size, count = cut(tokens, batch * kv_heads, device, programs, chunk)
    key_size, key_count = cut(keys, batch * kv_heads, device, programs, chunk)
    described = aligned and moved(strides)
    halves = half and dtype == torch.float16 and (causal or not packed)
    return Plan(
        batch, heads, kv_heads, tokens, keys, width, value_width, device, dtype,
        halves, aligned, described, widths and described, count, size, key_count, key_size, packed, causal,
    )  # fmt: skip


def plan_of(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    others: Sequence[Tensor | None] = (),
    *,
    gluon: bool = True,
    packed: bool = False,
    causal: bool = True,
    half: bool = False,
) -> Plan:
    """The plan of a call on these tensors; those that a compiler makes, without memory, count as aligned."""
    given = [q, k, v, *[x for x in others if x is not None]]
    layouts = tuple([(x.device, x.dtype, x.stride()) for x in given])
    fake = any(x.untyped_storage().device.type == "meta" for x in given)
    return make_plan(
        q.shape,
        v.shape,
        layouts,
        fake or begin_aligned(given),
        gluon=gluon,
        packed=packed,
        causal=causal,
        half=half,
    )


def begin_aligned(tensors: Sequence[Tensor]) -> bool:
    """Whether all begin at multiples of 16 bytes.

    Raises:
        ValueError: a tensor without memory.
    """
    addresses = [x.data_ptr() for x in tensors]
    if 0 in addresses and any(
        x.numel() for x, address in zip(tensors, addresses, strict=True) if not address
    ):
        raise ValueError("a tensor has no memory: its storage was freed or never made")
    return sum([address % 16 for address in addresses]) == 0


def resident(width: int, value_width: int, dtype: torch.dtype) -> int:
    """Programs of Triton's passes a multiprocessor; operands of float32 leave room for two of any width."""
    if dtype != torch.bfloat16:
        return PROGRAMS[128]
    return next(count for widest, count in PROGRAMS.items() if max(width, value_width) <= widest)


def cut(tokens: int, heads: int, device: torch.device, programs: int, chunk: int) -> tuple[int, int]:
    """Tokens of a segment, a multiple of those of a chunk, and how many segments.

    All heads together have so many ``programs`` a multiprocessor.
    """
    wanted = max(1, programs * card.multiprocessors(device) // max(1, heads))
    size = max(LEAST_TOKENS, -(-tokens // wanted))
    size = -(-size // chunk) * chunk
    return size, -(-tokens // size)


def scanned(count: int, held: int) -> bool:
    """Whether so many sums are scanned, or each program adds up those of ``held`` elements that it needs."""
    return count * held > FOLDED


def gluon_serves(width: int, value_width: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the Gluon passes are written for such tensors: bfloat16 of 65 to 128 columns.

    Narrower ones fit the registers of Triton's passes, where they are as fast.
    """
    least = GLUON_WIDTH // 2
    fits = least < width <= GLUON_WIDTH and least < value_width <= GLUON_WIDTH
    return dtype == torch.bfloat16 and fits and card.has_gluon(device)


def _described(tokens: int, dtype: torch.dtype, strides: Iterable[int], device: torch.device) -> bool:
    """Whether descriptors can move tiles, and are worth it: no registers hold addresses then."""
    if tokens < DESCRIBED or not card.has_descriptors(device):
        return False
    return all(stride > 0 and stride * dtype.itemsize % 16 == 0 for stride in strides)


def _tile_strides(given: Iterable[Strides], lengths: Iterable[int], D: int, E: int) -> list[int]:
    """Strides of what is moved tile by tile: of the tensors given and of results.

    Those of sums, [B H, M, D, Dv], are multiples of the results' own.
    """
    of_results = [N * width for N in lengths for width in (D, E)]
    return [*(s for each in given if len(each) == 4 for s in each[:3]), *of_results, D, E]
