"""What disturbed the runs of a history, in its text, and how that text names revisions and cuts lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from benchmarks.analysis import wording
from benchmarks.analysis.document import Section
from benchmarks.analysis.history.conclusions import CommonStep, History, RevisionLabel, Step

MOST_LINES = 20
"""Lines of a section; history.json holds all."""


def quality(history: History) -> Iterator[Section]:
    """What disturbed the runs of each revision, the newest first; none where all were quiet."""
    if not history.disturbed:
        return
    several = len(history.machines) > 1
    revisions: dict[str, dict[str, list[str]]] = {}
    for one in reversed(history.disturbed):
        where = label(one.revision) + (f" on {one.machine}" if several else "")
        for kind, words in one.conditions.items():
            named = f"{words} ({PurePath(one.file).name})"
            revisions.setdefault(where, {}).setdefault(kind, []).append(named)
    lines = [
        f"{where}: {'; '.join(f'{kind}: {wording.listed(words)}' for kind, words in kinds.items())}."
        for where, kinds in revisions.items()
    ]
    runs = wording.count(sum(machine.runs for machine in history.machines), "run")
    counted = f"{len(history.disturbed)} of {runs} were disturbed, which may explain a step there."
    yield Section("Quality of the measurements", [counted, *capped(lines)])


def disturbances(history: History, step: Step | CommonStep) -> Iterator[str]:
    """What disturbed the runs of the revisions on both sides of a step."""
    for revision in (step.after, step.since):
        runs = [one for one in history.disturbed if (one.machine, one.revision) == (step.machine, revision)]
        kinds = dict.fromkeys(kind for run in runs for kind in run.conditions)
        if kinds:
            yield f"Disturbed at {revision.name}: {', '.join(kinds)}."


def label(revision: RevisionLabel) -> str:
    """A revision with its day: "3f2a1bc (2025-01-07)"."""
    day = revision.time[:10]
    return revision.name if revision.name.startswith(day) else f"{revision.name} ({day})"


def capped(lines: Sequence[str]) -> Iterator[str]:
    """The first lines, and how many there are beyond them."""
    yield from lines[:MOST_LINES]
    if len(lines) > MOST_LINES:
        yield f"and {len(lines) - MOST_LINES} more: see history.json"
