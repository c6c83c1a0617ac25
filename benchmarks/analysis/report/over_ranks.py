"""How a kernel scales over the ranks that share its sequences, as summary.json holds it."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.scaling.crossover import Crossover
from benchmarks.analysis.scaling.firmness import Firmness
from benchmarks.analysis.serialization import FLAT


@dataclass(frozen=True)
class RankPoint:
    """One length at one number of ranks.

    Attributes:
        ranks: How many share the sequence.
        seq_len: Tokens of all of them.
        median_s: Median of the time of the slowest rank.
        speedup: Time of one rank at the same length over it; None where one rank was not measured there.
        efficiency: That over the ranks: 1 where they share the work without any loss.
        weak_efficiency: Time of one rank at the length of one part over it; None where that was not measured.
        exchanged_bytes: Bytes that a rank received in a call, counted from what was issued.
        predicted_exchanged_bytes: Bytes that it receives by the law of its kernel; None where that has none.
        exposed_share: The share of the time that goes when nothing is exchanged; None where not measured.
    """

    ranks: int
    seq_len: int
    median_s: float
    speedup: float | None
    efficiency: float | None
    weak_efficiency: float | None
    exchanged_bytes: float | None
    predicted_exchanged_bytes: float | None
    exposed_share: float | None


@dataclass(frozen=True)
class OfRanks:
    """What holds of all lengths at one number of ranks.

    Attributes:
        ranks: How many share a sequence.
        bytes_exponent: The p of exchanged bytes ~ N^p, None where they are not known at two lengths.
        beats_one: From which length on so many ranks take less time than one; None without one rank.
        firmness: How firm that is.
    """

    ranks: int
    bytes_exponent: float | None
    beats_one: Crossover | None
    firmness: Firmness | None


@dataclass(frozen=True)
class OverRanks:
    """One kernel in one setting, whose `ranks` are None, over all numbers of ranks."""

    kernel: str
    family: str
    setting: Setting = field(metadata=FLAT)
    points: list[RankPoint]
    of_ranks: list[OfRanks]

    def at(self, ranks: int) -> list[RankPoint]:
        """The points of so many ranks, in the order of their lengths."""
        return [point for point in self.points if point.ranks == ranks]
