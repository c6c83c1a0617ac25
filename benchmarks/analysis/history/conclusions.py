"""The conclusions of a history, as history.json holds them."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.analysis.history.names import LineName
from benchmarks.analysis.serialization import FLAT


@dataclass(frozen=True)
class RevisionLabel:
    """A revision: its commit, empty outside of a repository, its short name, and its time in ISO format."""

    commit: str
    name: str
    time: str


@dataclass(frozen=True)
class Difference:
    """The change of a line from one level to another.

    Attributes:
        verdict: "slower", "steeper", "later", "larger" or their opposites.
        size: The change as a share, of exponents a difference; None from a level of zero.
        low: Lower end of its 95 % interval.
        high: Upper end of it.
        old: The level before, in s, bytes, FLOPs or tokens.
        new: The level after.
    """

    verdict: str
    size: float | None
    low: float | None
    high: float | None
    old: float
    new: float


@dataclass(frozen=True)
class Unchanged:
    """No change: "same", "unknown" where the baseline did not measure the line, "too few" values to tell."""

    verdict: str


@dataclass(frozen=True)
class Step:
    """A change of level of one line.

    Attributes:
        machine: Name of the machine.
        quantity: The quantity of the line.
        name: The name of the line.
        after: The last revision of the old level.
        since: The first revision of the new level.
        change: By how much the level changed.
        commits: How many revisions have the new level.
    """

    machine: str
    quantity: str
    name: LineName
    after: RevisionLabel
    since: RevisionLabel
    change: Difference = field(metadata=FLAT)
    commits: int


@dataclass(frozen=True)
class CommonStep:
    """A change of the machine itself, which moved the times of many kernels at once.

    Attributes:
        machine: Name of the machine.
        after: The last revision of the old state.
        since: The first revision of the new state.
        change: By how much typical times changed; its levels are factors on them.
        commits: How many revisions have the new state.
        count: How many times moved along.
        of: How many times were measured before and after.
        ceilings: How many ceilings moved along.
        of_ceilings: How many ceilings were measured before and after.
    """

    machine: str
    after: RevisionLabel
    since: RevisionLabel
    change: Difference = field(metadata=FLAT)
    commits: int
    count: int
    of: int
    ceilings: int
    of_ceilings: int


@dataclass(frozen=True)
class BaselineLine:
    """The newest segment of a line against its baseline, each with its first and last revision.

    `baseline` is None where the chosen commit did not measure the line.
    """

    machine: str
    quantity: str
    name: LineName
    baseline: list[RevisionLabel] | None
    newest: list[RevisionLabel]
    change: Difference | Unchanged = field(metadata=FLAT)


@dataclass(frozen=True)
class LostCase:
    """A case that ran before, and runs out of memory or fails since a revision."""

    machine: str
    quantity: str = field(default="outcome", init=False)
    name: str
    since: RevisionLabel
    verdict: str = field(default="lost", init=False)
    outcome: str


@dataclass(frozen=True)
class MovedTogether:
    """A place where `count` of the `of` times of a machine, of so many kernels, have the same verdict.

    No state of the machine explains it; `ceilings` were measured beside.
    """

    machine: str
    since: str
    verdict: str
    count: int
    of: int
    kernels: int
    ceilings: int


@dataclass(frozen=True)
class DisturbedRun:
    """A run of a revision, and what disturbed it, by kind: "CPU load", "Throttled GPU", "Drift" and so on."""

    machine: str
    revision: RevisionLabel
    file: str
    conditions: dict[str, str]


@dataclass(frozen=True)
class MachineHistory:
    """One machine of a history: name, fingerprint, number of runs and lines, and its revisions in order.

    `smallest_step` is the smallest one, as a share, that a typical time of it could have shown; None if none.
    `enough` is the number of revisions from which on it could show a doubling.
    """

    name: str
    fingerprint: str
    runs: int
    lines: int
    revisions: list[RevisionLabel]
    smallest_step: float | None
    enough: int | None


@dataclass(frozen=True)
class Baseline:
    """The chosen commit, None for the level before each line's last step, and every line against it."""

    revision: str | None
    lines: list[BaselineLine]


@dataclass(frozen=True)
class History:
    """All conclusions of a history.

    Attributes:
        schema: Version of this object in history.json.
        margin: The smallest step that is named.
        machines: The machines, the one with the most runs first.
        steps: Every step, newest first.
        common_steps: Every step of a machine itself, newest first.
        moved_together: Places where most times of a machine moved alike.
        baseline: The newest levels against the baseline.
        lost: Cases that can no longer be measured.
        left_out: A sentence for each file, record or picture that is not in the history.
        disturbed: Every run that other load, a falling clock, a drift or the like disturbed.
    """

    schema: int
    margin: float
    machines: list[MachineHistory]
    steps: list[Step]
    common_steps: list[CommonStep]
    moved_together: list[MovedTogether]
    baseline: Baseline
    lost: list[LostCase]
    left_out: list[str]
    disturbed: list[DisturbedRun]
