"""The cases of a session of ranks: kernels, lengths and shapes, each at one number of ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from attention import Case
from benchmarks.analysis.reading.fields import InputError
from benchmarks.distributed.subjects import SUBJECTS, plain
from benchmarks.selection import Shape

STRONG, WEAK = "strong", "weak"
"""What stays the same over the ranks: the length of the whole sequence, or that of each rank's part."""


@dataclass(frozen=True)
class RankedCase(Case):
    """A case whose sequence ranks share; ``seq_len`` counts the tokens of all of them.

    Its key is that of a plain case for one rank, and ends with ``-P2`` for two.
    """

    ranks: int = 1
    parallelism: str = STRONG

    @property
    def _suffix(self) -> str:
        return super()._suffix + (f"-P{self.ranks}" if self.ranks > 1 else "")

    @property
    def here(self) -> Case:
        """The plain case of one rank's part."""
        return plain(self, seq_len=self.seq_len // self.ranks)

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "ranks": self.ranks, "parallelism": self.parallelism}


@dataclass(frozen=True)
class Selection:
    """What a session measures, by its options; without kernels all that serve its device."""

    device: str
    dtype: str
    kernels: Sequence[str]
    modes: Sequence[str]
    phases: Sequence[str]
    shapes: Sequence[Shape]
    seq_lens: Sequence[int]
    parallelism: Sequence[str]


def build_cases(selection: Selection, ranks: int) -> list[RankedCase]:
    """All cases at so many ranks, lengths ascending within a series.

    Strong cases have the lengths given; weak ones have them on each rank. A length that is both is one case.

    Raises:
        InputError: A length that the ranks cannot share alike, two blocks a rank as a balanced one takes.
    """
    found: dict[str, RankedCase] = {}
    for case in _cases(selection, ranks):
        if case.seq_len % (2 * ranks):
            raise InputError(
                f"--seq-len {case.seq_len} does not divide into two blocks for each of {ranks} ranks; "
                f"give multiples of {2 * ranks}"
            )
        found.setdefault(case.key, case)
    return list(found.values())


def _cases(selection: Selection, ranks: int) -> Iterator[RankedCase]:
    kernels = selection.kernels or [name for name in SUBJECTS if _serves(name, selection, ranks)]
    chosen = product(kernels, selection.modes, selection.phases, selection.shapes, selection.parallelism)
    for kernel, mode, phase, (batch, heads, head_dim, kv_heads), parallelism in chosen:
        for length in sorted(set(selection.seq_lens)):
            yield RankedCase(
                kernel, mode, length * (ranks if parallelism == WEAK else 1), phase, selection.device,
                selection.dtype, batch, heads, head_dim, kv_heads=kv_heads, ranks=ranks,
                parallelism=parallelism,
            )  # fmt: skip


def _serves(name: str, selection: Selection, ranks: int) -> bool:
    plainest = Case(name, selection.modes[0], 2 * ranks, device=selection.device, dtype=selection.dtype)
    return SUBJECTS[name].supports(plainest) is None
