"""A run's journal: each case is in a file beside the target as soon as it is finished.

A line is a JSON object. The first names the process and holds everything but the cases. Then one says that a
case begins (`begins`), and the next how it ended: `benchmark`, as it stands in the run's file, or null;
`left_out`, the row of a case without times, or null; and `readings` of the machine's sensors meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from benchmarks.analysis.reading.fields import InputError
from benchmarks.survival.locks import hold, holder
from benchmarks.survival.writing import KILLED, place

SUFFIX = ".journal"
NOT_REACHED = "not reached before the run was interrupted"
DIED = "the process ended while it measured this case: killed, out of memory, or a crash"
VERSION = 1
MOST_HEAD, MOST_BYTES = 2**26, 2**28
"""Bytes that are read of a journal's first line, and of all of it."""


class Journal:
    """The journal of a run that is being measured.

    Attributes:
        path: Its file; None where nothing is to be written, or another process keeps the journal.
        trouble: Why it could not be written, if so.
    """

    def __init__(self, to: IO[str] | None = None) -> None:
        """Nothing is written yet; entries go `to` the process that keeps the journal, if there is one."""
        self.path: Path | None = None
        self.trouble: str | None = None
        self._file = to

    def open(self, path: Path, document: Mapping[str, Any], cases: Mapping[str, Mapping[str, Any]]) -> None:
        """Begin a journal that no other process holds.

        Args:
            path: Its file.
            document: What the run's file will hold, without its cases.
            cases: The fields of every case asked for, by its key.

        Raises:
            InputError: Another process holds the journal, or it cannot be written.
        """
        if path.exists() and not is_journal(path):
            raise InputError(f"{path} is in the way of the run's journal", "move it to another place")
        try:
            self._file = hold(path, str(target_of(path)))
            self._file.truncate(0)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from None
        self.path = path
        head = {**holder(), "version": VERSION, "document": document, "cases": cases}
        self.append(head)
        if self.trouble:
            raise InputError(self.trouble)

    def append(self, *entries: Mapping[str, Any]) -> None:
        """Write entries down at once.

        Where that fails, as on a full disk, `trouble` says why, and the run goes on.
        """
        if self._file is None:
            return
        text = "".join(json.dumps(entry, default=repr) + "\n" for entry in entries)
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            self.trouble = f"the journal {self.path} cannot be written ({error.strerror})"
            with suppress(OSError):
                self._file.close()
            self._file = None

    def remove(self) -> None:
        """Remove the journal of a run whose file is written."""
        if self._file is not None and self.path is not None:
            self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None


def journal_of(target: Path) -> Path:
    """The journal of the run that is written to a target."""
    target = target.resolve()
    return target.with_name(target.name + SUFFIX)


def target_of(journal: Path) -> Path:
    """The target of a journal."""
    return journal.with_name(journal.name.removesuffix(SUFFIX))


def recover(journal: Path) -> Path | None:
    """Turn the journal of a process that is gone into the JSON of its run, and remove it.

    Returns:
        The JSON file; None where there is no journal, or none with a finished case.

    Raises:
        InputError: The process still measures, the file is no journal of this suite, or the JSON cannot be
            written.
    """
    if not is_journal(journal):
        return None
    try:
        with hold(journal, str(target_of(journal))) as file:
            document = document_of(_lines(journal))
            found = place(document, target_of(journal)) if document else None
            journal.unlink()
            file.close()
    except OSError as error:
        raise InputError(f"{journal} cannot be turned into JSON: {error.strerror}") from None
    return found


def is_journal(path: Path) -> bool:
    """Whether a file is a journal of this suite: by its first line, or empty, as one that was just begun."""
    if not path.name.endswith(SUFFIX) or not path.is_file():
        return False
    head = next(_objects(_lines(path, MOST_HEAD)), {})
    return path.stat().st_size == 0 or (head.get("version") == VERSION and "document" in head)


def _lines(path: Path, most: int = MOST_BYTES) -> list[str]:
    """The lines of a file, up to so many bytes of it."""
    with path.open("rb") as file:
        return file.read(most).decode(errors="replace").splitlines()


def recovered(file: Path, say: Callable[[str], None]) -> Path:
    """The file of a run, after the journal of a run that was killed is turned into JSON.

    Args:
        file: A run's file, or its journal.
        say: Takes a sentence about what was recovered.

    Returns:
        The file that was asked for, which need not exist.

    Raises:
        InputError: There is no such file yet, because a process still measures it.
    """
    target = target_of(file) if is_journal(file) else file
    try:
        found = recover(journal_of(target))
    except InputError as error:
        if target.exists():
            say(f"{error}; {target} is what was there before.")
            return target
        raise
    if found:
        say(f"{target} was cut short by a kill; what it had measured is in {found}.")
    return target


def document_of(lines: Iterable[str]) -> dict[str, Any] | None:
    """The document of a run that was cut short, from the lines of its journal.

    None where the journal holds no finished case. Lines that are cut off or damaged are left out.
    """
    head, *entries = [*_objects(lines)] or [{}]
    cases, document = _object(head.get("cases")), _object(head.get("document"))
    benchmarks: list[dict[str, Any]] = []
    left_out: dict[str, dict[str, Any]] = {}
    readings: list[Any] = []
    begun: Any = None
    for entry in entries:
        begun = entry.get("begins")
        if benchmark := _object(entry.get("benchmark")):
            benchmarks.append(benchmark)
        if row := _object(entry.get("left_out")):
            left_out[str(row.get("key"))] = row
        if isinstance(entry.get("readings"), list):
            readings += entry["readings"]
    if not benchmarks and not left_out:
        return None
    done = {str(_object(one.get("extra_info")).get("key")) for one in benchmarks} | left_out.keys()
    for key, fields in cases.items():
        if key not in done or key == begun:
            reason = DIED if key == begun else NOT_REACHED
            left_out.setdefault(key, {**_object(fields), "outcome": "failed", "reason": reason})
    run = {**_object(document.get("run")), "conditions": readings, "ended": KILLED}
    return {**document, "benchmarks": benchmarks, "run": run, "not_measured": list(left_out.values())}


def _objects(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, dict):
                yield value


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
