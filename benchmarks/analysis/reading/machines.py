"""Which machine a run was measured on, and whether the rows of two runs may stand in one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

IDENTITY = {
    "cpu": "CPU",
    "cpu_count": "cores",
    "gpu": "GPU",
    "driver": "driver",
    "torch": "torch",
    "threads": "threads",
}
"""What makes a machine another one, with its word: facts that decide times and stay as they are.

Not the host's name, which a container draws by lot, nor a clock, which wobbles, nor a commit or another
library, by which runs of one machine are told apart.
"""


def describe_machine(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the JSON of a run says about its machine; None where it says nothing, as older files may."""
    info, run = as_object(content.get("machine_info")), as_object(content.get("run"))
    cpu, devices = as_object(info.get("cpu")), as_object(info.get("devices"))
    return {
        "cpu": cpu.get("brand_raw"),
        "cpu_count": cpu.get("count"),
        "gpu": devices.get("cuda"),
        "driver": run.get("driver"),
        "torch": run.get("torch"),
        "threads": run.get("threads"),
        "system": info.get("system"),
        "python": info.get("python_version"),
    }


def fingerprint(run: Mapping[str, Any]) -> str:
    """The identity of a run's machine: runs with equal ones may be pooled and compared, others may not.

    Args:
        run: One of `Records.runs`, whose `machine` is what `describe_machine` returns.

    Returns:
        The known facts of `IDENTITY` in words. What is not known is left out, so a file that does not tell
        its driver is not pooled with one that does.
    """
    facts = {word: run["machine"].get(field) for field, word in IDENTITY.items()}
    known = [f"{word} {fact}" for word, fact in facts.items() if fact is not None]
    return ", ".join(known) or "unknown"


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What differs between the machines of two runs, as in "threads: 2 and 4"; empty for one machine."""
    found = []
    for field, word in IDENTITY.items():
        facts = [run["machine"].get(field) for run in (one, other)]
        if facts[0] != facts[1]:
            first, second = ("unknown" if fact is None else fact for fact in facts)
            found.append(f"{word}: {first} and {second}")
    return found


def machine_names(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """One short name per run, the same for the same machine; empty names where there is only one machine."""
    identities = [fingerprint(run) for run in runs]
    machines = list(dict.fromkeys(identities))
    if len(machines) < 2:
        return [""] * len(runs)
    return [f"machine {machines.index(identity) + 1}" for identity in identities]


def as_object(value: Any) -> dict[str, Any]:
    """A JSON object; an empty one in the place of anything else."""
    return value if isinstance(value, dict) else {}
