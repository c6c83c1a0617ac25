"""Files that one living process holds at a time; what a dead one held is free."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from benchmarks.analysis.output import PROVISIONAL
from benchmarks.analysis.reading.fields import InputError

try:
    import fcntl
except ImportError:  # Windows: nobody is kept out there
    fcntl = None  # type: ignore[assignment]

# A process that was killed holds its files until the system has cleared it away.
PATIENCE_S = 3.0
LOCK = ".attention-lock"
"""The file of a folder by which it is held."""


def holder() -> dict[str, Any]:
    """This process, as the first line of a file that it holds names it."""
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"pid": os.getpid(), "command": " ".join(sys.argv), "since": since}


def hold(path: Path, what: str, *, patience_s: float = PATIENCE_S) -> IO[str]:
    """Open a file, made where it is missing, and hold it until it is closed or this process ends.

    Args:
        path: The file. Its content stays; its first line is the JSON of `holder()`.
        what: The held thing in the words of a refusal, as in "the folder runs".
        patience_s: Seconds to wait for a process that holds the file and may be ending.

    Raises:
        InputError: Another process holds the file; the sentence names it.
        OSError: The file cannot be opened for writing.
    """
    until = time.monotonic() + patience_s
    while True:
        file = path.open("a+", encoding="utf-8")
        if _locked(file):
            # Whoever held it before may have removed it: then what was opened is no longer what is there.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        elif time.monotonic() >= until:
            with file:
                raise InputError(f"{what} is in use by {_named(file)}", "wait for it, or name another place")
        else:
            time.sleep(0.05)
        file.close()


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Hold a folder, made where it is missing, while a command fills it; if it stays empty it goes again.

    Raises:
        InputError: Another process fills it, or it cannot be written.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / LOCK).is_symlink():
            raise InputError(
                f"{folder / LOCK} is a link to another file", "remove it, or name another folder"
            )
        file = hold(folder / LOCK, f"the folder {folder}")
        file.truncate(0)
        file.write(json.dumps(holder()) + "\n")
        file.flush()
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be written ({error.strerror})", "name another one with -o"
        ) from None
    with file:
        for left in folder.glob(f"{PROVISIONAL}*"):  # by a process that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
        try:
            yield
        finally:
            with suppress(OSError):  # it is gone, or it holds what it was made for
                (folder / LOCK).unlink(missing_ok=True)
                if made:
                    folder.rmdir()


def _locked(file: IO[str]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _named(file: IO[str]) -> str:
    file.seek(0)
    try:
        told = json.loads(file.readline())
        return f"process {told['pid']} ({told['command']}, since {told['since']})"
    except (ValueError, TypeError, KeyError):
        return "another process"
