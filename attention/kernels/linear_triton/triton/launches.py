"""The launches of the Triton passes: what each takes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from attention.kernels.linear_triton.launches import Launches, State, Sums
from attention.kernels.triton_common.launch import Launch
from attention.kernels.triton_common.passes import tile_strides
from attention.kernels.triton_common.plan import Tiles


class TritonLaunches(Launches):
    """The passes in Triton, for every width and dtype."""

    def states(self, x: Tensor, y: Tensor, count: int) -> Sums:
        S, z = self.sums_of_segments()
        # What only a backward reads is not read.
        self._states("states", [x, y, y, z, z, S, z], count, gradient=False)
        return S, z

    def gradient_states(self, x: Tensor, y: Tensor, out: Tensor, inv: Tensor, minus_delta: Tensor) -> Sums:
        S, z = self.sums_of_segments()
        tensors = [x, y, out, inv, minus_delta, S, z]
        self._states("gradient states", tensors, self.plan.segments, gradient=True)
        return S, z

    def _states(self, name: str, tensors: list[Tensor], count: int, *, gradient: bool) -> None:
        def new() -> Launch:
            t = self.plan.states_tiles
            values = (*tile_strides(tensors[:3]), *self.sizes, count, gradient)
            return self._new("states", count, t, (t.block, t.held), (t.block, t.held, t.held), values)

        self.launch((name, count), tensors, new)

    def attend(
        self, a: Tensor, b: Tensor, c: Tensor, out: Tensor, inv: Tensor, state: State, *,
        reverse: bool, keep: bool = False,
    ) -> None:  # fmt: skip
        switches = (self.causal, reverse, keep, *state.switches())

        def new() -> Launch:
            t = self.plan.attend_tiles
            values = (*tile_strides([a, b, c, out]), *self.sizes, self.eps, *switches)
            widths = (t.held, t.held, t.block, t.block)
            return self._new("attend", self.plan.segments, t, (t.held, t.block), widths, values)

        self.launch(("attend", *switches), [a, b, c, out, inv, *state.pointers(inv)], new)

    def differentiate(
        self, a: Tensor, b: Tensor, x: Tensor, y: Tensor, out: Tensor, rows: Sums, state: State, *,
        reverse: bool,
    ) -> None:  # fmt: skip
        switches = (self.causal, reverse, *state.switches())

        def new() -> Launch:
            t = self.plan.differentiate_tiles
            values = (*tile_strides([a, b, x, y, out]), *self.sizes, *switches)
            widths = (t.held, t.held, t.block, t.block, t.block)
            return self._new("differentiate", self.plan.segments, t, (t.block, t.held), widths, values)

        self.launch(("differentiate", *switches), [a, b, x, y, out, *rows, *state.pointers(rows[0])], new)

    def _new(
        self, name: str, parts: int, t: Tiles, tile: tuple[int, int], widths: tuple[int, ...],
        values: tuple[Any, ...],
    ) -> Launch:  # fmt: skip
        """A pass over ``parts`` segments of each head, in tiles of D and Dv.

        ``widths`` are those of the blocks of its first tensors, ``values`` what only it takes.
        """
        from attention.kernels.linear_triton.triton import passes

        return self.in_triton(getattr(passes, name), parts, t, tile, widths, values)
