"""The passes of calls that are alike, and what goes from one to the next."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from attention.kernels.linear_decay_triton.plan import GROUP, decay_tiles, sums_dtype
from attention.kernels.triton_common.extents import GLUON_WIDTH, Tiles, padded
from attention.kernels.triton_common.launch import Launch
from attention.kernels.triton_common.passes import Passes, tile_strides
from attention.kernels.triton_common.plan import Plan, scanned

GATE_ROWS, SCAN_WIDTH, SMALL_WARPS = 16, 64, 4


class State(NamedTuple):
    """What all segments but one leave, ``S`` [B H, M - 1, Dv, D], and the sums of their gates, ``totals``.

    Scanned, S is what stands before each of the M segments, in a backward behind it.
    """

    S: Tensor | None
    totals: Tensor | None
    scanned: bool

    def pointers(self, unused: Tensor) -> list[Tensor]:
        """The two tensors as a launch takes them, ``unused`` in the place of those that are missing."""
        return [unused if x is None else x for x in self[:2]]

    def switches(self) -> tuple[bool, bool]:
        """SCANNED, SUMS."""
        return self.scanned, self.S is not None


class Pairs(NamedTuple):
    """What the passes of a backward tell of the gradients of gates; all float32 but the states.

    Attributes:
        bounds: states before each group of chunks, [B H, groups, E, blocks * block], padded as its tiles.
        ends, begins: phi(q).dphi(q) and phi(k).dphi(k) of each token, [blocks, B H, N].
        across: products of the pairs that reach into a group, by value column, [B H, groups, E].
    """

    bounds: Tensor
    ends: Tensor
    begins: Tensor
    across: Tensor


class DecayLaunches(Passes):
    """The passes of one plan."""

    def __init__(self, plan: Plan, phi: str, precision: str) -> None:
        super().__init__(plan, phi, precision)
        self.tiles = decay_tiles(plan)
        self.chunks = -(-plan.tokens // self.tiles.C)
        self.groups = -(-self.chunks // GROUP)

    def begin(self, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, State]:
        """Sums of the gates of each chunk up to each token, ``[B H, N]``, as powers of two; the states."""
        plan, at_once = self.plan, self.plan.segments > 1 and self.tiles.states.blocks == 1
        sums = self.empty(plan.all_heads, plan.tokens, dtype=sums_dtype(plan))
        if not at_once:
            self._cumulate(g, sums)
        return sums, self.states(k, v, sums, gates=g if at_once else None, reverse=False)

    def _cumulate(self, g: Tensor, sums: Tensor) -> None:
        plan, every = self.plan, self.plan.all_heads * self.chunks

        def new() -> Launch:
            values = (plan.tokens, self.chunks, every, self.tiles.C, GATE_ROWS)
            return self._small("cumulate", -(-every // GATE_ROWS), values)

        self.launch(("cumulate",), [g, sums], new)

    def states(
        self, x: Tensor, y: Tensor, sums: Tensor, *, reverse: bool, gates: Tensor | None = None
    ) -> State:
        """What all segments but the last leave behind, of x = k and y = v; ``gates`` are to be summed.

        In reverse what all but the first leave to those before, of x = q and y = do.
        """
        plan, count = self.plan, self.plan.segments - 1
        if not count:
            return State(None, None, scanned=False)
        S, totals = self.buffer(count, plan.value_width, plan.key_width), self.buffer(count)
        summing = gates is not None

        def new() -> Launch:
            if plan.gluon:
                return self._states_in_gluon(count, reverse)
            t = self.tiles.states
            values = (*tile_strides([x, y]), *self.sizes, count, reverse, summing)
            parts = plan.segments if summing else count
            return self._walk("states", parts, t, (t.block, t.held), (t.block, t.held), values)

        given = [] if plan.gluon else [sums if gates is None else gates]
        self.launch(("states", reverse), [x, y, *given, sums, S, totals], new)
        if not scanned(count, self.tiles.held):
            return State(S, totals, scanned=False)
        return State(self._scan(S, totals, reverse=reverse), totals, scanned=True)

    def _states_in_gluon(self, count: int, reverse: bool) -> Launch:
        from attention.kernels.linear_decay_triton.gluon.states import states

        plan = self.plan
        values = (*self.sizes[:4], count, plan.segment_tokens, reverse, self.phi)
        return self.in_gluon(states, plan.all_heads * count, 2, values)

    def _scan(self, S: Tensor, totals: Tensor, *, reverse: bool) -> Tensor:
        plan, width = self.plan, S[0, 0].numel()
        blocks = -(-width // SCAN_WIDTH)
        prefix = self.buffer(plan.segments, plan.value_width, plan.key_width)

        def new() -> Launch:
            values = (width, blocks, plan.segments - 1, reverse, SCAN_WIDTH)
            return self._small("scan", plan.all_heads * blocks, values)

        self.launch(("scan", reverse), [S, totals, prefix], new)
        return prefix

    def attend(
        self, a: Tensor, b: Tensor, c: Tensor, out: Tensor, sums: Tensor, state: State,
        pairs: Pairs | None = None,
    ) -> None:  # fmt: skip
        """The output, of a = q, b = k, c = v; with ``pairs`` dv, of a = k, b = q, c = do."""
        reverse, unused = pairs is not None, (sums, sums)
        switches = (reverse, *state.switches())

        def new() -> Launch:
            if self.plan.gluon:
                return self._attend_in_gluon(switches)
            t = self.tiles.attend
            values = (*tile_strides([a, b, c, out]), *self.sizes, *switches, GROUP, *self._padded())
            widths = (t.held, t.held, t.block, t.block)
            return self._walk("attend", self.plan.segments, t, (t.held, t.block), widths, values)

        told = unused if pairs is None else (pairs.bounds, pairs.across)
        self.launch(("attend", *switches), [a, b, c, out, sums, *state.pointers(sums), *told], new)

    def _attend_in_gluon(self, switches: tuple[bool, bool, bool]) -> Launch:
        from attention.kernels.linear_decay_triton.gluon.attend import attend

        plan, group = self.plan, GROUP * self.tiles.C
        values = (*self.sizes, *switches, group, self.phi, plan.key_width != GLUON_WIDTH)
        return self.in_gluon(attend, plan.all_heads * plan.segments, 4, values)

    def differentiate(
        self, a: Tensor, b: Tensor, x: Tensor, y: Tensor, out: Tensor, sums: Tensor, state: State,
        pairs: Pairs, *, reverse: bool,
    ) -> None:  # fmt: skip
        """dq, of a = do, b = v, x = q, y = k; in reverse dk, of a = v, b = do, x = k, y = q."""
        switches = (reverse, *state.switches())

        def new() -> Launch:
            t = self.tiles.differentiate
            values = (*tile_strides([a, b, x, y, out]), *self.sizes, *switches, GROUP)
            widths = (t.held, t.held, t.block, t.block, t.block)
            return self._walk("differentiate", self.plan.segments, t, (t.block, t.held), widths, values)

        lines = pairs.begins if reverse else pairs.ends
        tensors = [a, b, x, y, out, sums, *state.pointers(sums), pairs.bounds, lines]
        self.launch(("differentiate", *switches), tensors, new)

    def pairs(self) -> Pairs:
        """Room for what the passes of a backward tell of the gates."""
        plan, t, rows = self.plan, self.tiles.differentiate, self.tiles.attend
        dtype = torch.bfloat16 if plan.narrow else torch.float32
        bounds = self.empty(plan.all_heads, self.groups, *self._padded(), dtype=dtype)
        ends, begins = (self.empty(t.blocks, plan.all_heads, plan.tokens) for _ in range(2))
        return Pairs(bounds, ends, begins, self.buffer(self.groups, rows.blocks * rows.block))

    def differentiate_gates(self, pairs: Pairs, sums: Tensor, dg: Tensor) -> None:
        """dg, of all pairs."""
        plan, t, rows = self.plan, self.tiles.differentiate, pairs.across.shape[-1]

        def new() -> Launch:
            sizes = plan.all_heads, plan.tokens, self.groups
            values = (*sizes, rows, padded(rows), GROUP * t.C, t.blocks, t.C)
            return self._small("differentiate_gates", plan.all_heads * self.groups, values)

        self.launch(("differentiate gates",), [*pairs[1:], sums, dg], new)

    def _padded(self) -> tuple[int, int]:
        """Rows and columns of a state before a chunk, as the pass over dq holds it."""
        t = self.tiles.differentiate
        return t.held, t.block * t.blocks

    def _walk(self, name: str, parts: int, t: Tiles, tile: Any, widths: Any, values: Any) -> Launch:
        from attention.kernels.linear_decay_triton import passes

        parts *= self.plan.all_heads
        return self.in_triton(getattr(passes, name), parts, t, tile, widths, values, self.plan.tokens)

    def _small(self, name: str, programs: int, values: tuple[Any, ...]) -> Launch:
        from attention.kernels.linear_decay_triton import passes

        return Launch(getattr(passes, name), programs, [], values, SMALL_WARPS, lasting=self.plan.aligned)
