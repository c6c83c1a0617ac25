"""The ends of a session of ranks: none of them hides why, or loses what was measured."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import NoReturn

import pytest

from benchmarks.console import OUR_FAULT
from benchmarks.distributed.book import Book
from benchmarks.distributed.cases import RankedCase
from benchmarks.distributed.measuring import Measured
from benchmarks.distributed.watching import Limits

CASE = RankedCase("linear-sequence-parallel", "causal", 64, ranks=2)
Patch = pytest.MonkeyPatch


@pytest.fixture
def codes(monkeypatch: Patch) -> list[int]:
    """The exit codes of this process, which does not end."""
    found: list[int] = []

    def leave(code: int) -> NoReturn:
        found.append(code)
        raise SystemExit

    monkeypatch.setattr("os._exit", leave)
    return found


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_end_at_a_limit_tells_which_rank_failed_and_why(codes: list[int]) -> None:
    told: list[str] = []

    def ending(sentence: str) -> int:
        told.append(sentence)
        return 1

    with Limits(ending, lambda: "rank 1 failed (oom: no room)") as limits:
        limits.begin(0.0)
        while not codes:
            time.sleep(0.01)
    assert told == ["rank 1 failed (oom: no room); the ranks did not come to its end within 0 s"]
    assert codes == [1]


def test_an_end_that_fails_is_told_as_a_fault(codes: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    def ending(sentence: str) -> int:
        raise KeyError(sentence)

    with pytest.raises(SystemExit):
        Limits(ending, lambda: None).finish("a rank was lost")
    assert codes == [OUR_FAULT]
    error = capsys.readouterr().err
    assert error.startswith("error: KeyError: 'a rank was lost'; this is a fault") and error.count("\n") == 1


def book(folder: Path, told: list[str]) -> Book:
    return Book(folder / "ranks-2-001.json", {"seed": 1, "clock": "wall"}, "gloo", "cpu", told.append)


def without_times(file: Path) -> tuple[object, object]:
    document = json.loads(file.read_text())
    return document["benchmarks"], document["run"]["ended"]


def test_a_book_that_cannot_be_written_goes_elsewhere_whole(tmp_path: Path, monkeypatch: Patch) -> None:
    gone, kept, room = (tmp_path / name for name in ("gone", "kept", "room"))
    for folder in (gone, kept, room):
        folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(room))
    told: list[str] = []
    books = [book(folder, told) for folder in (gone, kept)]
    for one in books:
        one.begin(CASE, 1)
    shutil.rmtree(gone)
    gone.write_text("in its place")
    for one in books:
        one.add(CASE, 1, Measured([0.1, 0.2, 0.3], {}))
        one.begin(CASE, 2)
    assert len(told) == 1 and "the session goes on" in told[0]
    assert [one.finish() for one in books] == [False, True]
    lost, whole = books
    assert lost.file is not None and lost.file.parent == room and whole.file is not None
    assert without_times(lost.file) == without_times(whole.file)
    assert len(told) == 2
    assert told[1].startswith(f"The run cannot be written to {gone / 'ranks-2-001.json'} (")
    assert told[1].endswith(f"so it is in {lost.file}.")
