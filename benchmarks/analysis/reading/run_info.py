"""The run of a file: when, where, of which commit, and under which conditions it was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.analysis.reading.fields import MOST_SIZE, is_integer, is_number
from benchmarks.analysis.reading.machines import Machine, as_object
from benchmarks.analysis.reading.texts import printable

MOST_READING = 2.0**53
"""No sensor reads more; from here on floats have no single bits."""


@dataclass(frozen=True)
class Commit:
    """The commit of what was measured.

    Attributes:
        id: Its hash; None where the file does not tell it.
        time: When it was committed, in ISO format.
        author_time: When its author wrote it, which a rebase leaves as it was.
        dirty: Whether the measured code had changes that were not committed.
    """

    id: str | None = None
    time: str | None = None
    author_time: str | None = None
    dirty: bool = False


@dataclass(frozen=True)
class Reading:
    """The sensors of a machine at one moment of a run, NaN where a sensor is missing.

    Attributes:
        repetition: The repetition before it; 0 before the first case.
        interval_s: Seconds since the reading before.
        others_cores: Cores that other processes kept busy since then.
        cpu_mhz: Clock of the fastest core.
        gpu_sm_clock_mhz: Clock of the card.
        gpu_temperature_c: Temperature of the card.
        gpu_throttle_reasons: NVML's bits.
        gpu_utilization_percent: Share of the time in which any process used the card.
        gpu_memory_used_bytes: Memory of the card that is in use.
        gpu_own_bytes: The part of it that is this run's.
    """

    repetition: float
    interval_s: float
    others_cores: float
    cpu_mhz: float
    gpu_sm_clock_mhz: float
    gpu_temperature_c: float
    gpu_throttle_reasons: float
    gpu_utilization_percent: float
    gpu_memory_used_bytes: float
    gpu_own_bytes: float


@dataclass(frozen=True)
class Conditions:
    """Under which conditions a run was measured, as far as its file tells them.

    Attributes:
        threads: Threads of PyTorch; NaN where unknown.
        usable_cores: Logical cores that it may use; NaN where unknown.
        quota_cores: Cores' time that its container may take; NaN without a limit.
        governor: How the CPU chooses its clock; empty where unknown.
        on_battery: Whether it runs on a battery.
        readings: What was read between and during the repetitions.
    """

    threads: float
    usable_cores: float
    quota_cores: float
    governor: str
    on_battery: bool
    readings: tuple[Reading, ...]


@dataclass(frozen=True)
class RunInfo:
    """The run of a file, as the file describes it.

    Attributes:
        file: The file, as it was given.
        datetime: When it was measured, in ISO format.
        node: Name of the host.
        commit: What was measured.
        machine: Where it was measured.
        conditions: Under which conditions.
        pair: Number of the pair of runs that it belongs to, where a comparison measured it.
        facts: Everything that the run says about itself, by name, but the readings.
    """

    file: str
    datetime: str | None
    node: str | None
    commit: Commit
    machine: Machine
    conditions: Conditions
    pair: int | None
    facts: Mapping[str, object]

    @classmethod
    def of(cls, content: Mapping[str, Any], path: Path) -> RunInfo:
        """The run of a file by its JSON."""
        info, commit, run = (as_object(content.get(name)) for name in ("machine_info", "commit_info", "run"))
        times = {name: _text(commit.get(name)) for name in ("id", "time", "author_time")}
        return cls(
            file=printable(str(path)),
            datetime=_text(content.get("datetime")),
            node=_text(run.get("node", info.get("node"))),
            commit=Commit(**times, dirty=commit.get("dirty") is True),
            machine=Machine.of(content),
            conditions=_conditions(run),
            pair=run["pair"] if is_integer(run.get("pair")) and abs(run["pair"]) <= MOST_SIZE else None,
            facts={name: fact for name, fact in run.items() if name != "conditions"},
        )


def _conditions(run: Mapping[str, Any]) -> Conditions:
    return Conditions(
        threads=_number(run.get("threads")),
        usable_cores=_number(run.get("usable_cores")),
        quota_cores=_number(run.get("quota_cores")),
        governor=_text(run.get("governor")) or "",
        on_battery=run.get("on_battery") is True,
        readings=tuple(_readings(run.get("conditions"))),
    )


def _readings(entries: Any) -> Iterator[Reading]:
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            yield Reading(*(_number(entry.get(field.name)) for field in fields(Reading)))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> float:
    """A count, a share or a reading of a sensor; NaN in the place of what can be none."""
    return float(value) if is_number(value) and 0 <= value <= MOST_READING else math.nan


def common_options(runs: Sequence[RunInfo]) -> str | None:
    """The options by which all of these runs chose their cases; None where they differ or are not known."""
    texts = [run.facts.get("options") for run in runs]
    first = texts[0] if texts else None
    return first if isinstance(first, str) and all(text == first for text in texts) else None


def moment(text: str | None) -> datetime | None:
    """A time in ISO format, that of Greenwich unless it says otherwise; None where it is no time."""
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
