"""The Triton passes as launches: what each takes, and the state that goes from one to the next.

Triton is imported at the first launch: where it is missing, the kernel says so and the package works.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attention.kernels.triton_plan import scanned, segments, tiles

SCAN_ROWS, SCAN_WIDTH, SCAN_WARPS = 16, 64, 4
REMEMBERED = 4096
"""Launches whose compiled kernel is known; at more, all are forgotten."""
_compiled: dict[tuple[Any, ...], Any] = {}


class State(NamedTuple):
    """Sums of the segments, ``S`` [B H, M, D, Dv] and ``z`` [B H, M, D], and what preceded: ``S0``, ``z0``.

    Scanned, the sums are those of all segments before each one (behind it in a backward), M + 1 of them.
    """

    S: Tensor | None
    z: Tensor | None
    S0: Tensor | None
    z0: Tensor | None
    scanned: bool

    def pointers(self, unused: Tensor) -> list[Tensor]:
        """What stands for the four tensors in a launch."""
        return [unused if x is None else x for x in self[:4]]

    def switches(self) -> tuple[bool, bool, bool]:
        """SCANNED, SUMS, INITIAL."""
        return self.scanned, self.S is not None, self.S0 is not None

    def total(self, *, reverse: bool) -> tuple[Tensor, Tensor]:
        """S and z over the whole sequence."""
        assert self.S is not None and self.z is not None
        if self.scanned:
            slot = 0 if reverse else -1
            return self.S[:, slot], self.z[:, slot]
        S, z = self.S.sum(1), self.z.sum(1)
        return (S, z) if self.S0 is None or self.z0 is None else (S + self.S0, z + self.z0)


@lru_cache(maxsize=1)
def _triton() -> tuple[ModuleType, Any, Any]:
    """The passes, and Triton's float32 and bfloat16."""
    from triton import language as tl

    from attention.kernels import triton_passes

    return triton_passes, tl.float32, tl.bfloat16


def launch(kernel: Any, programs: int, tensors: list[Tensor], values: tuple[Any, ...], warps: int) -> None:
    """The kernel in so many programs: tensors, then numbers and constants, in its order.

    Triton looks anew at each of fifty arguments of each launch, which takes it longer than a short sequence
    takes the card. What it compiled is remembered by all it looks at: the values, and that the tensors
    begin at multiples of 16 bytes; their dtypes follow from the first.
    """
    device = tensors[0].device
    elsewhere = device.type == "cuda" and device.index != torch.cuda.current_device()
    with torch.cuda.device(device) if elsewhere else nullcontext():
        key = (kernel.__name__, tensors[0].dtype, device.index, values, warps)
        aligned = all(x.data_ptr() % 16 == 0 for x in tensors)
        if aligned and key in _compiled:
            _compiled[key][programs, 1, 1](*tensors, *values)
            return
        compiled = kernel[(programs,)](*tensors, *values, num_warps=warps)
        if aligned and compiled is not None:  # Triton's interpreter compiles nothing
            if len(_compiled) >= REMEMBERED:
                _compiled.clear()
            _compiled[key] = compiled


