"""The launches of the Triton passes: what each takes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from attention.kernels.linear_triton.launches import Launches, State, Sums
from attention.kernels.triton_common.extents import Tiles
from attention.kernels.triton_common.launch import Launch
from attention.kernels.triton_common.passes import tile_strides


class TritonLaunches(Launches):
    """The passes in Triton, for every width and dtype."""

    def states(self, x: Tensor, y: Tensor, count: int, ends: Tensor | None) -> Sums:
        S, z = self.sums_of_segments(max(count, self.plan.key_segments))
        # What only a backward reads is not read.
        self._states([x, y, y, z, z, S, z], count, ends, gradient=False)
        return S, z

    def gradient_states(
        self, x: Tensor, y: Tensor, out: Tensor, inv: Tensor, minus_delta: Tensor, ends: Tensor | None
    ) -> Sums:
        count = self.plan.gradients_summed()
        S, z = self.sums_of_segments(count)
        self._states([x, y, out, inv, minus_delta, S, z], count, ends, gradient=True)
        return S, z

    def _states(self, tensors: list[Tensor], count: int, ends: Tensor | None, *, gradient: bool) -> None:
        packed = ends is not None

        def new() -> Launch:
            t = self.plan.states_tiles(reverse=gradient)
            walked = self.walked(reverse=not gradient)
            cut = (tensors[5].shape[1], walked[-1], count)
            switches = (gradient, self.group, packed, packed and not self.causal)
            values = (*tile_strides(tensors[:3]), *walked[:4], *cut, *switches)
            widths = (t.block, t.held, t.held)
            # The heads of a group are one sequence, of queries as of keys.
            return self._new("states", count, t, (t.block, t.held), widths, values, walked[1])

        key = ("gradient states" if gradient else "states", count, packed)
        self.launch(key, [*tensors, tensors[-1] if ends is None else ends], new)

    def attend(
        self, a: Tensor, b: Tensor, c: Tensor, out: Tensor, inv: Tensor, state: State, *,
        reverse: bool, keep: bool = False,
    ) -> None:  # fmt: skip
        if state.ends is not None and not self.causal:
            return self._attend_sequences([a, b, c, out, inv], state, reverse, keep)
        switches = (self.causal, reverse, keep, self.group, *state.switches())

        def new() -> Launch:
            t = self.plan.attend_tiles(reverse=reverse)
            walked = self.walked(reverse=reverse)
            values = (*tile_strides([a, b, c, out]), *walked, state.summed, self.eps, *switches)
            widths = (t.held, t.held, t.block, t.block)
            return self._new("attend", self._parts(reverse), t, (t.held, t.block), widths, values, walked[1])

        return self.launch(("attend", *switches), [a, b, c, out, inv, *state.pointers(inv)], new)

    def differentiate(
        self, a: Tensor, b: Tensor, x: Tensor, y: Tensor, out: Tensor, rows: Sums, state: State, *,
        reverse: bool,
    ) -> None:  # fmt: skip
        if state.ends is not None and not self.causal:
            return self._differentiate_sequences([a, b, x, y, out, *rows], state, reverse)
        switches = (self.causal, reverse, self.group, *state.switches())

        def new() -> Launch:
            t = self.plan.differentiate_tiles(reverse=reverse)
            walked = self.walked(reverse=reverse)
            values = (*tile_strides([a, b, x, y, out]), *walked, state.summed, *switches)
            widths = (t.held, t.held, t.block, t.block, t.block)
            return self._new(
                "differentiate", self._parts(reverse), t, (t.block, t.held), widths, values, walked[1]
            )

        tensors = [a, b, x, y, out, *rows, *state.pointers(rows[0])]
        return self.launch(("differentiate", *switches), tensors, new)

    def _attend_sequences(self, tensors: list[Tensor], state: State, reverse: bool, keep: bool) -> None:
        switches = (reverse, keep, self.group)

        def new() -> Launch:
            t = self.plan.attend_tiles(reverse=reverse)
            walked = self.walked(reverse=reverse)
            values = (*tile_strides(tensors[:4]), *walked, state.summed, self.eps, *switches)
            parts, tile = self._parts(reverse), (t.held, t.block)
            return self._new("attend_sequences", parts, t, tile, (), values, walked[1])

        self.launch(("attend_sequences", *switches), [*tensors, *state.of_sequences()], new)

    def _differentiate_sequences(self, tensors: list[Tensor], state: State, reverse: bool) -> None:
        switches = (reverse, self.group)

        def new() -> Launch:
            t = self.plan.differentiate_tiles(reverse=reverse)
            walked = self.walked(reverse=reverse)
            values = (*tile_strides(tensors[:5]), *walked, state.summed, *switches)
            parts, tile = self._parts(reverse), (t.block, t.held)
            return self._new("differentiate_sequences", parts, t, tile, (), values, walked[1])

        self.launch(("differentiate_sequences", *switches), [*tensors, *state.of_sequences()], new)

    def _parts(self, reverse: bool) -> int:
        """Programs of all heads that share keys: each has those of its segments, in reverse one for all."""
        return self.plan.key_segments if reverse else self.group * self.plan.segments

    def _new(
        self, name: str, parts: int, t: Tiles, tile: tuple[int, int], widths: tuple[int, ...],
        values: tuple[Any, ...], tokens: int,
    ) -> Launch:  # fmt: skip
        """A pass over ``parts`` segments of ``tokens`` tokens of each head of keys, in tiles of D and Dv.

        ``widths`` are those of the blocks of its first tensors, ``values`` what only it takes.
        """
        from attention.kernels.linear_triton.triton import passes

        heads = self.plan.all_key_heads
        return self.in_triton(getattr(passes, name), heads * parts, t, tile, widths, values, tokens)
