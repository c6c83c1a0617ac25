"""From which context on one family is cheaper than the other, phase by phase, as summary.json holds it."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.scaling.crossover import Crossover
from benchmarks.analysis.scaling.firmness import Firmness
from benchmarks.analysis.serialization import FLAT


@dataclass(frozen=True)
class Phase:
    """One phase at one batch: where its fastest contender and its fastest baseline cross.

    Attributes:
        phase: Its name: "forward_backward", "forward", "prefill" or "decode".
        batch: Sequences in a batch.
        query_len: New tokens of a decode; None of the other phases.
        contender: The kernel that is spoken of first.
        baseline: The fastest one at the longest length of any.
        time: Their crossover in time.
        peak_bytes: That in peak memory, None where it is not known.
        firmness: How firm the crossover in time is.
    """

    phase: str
    batch: int
    query_len: int | None
    contender: str
    baseline: str
    time: Crossover
    peak_bytes: Crossover | None
    firmness: Firmness


@dataclass(frozen=True)
class Contexts:
    """All causal phases of one shape on one device, among them a decode.

    Attributes:
        setting: What they agree in; phase, batch and query_len are None.
        phases: Training first, then forward, prefill, and decode by its tokens and batch.
        longest: The longest context of a decode.
        state_bytes: Bytes of the state of one sequence in one layer; None where no contender keeps one.
        token_bytes: Bytes of the keys and values of one token there, None where they are not known.
        even_n: The context whose keys and values take as much as the state.
    """

    setting: Setting = field(metadata=FLAT)
    phases: list[Phase]
    longest: int
    state_bytes: float | None
    token_bytes: float | None
    even_n: float | None
