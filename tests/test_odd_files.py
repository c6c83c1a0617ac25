"""Files that are no runs, or none that anybody wrote by measuring: each is told in a sentence."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.analysis.history.storage import read_storage
from benchmarks.analysis.reading import json_file
from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.reading.run_file import read_run
from tests.hostile import Content, sound, undrawn, write

Capture = pytest.CaptureFixture[str]
ONLY_ON_UNIX = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names")


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def linked(path: Path) -> Path:
    path.symlink_to(pipe(path.with_name("pipe")))
    return path


def endless(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


@ONLY_ON_UNIX
@pytest.mark.parametrize("make", [pipe, linked, endless])
def test_what_is_no_file_is_refused_without_being_opened(
    make: Callable[[Path], Path], tmp_path: Path, capsys: Capture
) -> None:
    path = make(tmp_path / "out.json")
    assert main(["report", str(path), "-o", str(tmp_path / "report")]) == 2
    error = capsys.readouterr().err
    assert f"{path} is no regular file" in error and error.count("\n") == 1
    assert not (tmp_path / "report").exists()


@ONLY_ON_UNIX
def test_a_history_names_what_is_no_file_in_its_storage(tmp_path: Path) -> None:
    write(tmp_path / "run.json", sound(0))
    for place in ("a", "b", "c"):
        (tmp_path / place).mkdir()
    odd = [pipe(tmp_path / "a/a.json"), linked(tmp_path / "b/b.json.gz"), endless(tmp_path / "c/c.json")]
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.json").mkdir()
    runs, left_out = read_storage(tmp_path)
    assert len(runs) == 1
    assert sorted(left_out) == sorted(
        [f"{path} is no regular file" for path in odd] + [f"{tmp_path / 'gone.json'}: no such file"]
    )


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_larger_than_any_run_is_refused_unread(
    packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_file, "MOST_BYTES", 2**20)
    content = b" " * 2**21
    path = tmp_path / "out.json"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(InputError, match="holds more than 1 MiB"):
        read_run(path)


def test_a_name_that_no_file_can_have_is_told_as_missing() -> None:
    with pytest.raises(InputError, match=r"a\\x00b\.json: no such file"):
        read_run(Path("a\0b.json"))


def test_lists_nested_without_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text('{"benchmarks": ' + "[" * 10**5 + "]" * 10**5 + "}")
    with pytest.raises(InputError, match="so deeply is it nested"):
        read_run(path)


def test_a_byte_order_mark_and_the_last_of_equal_names_are_read_as_json_is(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    text = json.dumps(sound(0))
    path.write_text('{"benchmarks": 3, ' + text[1:], encoding="utf-8-sig")
    assert len(load([path]).rows) == len(sound(0)["benchmarks"])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_another_encoding_than_that_of_json_is_refused(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_bytes(json.dumps({**sound(0), "µ": "é"}, ensure_ascii=False).encode(encoding))
    with pytest.raises(InputError, match="is not JSON"):
        read_run(path)


ODD_PLACES = ("run", "machine_info", "commit_info", "datetime", "version", "not_measured")
ODD_VALUES: tuple[Any, ...] = (None, True, 0, -0.0, "", "x\x00", [], [1], {}, {"": None}, [[["deep"]]])


@pytest.mark.parametrize("place", ODD_PLACES)
def test_whatever_a_run_says_of_itself_its_records_are_read(place: str, tmp_path: Path) -> None:
    for index, value in enumerate(ODD_VALUES):
        content: Content = {**sound(0), place: value}
        records = load([write(tmp_path / f"{index}.json", content)])
        assert len(records.rows) == len(content["benchmarks"])
        assert len(records.runs) == 1


@pytest.mark.parametrize("place", ["cpu", "devices"])
def test_a_machine_that_tells_nothing_sound_is_an_unknown_one(place: str, tmp_path: Path) -> None:
    for index, value in enumerate(ODD_VALUES):
        content = sound(0)
        content["machine_info"][place] = value
        content["run"] = {"threads": 10**400, "driver": float("nan"), "torch": [1]}
        (run,) = load([write(tmp_path / f"{index}.json", content)]).runs
        assert "nan" not in run.machine.fingerprint and "inf" not in run.machine.fingerprint


@pytest.mark.parametrize(
    "when",
    ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2025-02-30", "", "now", "2025-01-01T24:00Z"],
)
def test_odd_times_of_runs_and_commits_order_a_history_all_the_same(
    when: str, tmp_path: Path, capsys: Capture
) -> None:
    for number in range(3):
        content = sound(number)
        if number == 1:
            content["commit_info"] |= {"time": when, "author_time": when}
            content["datetime"] = when
        write(tmp_path / f"{number}.json", content)
    with undrawn():
        assert main(["history", str(tmp_path), "-o", str(tmp_path / "out")]) in (0, 1)
        files = [str(tmp_path / f"{number}.json") for number in (0, 1, 1, 2)]
        (tmp_path / "1.json").rename(tmp_path / "one.json")
        files[1:3] = [str(tmp_path / "one.json")]
        words = ["compare", files[0], files[1], "--against", files[2], "-o", str(tmp_path / "out")]
        assert main(words) in (0, 1)
