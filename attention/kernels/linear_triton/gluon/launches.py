"""The launches of the Gluon passes: what each takes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from attention.kernels.linear_triton.launches import State, Sums
from attention.kernels.linear_triton.triton.launches import TritonLaunches
from attention.kernels.triton_common.extents import GLUON_WIDTH
from attention.kernels.triton_common.launch import Launch


class GluonLaunches(TritonLaunches):
    """The passes in Gluon, in which a program holds all of both widths.

    Triton's are those that add up the heads of a group.
    """

    def states(self, x: Tensor, y: Tensor, count: int, ends: Tensor | None) -> Sums:
        S, z = self.sums_of_segments(self.plan.key_segments)
        ragged, packed = self.plan.keys % GLUON_WIDTH != 0, ends is not None

        def new() -> Launch:
            from attention.kernels.linear_triton.gluon.states import states

            values = (*self.walked(reverse=True), count, packed, self.phi, ragged)
            return self._in_gluon(states, count, 2, values)

        self.launch(("states", count, packed), [x, y, S, z, z if ends is None else ends], new)
        return S, z

    def gradient_states(
        self, x: Tensor, y: Tensor, out: Tensor, inv: Tensor, minus_delta: Tensor, ends: Tensor | None
    ) -> Sums:
        if not self.plan.in_gluon(reverse=True):
            return super().gradient_states(x, y, out, inv, minus_delta, ends)
        (S, z), packed = self.sums_of_segments(self.plan.segments), ends is not None

        def new() -> Launch:
            from attention.kernels.linear_triton.gluon.states import states_back

            values = (*self.walked(reverse=False), packed, self.phi)
            return self._in_gluon(states_back, self.plan.segments, 3, values)

        tensors = [x, y, out, inv, minus_delta, S, z, z if ends is None else ends]
        self.launch(("gradient states", packed), tensors, new)
        return S, z

    def attend(
        self, a: Tensor, b: Tensor, c: Tensor, out: Tensor, inv: Tensor, state: State, *,
        reverse: bool, keep: bool = False,
    ) -> None:  # fmt: skip
        if not self.plan.in_gluon(reverse=reverse):
            return super().attend(a, b, c, out, inv, state, reverse=reverse, keep=keep)
        switches = (self.causal, reverse, keep, self.group, *state.switches())

        def new() -> Launch:
            from attention.kernels.linear_triton.gluon.attend import attend

            walked = (*self.walked(reverse=reverse), state.summed, self.eps)
            values = (*walked, *switches, self.phi, self.plan.key_width != GLUON_WIDTH)
            return self._in_gluon(attend, self._parts(reverse), 4, values)

        return self.launch(("attend", *switches), [a, b, c, out, inv, *state.pointers(inv)], new)

    def differentiate(
        self, a: Tensor, b: Tensor, x: Tensor, y: Tensor, out: Tensor, rows: Sums, state: State, *,
        reverse: bool,
    ) -> None:  # fmt: skip
        if not self.plan.in_gluon(reverse=reverse):
            return super().differentiate(a, b, x, y, out, rows, state, reverse=reverse)
        switches = (self.causal, reverse, self.group, *state.switches())

        def new() -> Launch:
            from attention.kernels.linear_triton.gluon.differentiate import differentiate

            values = (*self.walked(reverse=reverse), state.summed, *switches, self.phi)
            return self._in_gluon(differentiate, self._parts(reverse), 5, values)

        tensors = [a, b, x, y, out, *rows, *state.pointers(rows[0])]
        return self.launch(("differentiate", *switches), tensors, new)

    def _in_gluon(self, kernel: Any, parts: int, moved: int, values: tuple[Any, ...]) -> Launch:
        """A pass over ``parts`` segments of each head of keys, whose first tensors descriptors move."""
        return self.in_gluon(kernel, self.plan.all_key_heads * parts, moved, values)
