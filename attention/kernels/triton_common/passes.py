"""The passes of calls that are alike, each compiled once.

Triton is imported at the first launch: where it is missing, the kernel says so and the package works.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor

from attention.kernels.tensors import dtype_name
from attention.kernels.triton_common.extents import Tiles, gluon_tiles
from attention.kernels.triton_common.launch import Launch, Repeat
from attention.kernels.triton_common.plan import Plan
from attention.kernels.triton_common.tape import Between, Tape, nothing


class Passes:
    """The passes of one plan, feature map ``phi`` and precision of products."""

    def __init__(self, plan: Plan, phi: str, precision: str) -> None:
        self.plan, self.phi, self.precision = plan, phi, precision
        self.sizes = (
            plan.heads, plan.tokens, plan.key_width, plan.value_width, plan.segments, plan.segment_tokens
        )  # fmt: skip
        self._compiled: dict[tuple[Any, ...], Repeat] = {}
        self._tapes: dict[Hashable, Tape] = {}
        self._tape: Tape | None = None
        self._between: Between = nothing

    def taped(
        self,
        name: Hashable,
        given: Sequence[Tensor],
        walk: Callable[..., Sequence[Tensor]],
        between: Between = nothing,
    ) -> Sequence[Tensor]:
        """What ``walk(passes, *given)`` returns, which launches and makes buffers by them alone.

        What the first call of this name did is done again in later ones, but for what each does ``between``
        two launches.
        """
        tape = self._tapes.get(name)
        if tape is not None:
            return tape.replay(given, between)
        recorder = copy(self)  # another thread may record, too
        recorder._tape = tape = Tape(given)
        recorder._between = between
        results = walk(recorder, *tape.given)
        tape.end(results)
        self._tapes[name] = tape
        return results

    def launch(self, key: tuple[Any, ...], tensors: list[Tensor], new: Callable[[], Launch]) -> None:
        """Launch the pass of this key: its name and its switches. ``new`` makes the first launch."""
        again = self._compiled.get(key)
        if again is None:
            again = self._compiled[key] = new().first(tensors)
        else:
            again(tensors)
        if self._tape is not None:
            self._tape.launch(again, tensors)

    def between(self, x: Tensor) -> Sequence[Tensor]:
        """What this call does with a tensor, in the order of the launches before and behind it."""
        results = self._between(x)
        if self._tape is not None:
            self._tape.between(x, results)
        return results

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A buffer of this shape."""
        x = torch.empty(shape, dtype=dtype, device=self.plan.device)
        return x if self._tape is None else self._tape.buffer(x)

    def buffer(self, *shape: int) -> Tensor:
        """Float32 of this shape for each head."""
        return self.empty(self.plan.all_heads, *shape)

    def in_triton(
        self, kernel: Any, parts: int, t: Tiles, tile: tuple[int, int], widths: tuple[int, ...],
        values: tuple[Any, ...], tokens: int,
    ) -> Launch:  # fmt: skip
        """A pass in Triton over ``parts`` segments of sequences of ``tokens`` tokens, in tiles of D and Dv.

        ``widths`` are those of the blocks of its first tensors, ``values`` what only it takes.
        """
        from triton import language as tl

        plan = self.plan
        operand = getattr(tl, dtype_name(t.operand))
        edges = (tokens % t.C != 0, plan.key_width % tile[0] != 0, plan.value_width % tile[1] != 0)
        constants = (
            self.phi, operand, self.precision, t.C, *tile, t.blocks, t.num_stages, plan.described, *edges
        )  # fmt: skip
        blocks = [[1, 1, t.C, width] for width in widths] if plan.described else []
        programs = parts * t.blocks
        return Launch(kernel, programs, blocks, (*values, *constants), t.num_warps, lasting=plan.aligned)

    def in_gluon(self, kernel: Any, programs: int, moved: int, values: tuple[Any, ...]) -> Launch:
        """A pass in Gluon in so many ``programs``; descriptors move the first ``moved`` tensors."""
        from triton.experimental.gluon import language as gl

        tiles = gluon_tiles()
        blocks = [[1, 1, tiles.C, tiles.held]] * moved
        layout = gl.NVMMASharedLayout(128, 16, 4)  # of a tile, as a descriptor wants it
        return Launch(kernel, programs, blocks, values, tiles.num_warps, lasting=True, layout=layout)


def tile_strides(tensors: list[Tensor]) -> list[int]:
    """Strides of batch, head and token of each; the last is 1."""
    return [stride for x in tensors for stride in x.stride()[:3]]
