"""Whose states a rank needs: of the tokens before its own, and where bidirectional of those behind as well.

All of it follows from the ends of the sequences and the tokens of each rank, which every rank knows: ranks
exchange states, and nothing about them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple


@dataclass(frozen=True)
class Routes:
    """What one rank reads of all ranks' states, and who reads its own.

    Ranks gather one row a state that they send, in the order of ranks; in a backward one row a state that
    they read.

    Attributes:
        sources: Of each state that this rank reads, the rows that it is the sum of.
        readers: Of each state that it sends, the rows of a backward that its gradient is the sum of.
    """

    sources: tuple[tuple[int, ...], ...]
    readers: tuple[tuple[int, ...], ...]


class Piece(NamedTuple):
    """The tokens of one sequence on one rank, counted from the rank's first."""

    sequence: int
    start: int
    stop: int
    begun: bool
    goes_on: bool

    @property
    def crosses(self) -> bool:
        """Whether other ranks hold tokens of the sequence."""
        return self.begun or self.goes_on


def of_prefixes(rank: int, ranks: int) -> Routes:
    """Routes of one causal sequence that all ranks share: a rank reads the states of the ranks before."""
    return Routes((tuple(range(rank)),), (tuple(range(rank + 1, ranks)),))


@lru_cache(maxsize=1024)
def cut(ends: tuple[int, ...], parts: tuple[int, ...]) -> tuple[tuple[Piece, ...], ...]:
    """The pieces of packed sequences on each rank; empty sequences have none.

    Args:
        ends: Where sequences begin, and the last ends, ascending from 0.
        parts: The tokens of each rank.
    """
    bounds = pairwise(accumulate(parts, initial=0))
    return tuple(tuple(_pieces(ends, first, last)) for first, last in bounds)


def _pieces(ends: tuple[int, ...], first: int, last: int) -> Iterator[Piece]:
    sequence, start = bisect_right(ends, first) - 1, first
    while start < last:
        stop = min(ends[sequence + 1], last)
        if stop > start:
            begun, goes_on = ends[sequence] < first, ends[sequence + 1] > last
            yield Piece(sequence, start - first, stop - first, begun, goes_on)
        sequence, start = sequence + 1, stop


def sent(pieces: Sequence[Piece], *, causal: bool) -> list[Piece | None]:
    """The pieces whose states a rank sends: causal of one that goes on, else of two that others share."""
    last = next((piece for piece in pieces if piece.goes_on), None)
    if causal:
        return [last]
    first = next((piece for piece in pieces if piece.begun), None)
    return [first, None if last is first else last]


def read(pieces: Sequence[Piece], *, causal: bool) -> list[Piece | None]:
    """The pieces before which a rank reads a state: causal one that began before, else those it sends."""
    if not causal:
        return sent(pieces, causal=False)
    return [next((piece for piece in pieces if piece.begun), None)]


@lru_cache(maxsize=1024)
def of_packed(ends: tuple[int, ...], parts: tuple[int, ...], rank: int, *, causal: bool) -> Routes:
    """Routes of packed sequences: a rank reads states of the other ranks that hold the same sequence.

    Causal, it reads those of the ranks before alone.
    """
    every = cut(ends, parts)
    sending = [Row(at, piece) for at, pieces in enumerate(every) for piece in sent(pieces, causal=causal)]
    reading = [Row(at, piece) for at, pieces in enumerate(every) for piece in read(pieces, causal=causal)]

    def joined(reader: Row, sender: Row) -> bool:
        ordered = sender.rank < reader.rank if causal else sender.rank != reader.rank
        return ordered and reader.sequence == sender.sequence is not None

    sources = [
        tuple(index for index, sender in enumerate(sending) if joined(reader, sender))
        for reader in reading
        if reader.rank == rank
    ]
    readers = [
        tuple(index for index, reader in enumerate(reading) if joined(reader, sender))
        for sender in sending
        if sender.rank == rank
    ]
    return Routes(tuple(sources), tuple(readers))


class Row(NamedTuple):
    """A state that a rank sends or reads, if there is a piece that needs it."""

    rank: int
    piece: Piece | None

    @property
    def sequence(self) -> int | None:
        return self.piece.sequence if self.piece else None
