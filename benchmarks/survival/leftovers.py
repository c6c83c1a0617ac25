"""Files of runs in a folder: which are complete, and what becomes of those that are not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.reading.run_file import read_run
from benchmarks.survival.journal import SUFFIX, recover, target_of
from benchmarks.survival.writing import FINISHED, UNFINISHED, beside

RUN = re.compile(r"[a-z]+-\d+\.json(\.gz)?")
"""Names of the files of whole runs: run-001.json, base-01.json."""
DAMAGED = "damaged"


def complete(file: Path) -> bool:
    """Whether a file holds a run that was measured to its end.

    Raises:
        InputError: There is a file, but no run can be read from it.
    """
    return file.exists() and read_run(file).run.facts.get("ended", FINISHED) == FINISHED


def set_aside(file: Path, word: str) -> Path:
    """Give a file a free name with this word, beside its own."""
    moved = beside(file, word)
    file.replace(moved)
    return moved


def set_in_order(folder: Path, say: Callable[[str], None]) -> None:
    """Turn the journals of dead processes into JSON, and move what is no complete run out of the way.

    Nothing is removed: a run that was cut short can be reported by its new name.

    Args:
        folder: The folder of the runs.
        say: Takes a line for each file that was moved.

    Raises:
        InputError: A journal belongs to a process that still measures.
    """
    for journal in sorted(folder.glob(f"*{SUFFIX}")):
        if RUN.fullmatch(target_of(journal).name):
            recover(journal)
    for file in sorted(folder.glob("*.json*")):
        if RUN.fullmatch(file.name):
            _check(file, say)


def _check(file: Path, say: Callable[[str], None]) -> None:
    try:
        if complete(file):
            return
        word, what = UNFINISHED, "was cut short"
    except InputError:
        word, what = DAMAGED, "is damaged"
    say(f"{file} {what}: it is {set_aside(file, word).name} now.")
