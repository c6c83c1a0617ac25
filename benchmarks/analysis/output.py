"""The files of a conclusion: written complete or not at all, in a folder that was tried before the work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.analysis.document import Section
from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.reading.texts import printable

PROVISIONAL = ".provisional-"
"""How the name of a folder begins whose files are not yet in their places."""
A_LITTLE = b"\0" * 2**16
"""As much as a folder must have room for before anything is concluded."""


def try_folder(folder: Path, what: str) -> None:
    """Refuse a folder that nothing can be written to; it is left as it is, also if it does not exist.

    Args:
        folder: Where files are to be written.
        what: What they are, as in "report".

    Raises:
        InputError: It cannot be made or written.
    """
    if "\0" in str(folder):
        raise InputError(f"{folder} is no name of a folder; name another one with -o")
    with _told(folder, what):
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        try:
            with _provisional(folder) as place:
                (place / "try").write_bytes(A_LITTLE)
        finally:
            for one in missing:
                with suppress(OSError):
                    one.rmdir()


@contextmanager
def replacing_files(folder: Path, what: str) -> Iterator[Path]:
    """A provisional folder, whose files take their places in a folder when the block ends well.

    Whatever else happens, the files that the folder held before stay as they are.

    Args:
        folder: Where the files belong; made if it does not exist.
        what: What they are, as in "report".

    Raises:
        InputError: The folder cannot be made, or what is written does not fit.
    """
    with _told(folder, what), _provisional(folder) as place:
        yield place
        files = sorted(place.iterdir())
        for file in files:
            if (folder / file.name).is_dir():
                raise IsADirectoryError(None, f"{file.name} is a directory in it")
        for file in files:
            file.replace(folder / file.name)


def written_section(files: Sequence[Path]) -> Section:
    """The section that names the files written, which are in one folder."""
    folder, names = printable(str(files[0].parent)), ", ".join(printable(file.name) for file in files)
    return Section("Written", [f"In {folder}: {names}."])


@contextmanager
def _told(folder: Path, what: str) -> Iterator[None]:
    """An error of the system in the words of this suite."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"the {what} cannot be written to {folder} ({error.strerror}); name another folder with -o"
        ) from None


@contextmanager
def _provisional(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=PROVISIONAL, dir=folder) as place:
        yield Path(place)
