"""Write the history of stored runs: what changed at which commit, as text, table, object and picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.analysis.document import as_text
from benchmarks.analysis.history.changes import (
    WORSE,
    against_baseline,
    common_steps,
    find_commit,
    label,
    lost,
    moved_together,
    steps,
)
from benchmarks.analysis.history.conclusions import Baseline, DisturbedRun, History, MachineHistory
from benchmarks.analysis.history.lines import Timeline, timelines
from benchmarks.analysis.history.names import is_ceiling
from benchmarks.analysis.history.page import history_page
from benchmarks.analysis.history.picture import drawings
from benchmarks.analysis.history.storage import read_storage
from benchmarks.analysis.history.text import sections
from benchmarks.analysis.history.traced import Traced
from benchmarks.analysis.history.traces import MARGIN, trace
from benchmarks.analysis.layout import Screen
from benchmarks.analysis.output import replacing_files, try_folder, written_section
from benchmarks.analysis.page.rendering import save_page
from benchmarks.analysis.plots.saving import save_pictures
from benchmarks.analysis.serialization import CONCLUSIONS_SCHEMA, csv_text, json_text

COLUMNS = (
    "machine", "quantity", "name", "commit", "dirty", "time", "place", "runs",
    "value", "own", "low", "high", "segment", "level",
)  # fmt: skip
"""The columns of history.csv; `own` is the value less what it owes to the machine, as all that follows is."""


@dataclass(frozen=True)
class WrittenHistory:
    """A written history: its text for the console, its files, and whether anything is worse than before."""

    text: str
    files: list[Path]
    worse: bool


def write_history(
    storage: str | Path,
    folder: str | Path,
    *,
    baseline: str | None = None,
    margin: float = MARGIN,
    screen: Screen | None = None,
) -> WrittenHistory:
    """Read a storage folder, find the steps, and write everything into another folder.

    Args:
        storage: Folder of runs, as pytest-benchmark's --benchmark-save and --benchmark-autosave fill it.
        folder: Where to write; made if it does not exist.
        baseline: Beginning of the id of the commit whose level is the measure; without one, the level before
            the last step is.
        margin: The smallest step to be named, as a share.
        screen: What the text is shown on.

    Raises:
        InputError: There are no runs, the baseline is not among them, or the folder cannot be written.
    """
    folder = Path(folder)
    try_folder(folder, "history")
    runs, left_out = read_storage(Path(storage))
    machines = timelines(runs)
    traced = [trace(timeline, margin) for timeline in machines]
    history = conclude(machines, traced, left_out, baseline, margin)
    with replacing_files(folder, "history") as place:
        pictures, failed = save_pictures(drawings(traced), place)
        history = replace(history, left_out=[*history.left_out, *failed])
        text = sections(history)
        page, unmade = save_page(lambda: history_page(history, traced, text), place)
        if unmade:
            history = replace(history, left_out=[*history.left_out, *unmade])
            text = sections(history)
        table = pd.DataFrame([row for one in chain(*traced) for row in _rows(one)], columns=COLUMNS)
        (place / "history.csv").write_text(csv_text(table), encoding="utf-8")
        (place / "history.json").write_text(json_text(history), encoding="utf-8")
    files = [folder / name for name in (*page, *pictures, "history.csv", "history.json")]
    return WrittenHistory(as_text([*text, written_section(files)], screen), files, worse(history))


def worse(history: History) -> bool:
    """Whether code is worse than before; ceilings and states of the machine are none."""
    changed = (one for one in history.baseline.lines if not is_ceiling(one.name))
    return bool(history.lost) or any(one.change.verdict in WORSE for one in changed)


def conclude(
    machines: Sequence[Timeline],
    traced: Sequence[Sequence[Traced]],
    left_out: Sequence[str],
    baseline: str | None,
    margin: float,
) -> History:
    """All that is said of a history.

    Args:
        machines: The lines of each machine.
        traced: The lines of each with their segments; none where a machine measured no case.
        left_out: A sentence for each file or record that is not in it.
        baseline: As for `write_history`.
        margin: With which the lines were traced.
    """
    every = list(chain(*traced))
    found = steps(every)
    commit = None if baseline is None else find_commit(every, baseline)
    return History(
        schema=CONCLUSIONS_SCHEMA,
        margin=margin,
        machines=[_machine(one, own) for one, own in zip(machines, traced, strict=True)],
        steps=found,
        common_steps=[step for own in traced for step in common_steps(own)],
        moved_together=[moved for one in machines for moved in moved_together(found, one)],
        baseline=Baseline(commit, against_baseline(every, commit)),
        lost=[case for one in machines for case in lost(one)],
        left_out=list(left_out),
        disturbed=[
            DisturbedRun(one.name, label(one.revisions[run.place]), run.file, run.conditions)
            for one in machines
            for run in one.disturbances
        ],
    )


def _machine(timeline: Timeline, traced: Sequence[Traced]) -> MachineHistory:
    times = [one for one in traced if one.line.quantity == "time"]
    typical = sorted(times, key=lambda one: one.smallest_step)[(len(times) - 1) // 2] if times else None
    smallest = typical.smallest_step if typical else math.inf
    return MachineHistory(
        name=timeline.name,
        fingerprint=timeline.fingerprint,
        runs=timeline.runs,
        lines=len(timeline.lines),
        revisions=list(map(label, timeline.revisions)),
        smallest_step=math.expm1(smallest) if smallest < math.inf else None,
        enough=typical.enough() if typical else None,
    )


def _rows(one: Traced) -> Iterator[tuple[Any, ...]]:
    """The tidy rows of one line: the value of each revision with its interval, segment and level."""
    line, timeline = one.line, one.timeline
    low, high = one.bounds()
    revisions = [timeline.revisions[place] for place in line.places]
    lengths = [segment.stop - segment.start for segment in one.segments]
    columns = (
        repeat(timeline.name),
        repeat(line.quantity),
        repeat(line.name),
        [revision.commit for revision in revisions],
        [revision.dirty for revision in revisions],
        [revision.time.isoformat() for revision in revisions],
        line.places,
        line.runs.astype(int),
        line.values,
        one.shown,
        low,
        high,
        np.repeat(np.arange(len(lengths)), lengths),
        np.repeat([one.natural(segment.level) for segment in one.segments], lengths),
    )
    return zip(*columns, strict=False)
