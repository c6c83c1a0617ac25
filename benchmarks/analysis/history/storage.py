"""Read a folder of hundreds of stored runs: what a history needs of each, and the files that hold none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.analysis.conditions.stored import name_disturbances
from benchmarks.analysis.reading.fields import LOST, InputError
from benchmarks.analysis.reading.machines import usable_cores
from benchmarks.analysis.reading.records import name_unsound
from benchmarks.analysis.reading.roles import USUAL, Roles
from benchmarks.analysis.reading.run_file import ENDINGS, RunFile, read_run
from benchmarks.analysis.reading.run_info import moment
from benchmarks.analysis.reading.setting import CASE, Case
from benchmarks.analysis.reading.texts import printable
from benchmarks.analysis.scaling.units import Floats

EXACT = ("peak_bytes", "flops", "min_bytes")
"""Quantities without noise."""
BYTES_PER_PROCESS = 50e6
"""Starting another process takes about as long as reading so much."""

NEVER = datetime.min.replace(tzinfo=UTC)

CaseId = tuple[str, str, str]
"""Key, clock and name of the device: what one line of a history is about."""


@dataclass(frozen=True, order=True)
class Revision:
    """One state of the code, in the order of commits.

    Uncommitted changes, and code outside any repository, are a state of their own in every run, placed behind
    their commit in the order of measuring: nobody knows whether two of them are the same.
    """

    time: datetime
    authored: datetime = NEVER
    commit: str = ""
    dirty: bool = False
    measured: datetime = NEVER

    @property
    def name(self) -> str:
        """How the console and the pictures call it: "3f2a1bc", "3f2a1bc+changes" or a date."""
        if not self.commit:
            return f"{self.time:%Y-%m-%d %H:%M}"
        return self.commit[:7] + ("+changes" if self.dirty else "")


@dataclass(frozen=True)
class StoredRun:
    """The part of one run that a history needs.

    Attributes:
        path: Its file.
        digest: By which a copy is known.
        revision: The measured state of the code.
        machine: Fingerprint; runs of different ones stay apart.
        cases: Each case by its identity; the machine is the run's, and no case names one.
        seconds: Median over the repetitions of the median round.
        exact: The quantities of `EXACT` of each case, NaN where unknown; of repetitions the least, for what
            an allocator leaves over only adds.
        failed: Outcome of each case, by its key, that ran out of memory, failed or is unsupported.
        conditions: What disturbed the run, by kind, in the words of a report.
        unsound: A sentence about each of its records that is left out because it is not sound.
        roles: Which of its kernels are compared with which.
    """

    path: Path
    digest: str
    revision: Revision
    machine: str
    cases: dict[CaseId, Case]
    seconds: dict[CaseId, float]
    exact: dict[CaseId, Floats]
    failed: dict[str, str] = field(default_factory=dict)
    conditions: dict[str, str] = field(default_factory=dict)
    unsound: list[str] = field(default_factory=list)
    roles: Roles = USUAL


def read_storage(folder: Path) -> tuple[list[StoredRun], list[str]]:
    """Read all JSON files of a folder and of its subfolders, plain ones and those compressed by gzip.

    Args:
        folder: A storage folder of pytest-benchmark, or any other.

    Returns:
        The runs in the order of their commits, and one sentence for each file, or record of one, left out.

    Raises:
        InputError: The folder does not exist, or holds no run.
    """
    runs: dict[str, StoredRun] = {}
    left_out = []
    for found in _read_all(_files(folder)):
        if isinstance(found, str):
            left_out.append(found)
        elif found.digest in runs:
            left_out.append(printable(f"{found.path} is a copy of {runs[found.digest].path}"))
        else:
            runs[found.digest] = found
            left_out += found.unsound
    if not runs:
        what = f"none of its {len(left_out)} JSON files is one: {left_out[0]}" if left_out else "it is empty"
        raise InputError(
            f"{folder} holds no run of this suite ({what}); "
            "save some with `pytest benchmarks --benchmark-autosave`"
        )
    return sorted(_dated(list(runs.values())), key=lambda run: run.revision), left_out


def _files(folder: Path) -> list[Path]:
    """Everything below a folder that has the name of a run, but folders: the reader says what is no file."""
    try:
        if folder.is_dir():
            found = [path for ending in ENDINGS for path in folder.rglob(f"*{ending}")]
            return sorted(path for path in found if not path.is_dir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None
    raise InputError(
        f"{folder} is no folder; give the one where `pytest benchmarks --benchmark-autosave` saved runs, "
        "which is .benchmarks unless --benchmark-storage says otherwise"
    )


def _dated(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Runs of a commit that does not tell its time take the first of theirs, so that they are one."""
    first: dict[str, datetime] = {}
    for run in runs:
        commit, time = run.revision.commit, run.revision.time
        first[commit] = min(first.get(commit, time), time) if commit else time
    return [
        replace(run, revision=replace(run.revision, time=first[run.revision.commit]))
        if run.revision.commit
        else run
        for run in runs
    ]


def _read_all(paths: Sequence[Path]) -> Iterator[StoredRun | str]:
    size = sum(path.stat().st_size for path in paths if path.is_file())
    processes = min(len(usable_cores()), int(size / BYTES_PER_PROCESS))
    if processes < 2:
        yield from map(_read, paths)
        return
    # Threads of the parent, as pytest's or torch's, would not survive a fork.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_read, paths, chunksize=8)


def _read(path: Path) -> StoredRun | str:
    """The run, or why there is none."""
    try:
        return _stored(read_run(path))
    except InputError as error:
        return error.found


def _stored(file: RunFile) -> StoredRun:
    seconds: dict[CaseId, list[float]] = {}
    cases: dict[CaseId, Case] = {}
    exact: dict[CaseId, Floats] = {}
    for row in file.measured:
        known = row.fields
        case = known["key"], known["clock"], known["device_name"] or ""
        seconds.setdefault(case, []).append(row.median_s)
        cases[case] = Case.of({**{name: known.get(name) for name in CASE}, "machine": ""})
        amounts = np.array([np.nan if known[name] is None else float(known[name]) for name in EXACT])
        exact[case] = np.fmin(exact.get(case, amounts), amounts)
    failed = {
        row.fields["key"]: row.outcome
        for row in (*file.left_out, *file.broken)
        if row.fields.get("key") and row.outcome in LOST
    }
    return StoredRun(
        path=file.path,
        digest=file.digest,
        revision=_revision(file),
        machine=file.run.machine.fingerprint,
        cases=cases,
        seconds={case: float(np.median(medians)) for case, medians in seconds.items()},
        exact=exact,
        failed=failed,
        conditions=name_disturbances(file),
        unsound=list(name_unsound(file)),
        roles=Roles.of(file.run),
    )


def _revision(file: RunFile) -> Revision:
    commit = file.run.commit
    measured = moment(file.run.datetime)
    # A rebase dates commits again and leaves the author's time as it was, which tells those of one second.
    authored = moment(commit.author_time)
    time = moment(commit.time) or authored or measured
    if time is None:
        raise InputError(f"{file.path} says neither when it was measured nor of which commit")
    if commit.id in (None, "unknown", "unversioned"):
        return Revision(measured or time)
    since = (measured or NEVER) if commit.dirty else NEVER
    return Revision(time, authored or NEVER, commit.id, commit.dirty, since)
