"""The conclusions of a comparison, as comparison.json holds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.analysis.reading.roles import named_in_json
from benchmarks.analysis.reading.setting import Case, Setting
from benchmarks.analysis.scaling.crossover import Crossover
from benchmarks.analysis.serialization import FLAT

TimeVerdict = Literal["slower", "faster", "same", "inconclusive"]
EnergyVerdict = Literal["larger", "smaller", "same", "inconclusive"]
CountVerdict = Literal["larger", "smaller"]
OutcomeVerdict = Literal["lost", "left out", "gained", "vanished", "new", "incomparable"]
ShiftVerdict = Literal["moved", "unchanged", "inconclusive"]


@dataclass(frozen=True)
class Ratio:
    """Head over base, with the ends of its 95 % interval; None where too few units tell them."""

    ratio: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class CaseChange:
    """The time of one case on both sides.

    Attributes:
        key: The case's key.
        case: The case.
        units: Units of sampling on the side that has fewer.
        base_s: Seconds of the base: the geometric mean of its units' medians, paired of the pairs alone that
            hold both sides.
        head_s: Seconds of the head, likewise.
        change: Their ratio.
        p: The p-value of the change after Holm's correction.
        verdict: What is said of it.
    """

    key: str
    case: Case = field(metadata=FLAT)
    units: int
    base_s: float | None
    head_s: float | None
    change: Ratio = field(metadata=FLAT)
    p: float | None
    verdict: TimeVerdict


@dataclass(frozen=True)
class EnergyChange:
    """The energy of a call of one case on both sides, in joules, as `CaseChange` has its time."""

    key: str
    case: Case = field(metadata=FLAT)
    base_j: float | None
    head_j: float | None
    change: Ratio = field(metadata=FLAT)
    p: float | None
    verdict: EnergyVerdict


@dataclass(frozen=True)
class CountChange:
    """A count or a number of bytes that differs between the sides; `quantity` is a field of the record."""

    key: str
    case: Case = field(metadata=FLAT)
    quantity: str
    base: float
    head: float
    verdict: CountVerdict


@dataclass(frozen=True)
class OutcomeChange:
    """A case that was not measured on both sides alike.

    Attributes:
        key: The case's key.
        case: The case.
        base: "measured", or the outcome of a case left out; None where the base did not ask for it.
        head: The outcome on the other side.
        reason: Why it was left out.
        verdict: What that means.
    """

    key: str
    case: Case = field(metadata=FLAT)
    base: str | None
    head: str | None
    reason: str | None
    verdict: OutcomeVerdict


@dataclass(frozen=True)
class ExponentShift:
    """The exponent of one series on both sides, over one window; `low` and `high` bound the shift."""

    kernel: str
    family: str
    setting: Setting = field(metadata=FLAT)
    window: list[int]
    base: float
    head: float
    shift: float | None
    low: float | None
    high: float | None
    p: float | None
    verdict: ShiftVerdict


@dataclass(frozen=True)
class Place:
    """Where a crossover lies on one side; the fields are those of `Crossover`."""

    kind: str
    n: float | None
    low: float | None
    high: float | None
    ahead_beyond: str | None
    lengths: tuple[int, int] | None
    seq_lens: list[int]
    within_noise: list[int]
    units: int

    @classmethod
    def of(cls, found: Crossover) -> Place:
        """The place of a crossover."""
        return cls(
            found.kind, found.n, found.low, found.high,
            found.ahead_beyond, found.lengths, found.seq_lens, found.within_noise, found.units,
        )  # fmt: skip


@dataclass(frozen=True)
class CrossoverShift:
    """The crossover of one pair of kernels on both sides.

    The ratio is None unless both lie inside, and `p`, after Holm's correction over all exponents and
    crossovers, unless both do or the lead at a length seems to have changed hands.
    """

    contender: str
    baseline: str
    setting: Setting = field(metadata=FLAT)
    base: Place
    head: Place
    change: Ratio = field(metadata=FLAT)
    p: float | None
    verdict: ShiftVerdict

    def in_json(self, found: dict[str, Any]) -> dict[str, Any]:
        """The object in JSON, which names linear and standard kernels by their families."""
        return named_in_json(found, self.contender, self.baseline)


@dataclass(frozen=True)
class CommonChange:
    """The change of the median case of one device.

    Attributes:
        machine: Its machine's name.
        device: "cpu" or "cuda".
        device_name: The device's own name.
        clock: The clock of these times.
        change: The ratio of the median case.
        share: The share of the cases that changed by about as much.
        within: How near to it they are, as a share.
        moved: Whether all cases count as moved alike.
    """

    machine: str
    device: str
    device_name: str
    clock: str
    change: Ratio = field(metadata=FLAT)
    share: float
    within: float
    moved: bool


@dataclass(frozen=True)
class CeilingChange:
    """The time of a ceiling on both sides, which no commit of a kernel changes."""

    key: str
    kernel: str
    device: str
    dtype: str
    change: Ratio = field(metadata=FLAT)


@dataclass(frozen=True)
class SideSummary:
    """The runs of one side.

    Attributes:
        files: Their files.
        commits: Their commits, None where unknown.
        dirty: Whether they had uncommitted changes.
        machines: The fingerprints of their machines.
        conditions: Sentences naming what disturbed them, with what to try.
    """

    files: list[str]
    commits: list[str | None]
    dirty: bool
    machines: list[str]
    conditions: list[str]


@dataclass(frozen=True)
class UnitCounts:
    """How many units of sampling each side has."""

    base: int
    head: int


@dataclass(frozen=True)
class Comparison:
    """All conclusions of a comparison; ratios are head over base.

    Attributes:
        schema: Version of this object in comparison.json.
        margin: The share by which times may differ and be called the same.
        noise: The known noise of this machine between equal commits.
        unit: "pair", "run", "repetition", or "mixed" where devices differ in it.
        units: How many there are.
        tentative: Whether a side has one run only, whose noise is assumed.
        base: The runs compared with.
        head: The runs compared.
        cases: Every case measured on both sides.
        energies: Every case of which both sides know the energy; no verdict on it is a regression.
        counts: Every count that differs.
        outcomes: Every case that was not measured on both sides alike.
        exponents: Every exponent of both sides.
        crossovers: Every crossover in time of both sides.
        common: What moves the median case of each device.
        controls: The ceilings.
        conditions: Sentences on conditions in which the sides differ, and which may explain a change.
        warnings: Sentences on records and pictures that are missing.
        options: The options by which all runs chose their cases; None where they differ or are not known.
        regressed: Whether anything is slower, larger or lost.
    """

    schema: int
    margin: float
    noise: float | None
    unit: str
    units: UnitCounts
    tentative: bool
    base: SideSummary
    head: SideSummary
    cases: list[CaseChange]
    energies: list[EnergyChange]
    counts: list[CountChange]
    outcomes: list[OutcomeChange]
    exponents: list[ExponentShift]
    crossovers: list[CrossoverShift]
    common: list[CommonChange]
    controls: list[CeilingChange]
    conditions: list[str]
    warnings: list[str]
    options: str | None
    regressed: bool
