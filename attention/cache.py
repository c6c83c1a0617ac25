"""The folder that keeps what one process makes for the next, and how a file gets there complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/attention-scaling``, by default below ``~/.cache``; it need not exist.

    A relative path in the variable is ignored, as its specification asks: it would name another folder in
    each working directory.

    Raises:
        FileNotFoundError: there is neither the variable nor a home.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else _home() / ".cache") / "attention-scaling"


def _home() -> Path:
    """The home folder of the user, by ``$HOME`` or else by the system's list of users."""
    home = Path(os.environ.get("HOME", ""))
    if not home.is_absolute():
        try:
            import pwd

            home = Path(pwd.getpwuid(os.getuid()).pw_dir)
        except ImportError:  # Windows
            home = Path.home()
        except KeyError:
            home = Path()
    if not home.is_absolute():
        raise FileNotFoundError("there is no home folder; name a cache folder with XDG_CACHE_HOME")
    return home


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A provisional path beside a file, which takes the file's place when the block ends well.

    Others may read or write the same file meanwhile: they find the old one or a new one, each complete.

    Raises:
        OSError: the folder of the file cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield folder / path.name
        (folder / path.name).replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the file is in its place by then
