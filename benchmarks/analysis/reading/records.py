"""The records of several runs: pytest-benchmark's JSON files as tidy frames, or an error of one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.analysis.reading.fields import INTEGERS, OPTIONAL_INTEGERS, InputError
from benchmarks.analysis.reading.machines import machine_names
from benchmarks.analysis.reading.run_file import Fields, RunFile, read_run
from benchmarks.analysis.reading.run_info import RunInfo
from benchmarks.analysis.reading.setting import CASE, SETTING

CUT_SHORT = ("interrupted", "killed")
"""What a file says of the end of a run that was not measured to its end."""
KNOWN_BY_DEVICE = ("clock", "device_name")
MOST_UNSOUND = 10
"""The most records of a file that are named one by one."""


@dataclass(frozen=True)
class Records:
    """Everything the given files hold.

    Attributes:
        rows: One row per benchmark, i.e. per case and repetition: all record fields, `file`, `run` (index of
            the file), `machine` (its short name, empty where all files are of one machine: see `machines`),
            `seconds` (float64 array of the rounds), `median_s`, `rounds`, and the unit of
            sampling: `unit_kind` ("run" | "repetition") and `unit` (its number).
        not_measured: One row per case that was asked for and not measured: case fields, `outcome`, `reason`.
        runs: What each file says about its run.
        warnings: Sentences naming what the files lack.
        places: The file of each run, by what it holds.
    """

    rows: pd.DataFrame
    not_measured: pd.DataFrame
    runs: list[RunInfo]
    warnings: list[str]
    places: dict[str, Path]


def load(paths: Sequence[str | Path]) -> Records:
    """Read and validate runs.

    Args:
        paths: JSON files, each written by one run.

    Returns:
        The records of all files, in the order given.

    Raises:
        InputError: A file is missing, not a run of this suite, of a newer schema, or given twice.
    """
    files = [read_run(Path(path)) for path in paths]
    _refuse_copies(files)
    runs = [file.run for file in files]
    names = machine_names([run.machine for run in runs])
    rows = [row for index, file in enumerate(files) for row in _measured(file, index, names[index])]
    left_out = [row for file, name in zip(files, names, strict=True) for row in _left_out(file, name)]
    frame = _assign_units(as_frame(rows)) if rows else pd.DataFrame()
    places = {file.digest: file.path for file in files}
    return Records(frame, _drop_repeats(left_out, frame), runs, _warn(files), places)


def _refuse_copies(files: Sequence[RunFile]) -> None:
    seen: dict[str, Path] = {}
    for file in files:
        if file.digest in seen:
            raise InputError(
                f"{file.path} holds the same run as {seen[file.digest]}, and a run counts once; "
                "give each file once"
            )
        seen[file.digest] = file.path


def _measured(file: RunFile, run: int, machine: str) -> Iterator[Fields]:
    """A row for each benchmark of one file."""
    for one in file.measured:
        yield {
            **one.fields,
            "seconds": one.seconds,
            "median_s": one.median_s,
            "rounds": one.rounds,
            "file": file.run.file,
            "run": run,
            "machine": machine,
        }


def _left_out(file: RunFile, machine: str) -> Iterator[Fields]:
    """A row for each case of one file without times; its benchmarks may tell the clock and device's name."""
    known = {one.fields["device"]: one.fields for one in file.measured}
    for one in (*file.left_out, *file.broken):
        beside = known.get(one.fields["device"], {})
        told = {field: one.fields.get(field) or beside.get(field, "") for field in KNOWN_BY_DEVICE}
        yield {**one.fields, "outcome": one.outcome, "reason": one.reason, **told, "machine": machine}


def _drop_repeats(left_out: list[Fields], measured: pd.DataFrame) -> pd.DataFrame:
    """One row per case left out, unless another repetition or run did measure it."""
    identity = list(CASE)
    if not left_out:
        return pd.DataFrame(columns=[*identity, "outcome", "reason"])
    frame = as_frame(left_out).drop_duplicates(identity, ignore_index=True)
    done = set(measured[identity].itertuples(index=False, name=None)) if len(measured) else set()
    return frame[[case not in done for case in frame[identity].itertuples(index=False, name=None)]]


def as_frame(rows: Sequence[Mapping[Any, object]]) -> pd.DataFrame:
    """A frame of records whose integers stay integers beside nulls."""
    frame = pd.DataFrame(rows)
    return frame.astype({field: "Int64" for field in (*INTEGERS, *OPTIONAL_INTEGERS) if field in frame})


def _assign_units(rows: pd.DataFrame) -> pd.DataFrame:
    """The unit of sampling is the run where a setting was measured in several, otherwise the repetition."""
    runs = rows.groupby(list(SETTING), dropna=False)["run"].transform("nunique")
    several = runs > 1
    return rows.assign(
        unit_kind=np.where(several, "run", "repetition"),
        unit=np.where(several, rows["run"], rows["repetition"]),
    )


def _warn(files: Sequence[RunFile]) -> list[str]:
    warnings = []
    unusable = [f"{one.fields['key']} in {file.run.file}" for file in files for one in file.broken]
    without_rounds = [file.run.file for file in files if not all(one.has_rounds for one in file.measured)]
    if unusable:
        more = f" and {len(unusable) - 3} more" if len(unusable) > 3 else ""
        warnings.append(
            f"Left out, because their times are not all positive numbers: {', '.join(unusable[:3])}{more}."
        )
    warnings += [
        f"{file.run.file} was cut short ({file.run.facts['ended']}), so that cases and rounds are missing."
        for file in files
        if file.run.facts.get("ended") in CUT_SHORT
    ]
    warnings += [f"{sentence}." for file in files for sentence in name_unsound(file)]
    if without_rounds:
        warnings.append(
            f"The single rounds are missing in {', '.join(without_rounds)}, so quartiles stand in; "
            "save them with --benchmark-json or --benchmark-save-data."
        )
    return warnings


def name_unsound(file: RunFile) -> Iterator[str]:
    """A sentence, without its full stop, on each record of a file that is left out as not sound."""
    for found in file.unsound[:MOST_UNSOUND]:
        yield f"Left out of {file.run.file}: {found}"
    if len(file.unsound) > MOST_UNSOUND:
        yield f"Left out of {file.run.file}: {len(file.unsound) - MOST_UNSOUND} more records"
