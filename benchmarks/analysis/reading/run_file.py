"""The JSON file of one run: its sound records, and a sentence about each that is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.analysis.reading.fields import (
    AMOUNTS,
    HOW_TO_MEASURE,
    INTEGERS,
    LEFT_OUT,
    LONGEST_S,
    MOST_SIZE,
    OUTCOMES,
    SCHEMA,
    SHORTEST_S,
    TEXTS,
    InputError,
    checked,
    is_integer,
    is_number,
    require,
)
from benchmarks.analysis.reading.json_file import read_json
from benchmarks.analysis.reading.run_info import RunInfo
from benchmarks.analysis.reading.texts import shown

Floats = NDArray[np.float64]
Record = TypeVar("Record")

ENDINGS = (".json", ".json.gz")
"""Names of files of runs end so; whether a file is compressed, its first bytes tell."""

Fields = dict[str, Any]
"""Everything that the file holds of a case, known fields checked and unknown ones as they are."""


@dataclass(frozen=True, eq=False)
class Measured:
    """A benchmark with sound times.

    Attributes:
        fields: Its record.
        seconds: Its rounds; where the file does not hold them, their five-number summary.
        rounds: How many rounds there were.
        has_rounds: Whether the file holds them.
    """

    fields: Fields
    seconds: Floats
    rounds: int
    has_rounds: bool

    @property
    def median_s(self) -> float:
        """The median round."""
        return float(np.median(self.seconds))


@dataclass(frozen=True, eq=False)
class NotMeasured:
    """A case without times, with its outcome and its reason."""

    fields: Fields
    outcome: str
    reason: str


@dataclass(frozen=True, eq=False)
class RunFile:
    """One file, validated.

    Attributes:
        path: Where it was read.
        digest: Hash of its content, by which copies are found.
        run: What it says about its run.
        measured: The benchmarks with sound times.
        broken: The benchmarks whose times no clock can give, as failures.
        left_out: The cases that the run did not measure.
        unsound: A sentence, without its full stop, about each record that is none of these.
    """

    path: Path
    digest: str
    run: RunInfo
    measured: list[Measured]
    broken: list[NotMeasured]
    left_out: list[NotMeasured]
    unsound: list[str]


def read_run(path: Path) -> RunFile:
    """Read the file of one run; a record that is not sound costs that record only.

    Raises:
        InputError: The file is missing, unreadable, not a run of this suite, or without any sound record.
    """
    content, digest = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("benchmarks"), list):
        raise InputError(
            f"{path} has no list 'benchmarks', so pytest-benchmark did not write it", HOW_TO_MEASURE
        )
    entries = content.get("not_measured") or []
    # An outcome list that is none stands for one entry that is none.
    entries = entries if isinstance(entries, list) else [entries]
    benchmarks, unsound = _sound(content["benchmarks"], _benchmark)
    left_out, unsound_too = _sound(entries, _left_out)
    unsound += unsound_too
    if not (benchmarks or left_out):
        if unsound:
            more = f" (and none of its {len(unsound)} records is sound)" if len(unsound) > 1 else ""
            raise InputError(f"{path}: {unsound[0]}{more}", HOW_TO_MEASURE)
        raise InputError(f"{path} holds no benchmarks at all", HOW_TO_MEASURE)
    measured = [one for one in benchmarks if isinstance(one, Measured)]
    broken = [one for one in benchmarks if isinstance(one, NotMeasured)]
    return RunFile(path, digest, RunInfo.of(content, path), measured, broken, left_out, unsound)


def _sound(entries: Sequence[Any], read: Callable[[Any, int], Record]) -> tuple[list[Record], list[str]]:
    """What can be read of these entries, and a sentence about each of the others."""
    records, unsound = [], []
    for index, entry in enumerate(entries):
        try:
            records.append(read(entry, index))
        except InputError as error:
            unsound.append(error.found)
    return records, unsound


def _benchmark(benchmark: Any, index: int) -> Measured | NotMeasured:
    """A benchmark with sound times, or as a failure one whose times no clock can give."""
    name = benchmark.get("name") if isinstance(benchmark, dict) else None
    where = f"benchmark {shown(name if isinstance(name, str) else index)}"
    fields = _fields(benchmark, where)
    found = Measured(fields, *_times(benchmark, where))
    if all(SHORTEST_S <= second <= LONGEST_S for second in found.seconds):
        return found
    return NotMeasured(fields, "failed", "its times are not all positive numbers that a clock can give")


def _fields(benchmark: Any, where: str) -> Fields:
    info = benchmark.get("extra_info") if isinstance(benchmark, dict) else None
    info = info if isinstance(info, dict) else {}
    require(info, ("schema",), where)
    schema = info["schema"]
    if not is_integer(schema) or schema < 1:
        raise InputError(f"{where} has schema {shown(schema)}, which is no version number")
    if schema > SCHEMA:
        raise InputError(
            f"{where} has schema {shown(schema)}, but schema {SCHEMA} is the newest understood here, so that "
            "a newer version of this project has to read it"
        )
    require(info, TEXTS + INTEGERS + AMOUNTS, where)
    return checked(info, where, TEXTS + INTEGERS)


def _times(benchmark: Mapping[str, Any], where: str) -> tuple[Floats, int, bool]:
    """Seconds of the rounds, how many there were, and whether they were kept.

    Files saved without their rounds still hold the five-number summary of them, which stands in as the
    sample: its median and its quartiles are those of the rounds.
    """
    stats = benchmark.get("stats")
    if not isinstance(stats, dict) or not ("data" in stats or "median" in stats):
        raise InputError(f"{where} has no times in its 'stats'")
    has_rounds = isinstance(stats.get("data"), list) and bool(stats["data"])
    names = ("min", "q1", "median", "q3", "max")
    five = [stats[name] for name in names] if all(name in stats for name in names) else [stats.get("median")]
    values = stats["data"] if has_rounds else five
    seconds = np.array([float(value) if is_number(value) else math.nan for value in values])
    rounds = len(values) if has_rounds else stats.get("rounds", 1)
    if not is_integer(rounds) or not 1 <= rounds <= MOST_SIZE:
        raise InputError(f"{where} has {shown(rounds)} rounds, but a number from 1 on is needed")
    return seconds, rounds, has_rounds


def _left_out(entry: Any, index: int) -> NotMeasured:
    where = f"not_measured case {index}"
    if not isinstance(entry, dict):
        raise InputError(f"{where} is {shown(entry)}, but an object is needed")
    require(entry, LEFT_OUT, where)
    if entry["outcome"] not in OUTCOMES:
        wanted = ", ".join(OUTCOMES)
        raise InputError(f"{where} has outcome {shown(entry['outcome'])}, but one of {wanted} is needed")
    if not isinstance(entry["reason"], str):
        raise InputError(f"{where} has reason {shown(entry['reason'])}, but text is needed")
    return NotMeasured(checked(entry, where, LEFT_OUT), entry["outcome"], entry["reason"])
