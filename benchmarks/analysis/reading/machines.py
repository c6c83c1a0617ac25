"""The machine of a run, and whether the rows of two runs may be pooled."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from benchmarks.analysis.reading.fields import is_number

Fact = str | int | float | bool | None
"""A value as a file tells it; None where it does not."""

IDENTITY = {
    "cpu": "CPU",
    "cpu_count": "cores",
    "gpu": "GPU",
    "driver": "driver",
    "torch": "torch",
    "threads": "threads",
}
"""The facts by which machines are told apart, with their words: they decide times and do not change.

The host's name is none, as a container draws it by lot; nor is a clock, which wobbles; nor a commit or
another library, by which runs of one machine are told apart.
"""


@dataclass(frozen=True)
class Machine:
    """The machine of a run, as its file describes it; older files say less."""

    cpu: Fact = None
    cpu_count: Fact = None
    gpu: Fact = None
    driver: Fact = None
    torch: Fact = None
    threads: Fact = None
    system: Fact = None
    python: Fact = None

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Machine:
        """The machine of a run by the JSON of its file."""
        info, run = as_object(content.get("machine_info")), as_object(content.get("run"))
        cpu, devices = as_object(info.get("cpu")), as_object(info.get("devices"))
        told = {
            "cpu": cpu.get("brand_raw"),
            "cpu_count": cpu.get("count"),
            "gpu": devices.get("cuda"),
            "driver": run.get("driver"),
            "torch": run.get("torch"),
            "threads": run.get("threads"),
            "system": info.get("system"),
            "python": info.get("python_version"),
        }
        return cls(**{name: as_fact(value) for name, value in told.items()})

    @property
    def identity(self) -> dict[str, Fact]:
        """The facts of `IDENTITY` by their words."""
        return {IDENTITY[one.name]: getattr(self, one.name) for one in fields(self) if one.name in IDENTITY}

    @property
    def fingerprint(self) -> str:
        """The known facts of its identity in words: runs of equal ones may be pooled, others may not.

        What is not known is left out, so a file that does not tell its driver is not pooled with one that
        does.
        """
        known = [f"{word} {fact}" for word, fact in self.identity.items() if fact is not None]
        return ", ".join(known) or "unknown"


def differences(one: Machine, other: Machine) -> list[str]:
    """The facts in which two machines differ, as in "threads: 2 and 4"; empty for equal ones."""
    found = []
    for (word, first), second in zip(one.identity.items(), other.identity.values(), strict=True):
        if first != second:
            words = ("unknown" if fact is None else str(fact) for fact in (first, second))
            found.append(f"{word}: {' and '.join(words)}")
    return found


def machine_names(machines: Sequence[Machine]) -> list[str]:
    """A short name for each, equal for equal ones; empty names where there is only one machine."""
    identities = [machine.fingerprint for machine in machines]
    unique = list(dict.fromkeys(identities))
    if len(unique) < 2:
        return [""] * len(machines)
    return [f"machine {unique.index(identity) + 1}" for identity in identities]


def as_object(value: Any) -> dict[str, Any]:
    """A JSON object; an empty one in the place of anything else."""
    return value if isinstance(value, dict) else {}


def as_fact(value: Any) -> Fact:
    """A JSON scalar; None in the place of anything else, of NaN and of infinity."""
    return value if isinstance(value, str | bool) or is_number(value) else None


def usable_cores() -> set[int]:
    """The logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
