"""The launches of the Gluon passes: what each takes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from attention.kernels.linear_triton.launches import Launches, State, Sums
from attention.kernels.triton_common.launch import Launch
from attention.kernels.triton_common.plan import GLUON_WIDTH, gluon_tiles


class GluonLaunches(Launches):
    """The passes in Gluon, in which a program holds all of both widths."""

    def states(self, x: Tensor, y: Tensor, count: int) -> Sums:
        S, z = self.sums_of_segments()
        ragged = self.plan.tokens % GLUON_WIDTH != 0

        def new() -> Launch:
            from attention.kernels.linear_triton.gluon.states import states

            return self._new(states, count, 2, (count, self.phi, ragged))

        self.launch(("states", count), [x, y, S, z], new)
        return S, z

    def gradient_states(self, x: Tensor, y: Tensor, out: Tensor, inv: Tensor, minus_delta: Tensor) -> Sums:
        S, z = self.sums_of_segments()

        def new() -> Launch:
            from attention.kernels.linear_triton.gluon.states import states_back

            return self._new(states_back, self.plan.segments, 3, (self.phi,))

        self.launch(("gradient states",), [x, y, out, inv, minus_delta, S, z], new)
        return S, z

    def attend(
        self, a: Tensor, b: Tensor, c: Tensor, out: Tensor, inv: Tensor, state: State, *,
        reverse: bool, keep: bool = False,
    ) -> None:  # fmt: skip
        switches = (self.causal, reverse, keep, *state.switches())

        def new() -> Launch:
            from attention.kernels.linear_triton.gluon.attend import attend

            values = (self.eps, *switches, self.phi, self.plan.key_width != GLUON_WIDTH)
            return self._new(attend, self.plan.segments, 4, values)

        self.launch(("attend", *switches), [a, b, c, out, inv, *state.pointers(inv)], new)

    def differentiate(
        self, a: Tensor, b: Tensor, x: Tensor, y: Tensor, out: Tensor, rows: Sums, state: State, *,
        reverse: bool,
    ) -> None:  # fmt: skip
        switches = (self.causal, reverse, *state.switches())

        def new() -> Launch:
            from attention.kernels.linear_triton.gluon.differentiate import differentiate

            return self._new(differentiate, self.plan.segments, 5, (*switches, self.phi))

        self.launch(("differentiate", *switches), [a, b, x, y, out, *rows, *state.pointers(rows[0])], new)

    def _new(self, kernel: Any, parts: int, moved: int, values: tuple[Any, ...]) -> Launch:
        """A pass over ``parts`` segments of each head, whose first ``moved`` tensors descriptors move."""
        from triton.experimental.gluon import language as gl

        tiles, values = gluon_tiles(), (*self.sizes, *values)
        blocks = [[1, 1, tiles.C, tiles.held]] * moved
        layout = gl.NVMMASharedLayout(128, 16, 4)  # of a tile, as a descriptor wants it
        programs = self.plan.all_heads * parts
        return Launch(kernel, programs, blocks, values, tiles.num_warps, lasting=True, layout=layout)