class Launches:
    """The passes of one call, and what all of them take."""

    def __init__(self, q: Tensor, v: Tensor, causal: bool, phi: str, precision: str) -> None:
        self.passes, wide, narrow = _triton()
        batch, heads, self.N, self.D = q.shape
        self.heads, self.E = batch * heads, v.shape[-1]
        self.causal, self.device = causal, q.device
        self.narrow = q.dtype == torch.bfloat16
        self.how = (phi, narrow if self.narrow else wide, precision)
        self.size, self.segments = segments(self.N, self.heads, q.device)
        self.shape = (heads, self.N, self.D, self.E, self.segments, self.size)

    def buffer(self, *shape: int) -> Tensor:
        """Float32, one for each head."""
        return torch.empty(self.heads, *shape, dtype=torch.float32, device=self.device)

    def states(
        self, x: Tensor, y: Tensor, count: int, upstream: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """S and z of the first ``count`` segments; ``upstream`` is out, inv, delta in a backward."""
        t = tiles(self.E, self.D, self.narrow)
        S, z = self.buffer(self.segments, self.D, self.E), self.buffer(self.segments, self.D)
        out, inv, delta = upstream or (y, z, z)
        launch(
            self.passes.states, self.heads * count * t.blocks, [x, y, out, inv, delta, S, z],
            (
                *_strides(x, y, out), *self.shape, count,
                upstream is not None, *self.how, t.C, t.block, t.whole, t.blocks, t.num_stages,
                self.N % t.C != 0, self.D % t.block != 0, t.whole != self.E,
            ), t.num_warps,
        )  # fmt: skip
        return S, z

    def before(self, k: Tensor, v: Tensor, initial: tuple[Tensor | None, Tensor | None], count: int) -> State:
        """What stands before each segment, of which ``count`` are summed."""
        if not count:
            return State(None, None, *initial, scanned=False)
        return self.gather(self.states(k, v, count), initial, count, reverse=False)

    def gather(
        self,
        sums: tuple[Tensor, Tensor],
        initial: tuple[Tensor | None, Tensor | None],
        count: int,
        *,
        reverse: bool,
    ) -> State:
        """The sums as the next pass wants them: few as they are, many scanned."""
        if not scanned(count):
            return State(*sums, *initial, scanned=False)
        prefixes = self.buffer(self.segments + 1, self.D, self.E), self.buffer(self.segments + 1, self.D)
        for partial, start, prefix in zip(sums, initial, prefixes, strict=True):
            width = prefix[0, 0].numel()
            blocks = -(-width // SCAN_WIDTH)
            launch(
                self.passes.scan, self.heads * blocks, [partial, prefix, prefix if start is None else start],
                (
                    width, blocks, self.segments, count, start is not None, reverse, SCAN_ROWS, SCAN_WIDTH,
                ), SCAN_WARPS,
            )  # fmt: skip
        return State(*prefixes, None, None, scanned=True)

    def attend(
        self, a: Tensor, b: Tensor, c: Tensor, out: Tensor, inv: Tensor, state: State, *,
        reverse: bool, eps: float = 0.0, keep: bool = False,
    ) -> None:  # fmt: skip
        """The output and, to ``keep`` for a backward, its inverse normalisers; in reverse dv."""
        t = tiles(self.D, self.E, self.narrow)
        launch(
            self.passes.attend, self.heads * self.segments * t.blocks,
            [a, b, c, out, inv, *state.pointers(inv)],
            (
                *_strides(a, b, c, out), *self.shape, eps,
                self.causal, reverse, keep, *state.switches(), *self.how,
                t.C, t.whole, t.block, t.blocks, t.num_stages,
                self.N % t.C != 0, t.whole != self.D, self.E % t.block != 0,
            ), t.num_warps,
        )  # fmt: skip

    def differentiate(
        self, a: Tensor, b: Tensor, x: Tensor, y: Tensor, out: Tensor, rows: tuple[Tensor, Tensor],
        state: State, *, reverse: bool,
    ) -> None:  # fmt: skip
        """dq, in reverse dk; ``rows`` are inv and delta."""
        t = tiles(self.E, self.D, self.narrow)
        launch(
            self.passes.differentiate, self.heads * self.segments * t.blocks,
            [a, b, x, y, out, *rows, *state.pointers(rows[0])],
            (
                *_strides(a, b, x, y, out), *self.shape, self.causal, reverse, *state.switches(), *self.how,
                t.C, t.block, t.whole, t.blocks, t.num_stages,
                self.N % t.C != 0, self.D % t.block != 0, t.whole != self.E,
            ), t.num_warps,
        )  # fmt: skip


def _strides(*tensors: Tensor) -> list[int]:
    """Of batch, head and token; the last is 1."""
    return [stride for x in tensors for stride in x.stride()[:3]]
