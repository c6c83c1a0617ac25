"""The Triton passes as launches: what each takes, and the state that goes from one to the next.

Triton is imported at the first launch: where it is missing, the kernel says so and the package works.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attention.kernels.triton.launcher import Launch
from attention.kernels.triton.plan import Tiles, described, in_gluon, scanned, segments, tile_strides, tiles

SCAN_ROWS, SCAN_WIDTH, SCAN_WARPS = 16, 64, 4
Pair = tuple[Tensor, Tensor]


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

    def total(self, *, reverse: bool) -> Pair:
        """S and z over the whole sequence."""
        assert self.S is not None and self.z is not None
        if self.scanned:
            slot = 0 if reverse else -1
            return self.S[:, slot], self.z[:, slot]
        S, z = self.S.sum(1), self.z.sum(1)
        return (S, z) if self.S0 is None or self.z0 is None else (S + self.S0, z + self.z0)


class Launches:
    """The passes of calls that are alike: ``like`` is device, dtype and strides of what the caller gave.

    ``aligned``: it begins at multiples of 16 bytes, which Triton's compiler makes use of.
    """

    def __init__(
        self, shape: tuple[int, ...], value_dim: int,
        like: tuple[tuple[torch.device, torch.dtype, tuple[int, ...]], ...], aligned: bool,
        causal: bool, phi: str, precision: str, eps: float,
    ) -> None:  # fmt: skip
        (device, dtype, _), devices = like[0], {device for device, _, _ in like}
        if len(devices) > 1:
            raise ValueError(f"all tensors must be on one device; got {', '.join(sorted(map(str, devices)))}")
        self.passes, wide, narrow = _triton()
        batch, heads, self.N, self.D = shape
        self.heads, self.E = batch * heads, value_dim
        self.causal, self.device, self.eps, self.aligned = causal, device, eps, aligned
        self.narrow = dtype == torch.bfloat16
        self.how = (phi, narrow if self.narrow else wide, precision)
        strides = [stride for _, _, stride in like]
        gluon = in_gluon(shape, value_dim, device, dtype, strides[:3])  # as in segments_like
        self.size, self.segments = segments(self.N, self.heads, device, gluon)
        self.shape = (heads, self.N, self.D, self.E, self.segments, self.size)
        moved = tile_strides(strides, self.N, self.D, self.E)
        self.described = aligned and described(self.heads * self.N, dtype, moved, device)
        self.known: dict[tuple[Any, ...], Launch] = {}

    def launch(self, key: tuple[Any, ...], tensors: list[Tensor], new: Callable[[], Launch]) -> None:
        """The one of this key, ``new`` if there is none: its first word and switches tell it from others."""
        launch = self.known.get(key)
        if launch is None:
            launch = self.known[key] = new()
        launch(tensors)

    def new(
        self, name: str, parts: int, t: Tiles, tile: tuple[int, int], widths: tuple[int, ...],
        values: tuple[Any, ...],
    ) -> Launch:  # fmt: skip
        """A pass over ``parts`` segments of each head, in tiles of D and Dv.

        ``widths`` are those of the blocks of its first tensors, ``values`` what only it takes.
        """
        edges = (self.N % t.C != 0, self.D % tile[0] != 0, self.E % tile[1] != 0)
        constants = (*self.how, t.C, *tile, t.blocks, t.num_stages, self.described, *edges)
        blocks = [[1, 1, t.C, width] for width in widths] if self.described else []
        programs = self.heads * parts * t.blocks
        kernel = getattr(self.passes, name)
        return Launch(kernel, programs, blocks, (*values, *constants), t.num_warps, self.aligned)

    def buffer(self, *shape: int) -> Tensor:
        """Float32, one for each head."""
        return torch.empty(self.heads, *shape, dtype=torch.float32, device=self.device)

    def states(
        self, x: Tensor, y: Tensor, count: int, upstream: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> Pair:
        """S and z of the first ``count`` segments; ``upstream`` is out, inv, delta in a backward."""
        S, z = self.buffer(self.segments, self.D, self.E), self.buffer(self.segments, self.D)
        out, inv, delta = upstream or (y, z, z)

        def new() -> Launch:
            t = tiles(self.E, self.D, self.narrow)
            values = (*_strides(x, y, out), *self.shape, count, upstream is not None)
            return self.new("states", count, t, (t.block, t.whole), (t.block, t.whole, t.whole), values)

        self.launch(("states", count, upstream is None), [x, y, out, inv, delta, S, z], new)
        return S, z

    def before(self, k: Tensor, v: Tensor, initial: tuple[Tensor | None, Tensor | None], count: int) -> State:
        """What stands before each segment, of which ``count`` are summed."""
        if not count:
            return State(None, None, *initial, scanned=False)
        return self.gather(self.states(k, v, count), initial, count, reverse=False)

    def gather(
        self, sums: Pair, initial: tuple[Tensor | None, Tensor | None], count: int, *, reverse: bool
    ) -> State:
        """The sums as the next pass wants them: few as they are, many scanned."""
        if not scanned(count):
            return State(*sums, *initial, scanned=False)
        prefixes = self.buffer(self.segments + 1, self.D, self.E), self.buffer(self.segments + 1, self.D)
        for partial, start, prefix in zip(sums, initial, prefixes, strict=True):
            width, given = prefix[0, 0].numel(), start is not None
            blocks = -(-width // SCAN_WIDTH)
            values = (width, blocks, self.segments, count, given, reverse, SCAN_ROWS, SCAN_WIDTH)
            self.launch(
                ("scan", width, count, given, reverse),
                [partial, prefix, prefix if start is None else start],
                lambda blocks=blocks, values=values: Launch(  # type: ignore[misc]
                    self.passes.scan, self.heads * blocks, [], values, SCAN_WARPS, self.aligned
                ),
            )
        return State(*prefixes, None, None, scanned=True)

    def attend(
        self, a: Tensor, b: Tensor, c: Tensor, out: Tensor, inv: Tensor, state: State, *,
        reverse: bool, keep: bool = False,
    ) -> None:  # fmt: skip
        """The output and, to ``keep`` for a backward, its inverse normalisers; in reverse dv."""
        switches = (self.causal, reverse, keep, *state.switches())

        def new() -> Launch:
            t = tiles(self.D, self.E, self.narrow)
            values = (*_strides(a, b, c, out), *self.shape, self.eps, *switches)
            widths = (t.whole, t.whole, t.block, t.block)
            return self.new("attend", self.segments, t, (t.whole, t.block), widths, values)

        self.launch(("attend", *switches), [a, b, c, out, inv, *state.pointers(inv)], new)

    def differentiate(
        self, a: Tensor, b: Tensor, x: Tensor, y: Tensor, out: Tensor, rows: Pair, state: State, *,
        reverse: bool,
    ) -> None:  # fmt: skip
        """dq, in reverse dk; ``rows`` are inv and delta."""
        switches = (self.causal, reverse, *state.switches())

        def new() -> Launch:
            t = tiles(self.E, self.D, self.narrow)
            if self.described and t.whole <= 128:
                t = t._replace(num_stages=3)  # a program fills a multiprocessor with two as well
            values = (*_strides(a, b, x, y, out), *self.shape, *switches)
            widths = (t.whole, t.whole, t.block, t.block, t.block)
            return self.new("differentiate", self.segments, t, (t.block, t.whole), widths, values)

        self.launch(("differentiate", *switches), [a, b, x, y, out, *rows, *state.pointers(rows[0])], new)


@lru_cache(maxsize=1)
def _triton() -> tuple[ModuleType, Any, Any]:
    """The passes, and Triton's float32 and bfloat16."""
    from triton import language as tl

    from attention.kernels.triton import passes

    return passes, tl.float32, tl.bfloat16


def _strides(*tensors: Tensor) -> list[int]:
    """Of batch, head and token; the last is 1."""
    return [stride for x in tensors for stride in x.stride()[:3]]
