"""The JSON of a run: its place is tried before anything is measured, and it is written whole or not."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.cache import replacing

FINISHED, INTERRUPTED, KILLED = "finished", "interrupted", "killed"
"""How a run ended, as `run.ended` of its file says."""
MOST_NAME = 220
"""Bytes of a file's name that leave room for the endings of the files beside it."""
UNFINISHED = "unfinished"
"""The word in the names of files of runs that were cut short."""


def try_target(path: Path) -> None:
    """See that a file can be written here.

    Raises:
        OSError: It cannot; the text says why, also where the path names something other than a file.
    """
    path = path.resolve()
    if not path.parent.is_dir():
        raise NotADirectoryError(f"there is no folder {path.parent}")
    if path.exists() and not path.is_file():
        raise IsADirectoryError(f"{path} is no file but a {'folder' if path.is_dir() else 'device or pipe'}")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"{path} is write-protected")
    if len(os.fsencode(path.name)) > MOST_NAME:
        raise OSError(f"the name {path.name[:20]}... is longer than {MOST_NAME} bytes")
    try:
        with tempfile.TemporaryFile(dir=path.parent) as trial:
            trial.write(bytes(2**16))
            trial.flush()
    except OSError as error:
        raise type(error)(f"the folder {path.parent} cannot be written: {error.strerror}") from None


def place(document: Mapping[str, Any], path: Path) -> Path:
    """Write the document of a run, but never in the place of more.

    A run that was cut short, or measured nothing, replaces neither a finished one nor one that holds cases
    which it lacks. A finished run replaces any; one that was cut short and holds other cases is kept beside.

    Returns:
        Where the document is: `path`, or beside it.

    Raises:
        OSError: It cannot be written.
    """
    path = path.resolve()
    older = _read(path)
    if older is not None:
        if older["benchmarks"] == document["benchmarks"]:  # the process ended after it had written them
            return path
        lacks = bool(measured(older) - measured(document))
        if ended(document) != FINISHED or not measured(document):
            if lacks or ended(older) == FINISHED:
                path = beside(path)
        elif lacks and ended(older) != FINISHED:
            path.replace(beside(path))
    write(document, path)
    return path


def write(document: Mapping[str, Any], path: Path) -> None:
    """Write a JSON file under a provisional name, and give it its own when it is complete.

    Raises:
        OSError: It cannot be written.
    """
    with replacing(path) as provisional:
        provisional.write_text(json.dumps(document, indent=4, default=_odd), encoding="utf-8")


def write_elsewhere(document: Mapping[str, Any], name: str) -> Path | None:
    """Write a JSON file wherever there is room: the folder of temporary files, the home, the working folder.

    Returns:
        The file, or None where no place has room.
    """
    for folder in (tempfile.gettempdir, Path.home, Path.cwd):
        with suppress(OSError, RuntimeError):  # no room, no home, a folder that is gone
            path = beside(Path(folder(), name))
            write(document, path)
            return path
    return None


def rescue(
    document: Mapping[str, Any], path: Path, error: OSError, otherwise: str = ""
) -> tuple[Path | None, str]:
    """Write elsewhere what cannot be written where it was asked for.

    Args:
        document: The run.
        path: Where it was asked for.
        error: Why it cannot be written there.
        otherwise: The end of the sentence where no place has room.

    Returns:
        Where it is, if anywhere, and the sentence that says so.
    """
    found = write_elsewhere(document, path.name)
    where = f"so it is in {found}" if found else f"nor elsewhere{otherwise}"
    return found, f"The run cannot be written to {path} ({error.strerror}), {where}."


def beside(path: Path, word: str = UNFINISHED) -> Path:
    """A name beside a file that is free: out.unfinished.json, out.unfinished-2.json, ..."""
    stem, dot, ending = path.name.partition(".json")
    number, free = 1, path.with_name(f"{stem}.{word}{dot}{ending}")
    while free.exists():
        number += 1
        free = path.with_name(f"{stem}.{word}-{number}{dot}{ending}")
    return free


def ended(document: Mapping[str, Any]) -> str:
    """How the run of a document ended; files that do not tell hold finished runs."""
    run = document.get("run")
    return str(run.get("ended", FINISHED)) if isinstance(run, dict) else FINISHED


def measured(document: Mapping[str, Any]) -> set[str]:
    """The names of the benchmarks of a document."""
    benchmarks: Sequence[Any] = document["benchmarks"]
    return {str(one.get("fullname")) for one in benchmarks if isinstance(one, dict)}


def _read(path: Path) -> dict[str, Any] | None:
    """The document at a path, if there is one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("benchmarks"), list) else None


def _odd(value: object) -> str:
    """What JSON does not know, in pytest-benchmark's words."""
    return f"UNSERIALIZABLE[{value!r}]"
