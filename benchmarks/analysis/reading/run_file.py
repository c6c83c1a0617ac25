"""The JSON file of one run: every record of it sound, or an error of one sentence."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.analysis.reading.fields import (
    AMOUNTS,
    HOW_TO_MEASURE,
    INTEGERS,
    LEFT_OUT,
    OUTCOMES,
    SCHEMA,
    TEXTS,
    InputError,
    checked,
    is_integer,
    require,
)
from benchmarks.analysis.reading.run_info import RunInfo

Floats = NDArray[np.float64]

ENDINGS = (".json", ".json.gz")
"""Names of files of runs end so; whether a file is compressed, its first bytes tell."""
GZIP = b"\x1f\x8b"

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
    """

    path: Path
    digest: str
    run: RunInfo
    measured: list[Measured]
    broken: list[NotMeasured]
    left_out: list[NotMeasured]


def read_run(path: Path) -> RunFile:
    """Read the file of one run.

    Raises:
        InputError: It is missing, unreadable, not a run of this suite, or of a newer schema.
    """
    content, digest = _read_json(path)
    measured, broken = _benchmarks(content, path)
    left_out = list(_left_out(content, path))
    if not (measured or broken or left_out):
        raise InputError(f"{path} holds no benchmarks at all", HOW_TO_MEASURE)
    return RunFile(path, digest, RunInfo.of(content, path), measured, broken, left_out)


def _unpacked(raw: bytes, path: Path) -> bytes:
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error):
        raise InputError(f"{path} is a damaged gzip file", f"copy it again, or {HOW_TO_MEASURE}") from None


def _read_json(path: Path) -> tuple[dict[str, Any], str]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", HOW_TO_MEASURE) from None
    except IsADirectoryError:
        raise InputError(f"{path} is a directory", "give the JSON files of the runs one by one") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if raw.startswith(GZIP):
        raw = _unpacked(raw, path)
    try:
        text = raw.decode("utf-8-sig")
        content = json.loads(text)
    except json.JSONDecodeError as error:
        cut_off = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        what = "is cut off in the middle of its JSON" if text.strip() and cut_off else "is not JSON"
        raise InputError(f"{path} {what} (line {error.lineno})", HOW_TO_MEASURE) from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not JSON", HOW_TO_MEASURE) from None
    if not isinstance(content, dict) or not isinstance(content.get("benchmarks"), list):
        raise InputError(
            f"{path} has no list 'benchmarks', so pytest-benchmark did not write it", HOW_TO_MEASURE
        )
    return content, hashlib.sha256(raw).hexdigest()


def _benchmarks(content: Mapping[str, Any], path: Path) -> tuple[list[Measured], list[NotMeasured]]:
    """The benchmarks with sound times, and those with times that no clock can give."""
    measured: list[Measured] = []
    broken: list[NotMeasured] = []
    for index, benchmark in enumerate(content["benchmarks"]):
        name = benchmark.get("name", index) if isinstance(benchmark, dict) else index
        where = f"{path}: benchmark {name!r}"
        fields = _fields(benchmark, where)
        found = Measured(fields, *_times(benchmark, where))
        if found.seconds.size and np.isfinite(found.seconds).all() and (found.seconds > 0).all():
            measured.append(found)
        else:
            broken.append(NotMeasured(fields, "failed", "its times are not all positive numbers"))
    return measured, broken


def _fields(benchmark: Any, where: str) -> Fields:
    info = benchmark.get("extra_info") if isinstance(benchmark, dict) else None
    info = info if isinstance(info, dict) else {}
    require(info, ("schema",), where)
    if not is_integer(info["schema"]) or info["schema"] < 1:
        raise InputError(f"{where} has schema {info['schema']!r}, which is no version number", HOW_TO_MEASURE)
    if info["schema"] > SCHEMA:
        raise InputError(
            f"{where} has schema {info['schema']}, but schema {SCHEMA} is the newest understood here",
            "update this project, or measure again with this version",
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
        raise InputError(f"{where} has no times in its 'stats'", HOW_TO_MEASURE)
    has_rounds = isinstance(stats.get("data"), list) and bool(stats["data"])
    names = ("min", "q1", "median", "q3", "max")
    five = [stats[name] for name in names] if all(name in stats for name in names) else [stats.get("median")]
    values = stats["data"] if has_rounds else five
    seconds = np.array(
        [value if isinstance(value, int | float) else math.nan for value in values], dtype=float
    )
    rounds = len(values) if has_rounds else stats.get("rounds")
    return seconds, rounds if is_integer(rounds) else 1, has_rounds


def _left_out(content: Mapping[str, Any], path: Path) -> Iterator[NotMeasured]:
    entries = content.get("not_measured") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path}: 'not_measured' is no list of cases", HOW_TO_MEASURE)
    for index, entry in enumerate(entries):
        where = f"{path}: not_measured case {index}"
        require(entry, LEFT_OUT, where)
        if entry["outcome"] not in OUTCOMES:
            wanted = ", ".join(OUTCOMES)
            raise InputError(f"{where} has outcome {entry['outcome']!r}, but one of {wanted} is needed")
        yield NotMeasured(checked(entry, where, LEFT_OUT), entry["outcome"], entry["reason"])
