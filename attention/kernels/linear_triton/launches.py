"""The passes of calls that are alike, in Triton or in Gluon, and the sums that go from one to the next.

Triton is imported at the first launch: where it is missing, the kernel says so and the package works.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from attention.kernels.triton_common.launch import Launch
from attention.kernels.triton_common.passes import Passes
from attention.kernels.triton_common.plan import Plan, scanned

SCAN_ROWS, SCAN_WIDTH, SCAN_WARPS = 16, 64, 4
Sums = tuple[Tensor, Tensor]
"""S and z."""
OptionalSums = tuple[Tensor | None, Tensor | None]


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
        """The four tensors as a launch takes them, ``unused`` in the place of those that are missing."""
        return [unused if x is None else x for x in self[:4]]

    def switches(self) -> tuple[bool, bool, bool]:
        """SCANNED, SUMS, INITIAL."""
        return self.scanned, self.S is not None, self.S0 is not None

    def total(self, *, reverse: bool) -> Sums:
        """S and z over the whole sequence."""
        assert self.S is not None and self.z is not None
        if self.scanned:
            slot = 0 if reverse else -1
            return self.S[:, slot], self.z[:, slot]
        S, z = self.S.sum(1), self.z.sum(1)
        return (S, z) if self.S0 is None or self.z0 is None else (S + self.S0, z + self.z0)


class Launches(Passes, ABC):
    """The passes of one plan, feature map ``phi``, precision of products and ``eps``, each compiled once."""

    def __init__(self, plan: Plan, causal: bool, phi: str, precision: str, eps: float) -> None:
        super().__init__(plan, phi, precision)
        self.causal, self.eps = causal, eps

    @abstractmethod
    def states(self, x: Tensor, y: Tensor, count: int) -> Sums:
        """S and z of the first ``count`` segments, summed from x = k and y = v."""

    @abstractmethod
    def gradient_states(self, x: Tensor, y: Tensor, out: Tensor, inv: Tensor, minus_delta: Tensor) -> Sums:
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

    def sums_of_segments(self) -> Sums:
        """Empty buffers for S and z of each segment."""
        segments, D, E = self.plan.segments, self.plan.key_width, self.plan.value_width
        return self.buffer(segments, D, E), self.buffer(segments, D)

    def before(self, k: Tensor, v: Tensor, initial: OptionalSums, count: int) -> State:
        """The state before each segment; ``count`` segments are summed for it."""
        if not count:
            return State(None, None, *initial, scanned=False)
        return self.gather(self.states(k, v, count), initial, count, reverse=False)

    def gather(self, sums: Sums, initial: OptionalSums, count: int, *, reverse: bool) -> State:
        """The sums as the next pass wants them: few as they are, many scanned."""
        if not scanned(count):
            return State(*sums, *initial, scanned=False)
        slots, D, E = self.plan.slots(count), self.plan.key_width, self.plan.value_width
        prefixes = self.buffer(slots, D, E), self.buffer(slots, D)
        for partial, start, prefix in zip(sums, initial, prefixes, strict=True):
            self._scan(partial, start, prefix, count, reverse=reverse)
        return State(*prefixes, None, None, scanned=True)

    def _scan(
        self, partial: Tensor, start: Tensor | None, prefix: Tensor, count: int, *, reverse: bool
    ) -> None:
        width, given = prefix[0, 0].numel(), start is not None
        blocks = -(-width // SCAN_WIDTH)

        def new() -> Launch:
            from attention.kernels.linear_triton.triton.passes import scan

            values = (width, blocks, self.plan.segments, count, given, reverse, SCAN_ROWS, SCAN_WIDTH)
            programs = self.plan.all_heads * blocks
            return Launch(scan, programs, [], values, SCAN_WARPS, lasting=self.plan.aligned)

        tensors = [partial, prefix, prefix if start is None else start]
        self.launch(("scan", width, count, given, reverse), tensors, new)
