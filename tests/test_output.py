"""Outputs are written complete or not at all, in a folder that is tried before the work."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from benchmarks.__main__ import main
from benchmarks.analysis import output
from benchmarks.analysis.output import replacing_files, try_folder
from benchmarks.analysis.plots.saving import save_pictures
from benchmarks.analysis.reading.fields import InputError
from tests.hostile import sound, write

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
COMMANDS = ("report", "compare", "history")
JSON = {"report": "summary.json", "compare": "comparison.json", "history": "history.json"}


def words_of(command: str, folder: Path) -> Sequence[str]:
    storage = folder / "storage"
    storage.mkdir(exist_ok=True)
    one, two = (str(write(storage / f"{number}.json", sound(number))) for number in (0, 1))
    return {
        "report": ["report", one],
        "compare": ["compare", one, "--against", two],
        "history": ["history", str(storage)],
    }[command]


def held(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, hidden files included."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def full_disk(*_: object, **__: object) -> int:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("broken", ["savefig", "write_text"])
def test_a_disk_that_fills_up_leaves_the_files_of_before_as_they_were(
    command: str, broken: str, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    words, out = words_of(command, tmp_path), tmp_path / "out"
    out.mkdir()
    for name in (JSON[command], "summary.md", "complexity_scaling.png", "comparison.png", "history.png"):
        (out / name).write_text("of before")
    before = held(out)

    def half(path: Path, text: str, **_: object) -> int:
        if path.name != JSON[command]:
            return path.write_bytes(text.encode())
        path.write_bytes(text[:10].encode())
        return full_disk()

    if broken == "savefig":
        monkeypatch.setattr(Figure, "savefig", full_disk)
    else:
        monkeypatch.setattr(Path, "write_text", half)
        monkeypatch.setattr(Figure, "savefig", lambda _, path, **__: path.write_bytes(b"picture"))
    assert main([*words, "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert f"cannot be written to {out} (No space left on device)" in error and error.count("\n") == 1
    assert held(out) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unwritable_target_is_told_before_anything_is_read(
    command: str, tmp_path: Path, capsys: Capture
) -> None:
    words, file = list(words_of(command, tmp_path)), tmp_path / "file"
    file.write_text("")
    words[1] = str(tmp_path / "missing")
    for target in (file, file / "below", Path("/proc/nothing"), tmp_path / ("x" * 300)):
        assert main([*words, "-o", str(target)]) == 2
        told = capsys.readouterr().err
        assert "cannot be written to" in told and "another folder with -o" in told
    assert file.read_text() == ""


def test_a_folder_is_tried_without_a_trace(tmp_path: Path) -> None:
    try_folder(tmp_path / "a" / "b", "report")
    (tmp_path / "kept").mkdir()
    try_folder(tmp_path / "kept", "report")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"] and not held(tmp_path / "kept")
    with pytest.raises(InputError, match="no name of a folder"):
        try_folder(tmp_path / "a\0b", "report")


def test_a_full_disk_is_found_out_when_the_folder_is_tried(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(InputError, match="No space left"):
        try_folder(tmp_path / "a", "report")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_whatever_ends_the_writing_no_file_is_replaced(error: type[BaseException], tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(error), replacing_files(tmp_path, "report") as place:
        (place / "a").write_text("new")
        raise error
    assert held(tmp_path) == {"a": b"old"}
    with replacing_files(tmp_path, "report") as place:
        (place / "a").write_text("new")
    assert held(tmp_path) == {"a": b"new"}


def test_a_folder_in_the_place_of_a_file_costs_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").mkdir()
    with (
        pytest.raises(InputError, match="b is a directory in it"),
        replacing_files(tmp_path, "report") as place,
    ):
        for name in ("a", "b"):
            (place / name).write_text("new")
    assert (tmp_path / "a").read_text() == "old" and output.A_LITTLE


def fails() -> Figure:
    raise ZeroDivisionError


def test_a_picture_that_fails_costs_that_picture_only(tmp_path: Path) -> None:
    drawings: dict[str, Callable[[], Figure | None]] = {
        "good.png": Figure, "bad.png": fails, "none.png": lambda: None, "last.png": Figure
    }  # fmt: skip
    written, failed = save_pictures(drawings, tmp_path)
    assert written == ["good.png", "last.png"] == sorted(held(tmp_path), reverse=False)[:2]
    assert failed == ["bad.png could not be drawn (ZeroDivisionError)"]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_names_the_picture_that_failed_and_ends_well(
    command: str, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    words, out = words_of(command, tmp_path), tmp_path / "out"
    monkeypatch.setattr(Figure, "savefig", fail)
    assert main([*words, "-o", str(out)]) in (0, 1)
    picture = {"report": "roofline", "compare": "comparison", "history": "history"}[command]
    sentence = f"{picture}.png could not be drawn (ZeroDivisionError)."
    assert sentence in " ".join(capsys.readouterr().out.split())
    assert sentence.rstrip(".") in json.dumps(json.loads((out / JSON[command]).read_text()))
    assert not list(out.glob("*.png"))
