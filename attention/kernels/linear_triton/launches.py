"""The passes of calls that are alike, in Triton or in Gluon, and the sums that go from one to the next.

Triton is imported at the first launch: where it is missing, the kernel says so and the package works.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from attention.kernels.triton_common.launch import Launch
from attention.kernels.triton_common.passes import Passes
from attention.kernels.triton_common.plan import Plan

SCANS, SCAN_WARPS = {32: (16, 64), 2**30: (64, 32)}, 4
"""Rows and columns of a tile of the scan, up to so many segments: more of them go in longer steps."""
ENDS_ROWS, ENDS_WARPS = 512, 4
Sums = tuple[Tensor, Tensor]
"""S and z."""
OptionalSums = tuple[Tensor | None, Tensor | None]


class State(NamedTuple):
    """Sums of the segments, ``S`` [B Hkv, M, D, Dv] and ``z`` [B Hkv, M, D], and what preceded.

    ``S0`` and ``z0`` are those of the tokens before, ``ends`` those of packed sequences, and ``summed`` is M.
    Scanned, the sums are those of all segments before each one (behind it in a backward), M + 1 of them.
    """

    S: Tensor | None
    z: Tensor | None
    S0: Tensor | None
    z0: Tensor | None
    ends: Tensor | None
    summed: int
    scanned: bool

    def pointers(self, unused: Tensor) -> list[Tensor]:
        """The five tensors as a launch takes them, ``unused`` in the place of those that are missing."""
        return [unused if x is None else x for x in self[:5]]

    def of_sequences(self) -> list[Tensor]:
        """S, z and ends of packed sequences."""
        assert self.S is not None and self.z is not None and self.ends is not None
        return [self.S, self.z, self.ends]

    def switches(self) -> tuple[bool, bool, bool, bool]:
        """SCANNED, SUMS, INITIAL, PACKED."""
        return self.scanned, self.S is not None, self.S0 is not None, self.ends is not None

    def total(self, *, reverse: bool) -> Sums:
        """S and z over the whole sequence."""
        assert self.S is not None and self.z is not None  # of which the caller made sure
        if self.scanned:
            slot = 0 if reverse else -1
            return self.S[:, slot], self.z[:, slot]
        S, z = self.S.sum(1), self.z.sum(1)
        return (S, z) if self.S0 is None or self.z0 is None else (S + self.S0, z + self.z0)


class Launches(Passes, ABC):
    """The passes of one plan, feature map ``phi``, precision of products and ``eps``, each compiled once.

    A pass walks over segments of queries, in ``reverse`` over those of keys; ``ends`` are of `ends_of`.
    """

    def __init__(self, plan: Plan, phi: str, precision: str, eps: float) -> None:
        super().__init__(plan, phi, precision)
        self.causal, self.eps, self.group = plan.causal, eps, plan.group

    def walked(self, *, reverse: bool) -> tuple[int, ...]:
        """H, N, D, E, segments and their tokens, of queries or in reverse of keys, as a pass takes them."""
        plan = self.plan
        of_queries = plan.tokens, plan.segments, plan.segment_tokens
        of_keys = plan.keys, plan.key_segments, plan.key_segment_tokens
        tokens, *cut = of_keys if reverse else of_queries
        return (plan.kv_heads, tokens, plan.key_width, plan.value_width, *cut)

    @abstractmethod
    def states(self, x: Tensor, y: Tensor, count: int, ends: Tensor | None) -> Sums:
        """S and z of the first ``count`` segments, summed from x = k and y = v."""

    @abstractmethod
    def gradient_states(
        self, x: Tensor, y: Tensor, out: Tensor, inv: Tensor, minus_delta: Tensor, ends: Tensor | None
    ) -> Sums:
        """S and z of all segments in a backward, from x = q and y = do; fills ``minus_delta``, -do.out."""

    @abstractmethod
    def attend(
        self, a: Tensor, b: Tensor, c: Tensor, out: Tensor, inv: Tensor, state: State, *,
        reverse: bool, keep: bool = False,
    ) -> None:  # fmt: skip
        """The output and, to ``keep`` for a backward, its inverse normalisers ``inv``; in reverse dv."""

    @abstractmethod
    def differentiate(
        self, a: Tensor, b: Tensor, x: Tensor, y: Tensor, out: Tensor, rows: Sums, state: State, *,
        reverse: bool,
    ) -> None:  # fmt: skip
        """dq, in reverse dk; ``rows`` are inv and minus_delta."""

    def ends_of(self, cu_seqlens: Tensor | None) -> Tensor | None:
        """Where the sequence of each token begins and ends, ``[2, N]``, or None of sequences not packed."""
        if cu_seqlens is None:
            return None
        tokens, sequences = self.plan.tokens, len(cu_seqlens) - 1
        ends = self.empty(2, tokens, dtype=torch.int32)

        def new() -> Launch:
            from attention.kernels.linear_triton.triton.passes import find_ends

            values = (tokens, sequences, sequences.bit_length() + 1, ENDS_ROWS)
            programs = -(-tokens // ENDS_ROWS)
            return Launch(find_ends, programs, [], values, ENDS_WARPS, lasting=self.plan.aligned)

        given = cu_seqlens.contiguous()
        self.launch(("ends", sequences, given.dtype, given.data_ptr() % 16), [given, ends], new)
        return ends

    def sums_of_segments(self, count: int) -> Sums:
        """Empty buffers for S and z of each of ``count`` segments."""
        D, E = self.plan.key_width, self.plan.value_width
        return self.of_groups(count, D, E), self.of_groups(count, D)

    def of_groups(self, *shape: int) -> Tensor:
        """Float32 of this shape for each head of keys."""
        return self.empty(self.plan.all_key_heads, *shape)

    def before(
        self, k: Tensor, v: Tensor, initial: OptionalSums, count: int, ends: Tensor | None = None
    ) -> State:
        """The state before each segment; ``count`` segments of keys are summed for it."""
        if not count:
            return State(None, None, *initial, ends, self.plan.key_segments, scanned=False)
        return self.gather(self.states(k, v, count, ends), initial, count, ends, reverse=False)

    def gather(
        self, sums: Sums, initial: OptionalSums, count: int, ends: Tensor | None, *, reverse: bool
    ) -> State:
        """The sums as the next pass wants them: few as they are, many scanned."""
        if not self.plan.scanned(count):
            return State(*sums, *initial, ends, sums[0].shape[1], scanned=False)
        segments = self.plan.segments if reverse else self.plan.key_segments
        prefixes = self.sums_of_segments(segments + 1)
        self._scan(sums, initial, prefixes, count, segments, reverse=reverse)
        return State(*prefixes, None, None, ends, segments, scanned=True)

    def total(self, sums: Sums) -> Tensor:
        """The sums over all segments, ``[1, n]``: S of all heads of keys, and then z."""
        D, E, heads = self.plan.key_width, self.plan.value_width, self.plan.all_key_heads
        row, count = self.empty(1, heads * D * (E + 1)), sums[0].shape[1]

        def new() -> Launch:
            from attention.kernels.linear_triton.triton.passes import total

            rows, width, blocks = self._columns(count)
            values = (D * E, D, *blocks, count, heads, rows, width)
            return Launch(total, heads * sum(blocks), [], values, SCAN_WARPS, lasting=self.plan.aligned)

        self.launch(("total", count), [*sums, row], new)
        return row

    def _columns(self, count: int) -> tuple[int, int, tuple[int, int]]:
        """Rows and columns of a tile of ``count`` sums, and the blocks of columns of S and of z."""
        D, E = self.plan.key_width, self.plan.value_width
        rows, width = next(tile for most, tile in SCANS.items() if count <= most)
        return rows, width, (-(-D * E // width), -(-D // width))

    def _scan(
        self, sums: Sums, initial: OptionalSums, prefixes: Sums, count: int, segments: int, *, reverse: bool
    ) -> None:
        S0, z0 = initial
        given = S0 is not None and z0 is not None

        def new() -> Launch:
            from attention.kernels.linear_triton.triton.passes import scan

            D, E = self.plan.key_width, self.plan.value_width
            rows, width, blocks = self._columns(count)
            values = (D * E, D, *blocks, segments, count, given, reverse, rows, width)
            programs = self.plan.all_key_heads * sum(blocks)
            return Launch(scan, programs, [], values, SCAN_WARPS, lasting=self.plan.aligned)

        first = prefixes if S0 is None or z0 is None else (S0, z0)
        self.launch(("scan", count, given, reverse), [*sums, *prefixes, *first], new)
