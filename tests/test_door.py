"""The one door of every command line: exit codes, one sentence, and outputs that nobody can take."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks import commands
from benchmarks.__main__ import main
from benchmarks.console import DEBUG
from tests.hostile import sound, undrawn, write

ROOT = Path(__file__).parents[1]
Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def fail(monkeypatch: Patch, error: BaseException) -> None:
    def raising(*_: object) -> int:
        raise error

    monkeypatch.setattr(commands, "write_report", raising)


def start(
    *words: str | Path, stdout: int | None = subprocess.PIPE, **environment: str
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks", *map(str, words)]
    variables: Mapping[str, str] = {**os.environ, **environment}
    return subprocess.Popen(
        command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, env=variables
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("mode"), "KeyError: 'mode'"),
        (RecursionError("deep"), "RecursionError: deep"),
        (MemoryError(), "MemoryError"),
        (UnspeakableError(), "UnspeakableError"),
        (ValueError("\x1b[31m\u202e\n"), "ValueError: \\x1b[31m\\u202e"),
    ],
)
def test_a_fault_of_this_suite_is_one_sentence_and_exit_3(
    error: Exception, words: str, monkeypatch: Patch, capsys: Capture
) -> None:
    monkeypatch.delenv(DEBUG, raising=False)
    fail(monkeypatch, error)
    assert main(["report", "x.json"]) == 3
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {words}") and told.err.count("\n") == 1 and not told.out
    assert "fault of this suite" in told.err and DEBUG in told.err and "Traceback" not in told.err


def test_a_variable_shows_where_a_fault_is(monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setenv(DEBUG, "1")
    fail(monkeypatch, KeyError("mode"))
    assert main(["report", "x.json"]) == 3
    told = capsys.readouterr().err
    assert "Traceback" in told and "in raising" in told and told.splitlines()[-1].startswith("error: ")


def test_a_missing_package_is_named_with_how_to_install_it(monkeypatch: Patch, capsys: Capture) -> None:
    fail(monkeypatch, ModuleNotFoundError("No module named 'pandas'"))
    assert main(["report", "x.json"]) == 2
    assert "'pandas'" in (told := capsys.readouterr().err) and "pip install" in told


def test_an_interrupted_command_says_so(monkeypatch: Patch, capsys: Capture) -> None:
    fail(monkeypatch, KeyboardInterrupt())
    assert main(["report", "x.json"]) == 130
    assert capsys.readouterr().err.startswith("interrupted")


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--clock=--"],
        ["run", "--runs=--"],
        ["run", "-o--"],
        ["run", "--runs", "0"],
        ["run", "--runs", "9" * 5000],
        ["run", "--runs", "²"],
        ["run", "--time-limit", "9" * 400],
        ["run", "--time-limit=-1"],
        ["run", "--until", "nan"],
        ["run", "-o", ""],
        ["report"],
        ["report", "x.json", "--output=--"],
        ["report", "x.json", "-o", ""],
        ["report", "x.json", "--nix\x1b[31m"],
        ["compare", "x.json"],
        ["compare", "x.json", "--against"],
        ["compare", "x.json", "--against", "y.json", "--margin", "1e400"],
        ["compare", "x.json", "--against", "y.json", "--format", "\x1b[31m"],
        ["compare", "--rev", "HEAD", "--rev", "HEAD", "--pairs=--"],
        ["compare", "--rev", "HEAD", "--rev", "HEAD", "--pairs", "1e3"],
        ["history", ""],
        ["history", ".", "--margin", "%"],
        ["histor\u202ey"],
    ],
)
def test_odd_values_of_options_are_wrong_usage_told_in_a_sentence(
    words: Sequence[str], capsys: Capture
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(words)
    *usage, error = capsys.readouterr().err.splitlines()
    assert leaving.value.code == 2 and usage[0].startswith("usage: ")
    assert error.startswith("python -m benchmarks") and error.isprintable()


@pytest.mark.parametrize("command", ["report", "run", "compare", "history"])
def test_the_help_of_each_command_tells_all_exit_codes(command: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"{code} " in text.partition("exit codes:")[2] for code in range(4))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full, as Linux has")
@pytest.mark.parametrize("words", [pytest.param(["--help"], marks=pytest.mark.slow), ["report", "--help"]])
def test_a_full_standard_output_is_a_sentence(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        process = start(*words, stdout=full.fileno())
        _, error = process.communicate()
    assert process.returncode == 2
    assert error.startswith("error: the standard output cannot be written") and error.count("\n") == 1


@pytest.mark.slow
def test_a_reader_who_leaves_early_ends_nothing_and_hears_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "out.json", sound(0))
    read, written = os.pipe()
    os.close(read)
    process = start("report", path, "-o", tmp_path / "report", stdout=written)
    os.close(written)
    _, error = process.communicate()
    assert (process.returncode, error) == (0, "")
    assert (tmp_path / "report" / "summary.md").exists()


@pytest.mark.parametrize(
    "backend",
    ["module://matplotlib_inline.backend_inline", pytest.param("nonsense", marks=pytest.mark.slow)],
)
def test_the_backend_of_a_notebook_changes_nothing(backend: str, tmp_path: Path) -> None:
    process = start("report", tmp_path / "missing.json", MPLBACKEND=backend)
    _, error = process.communicate()
    assert process.returncode == 2 and "no such file" in error and error.count("\n") == 1


def test_names_of_files_and_folders_reach_the_terminal_in_safe_letters(
    tmp_path: Path, capsys: Capture
) -> None:
    path = write(tmp_path / "odd\x1b[31m\u202e\x9b.json", sound(0))
    with undrawn():
        assert main(["report", str(path), "-o", str(tmp_path / "re\x1bport")]) == 0
    told = capsys.readouterr().out
    assert "odd\\x1b[31m\\u202e\\x9b.json" in told and "re\\x1bport" in told
    assert main(["report", str(tmp_path / "no\x1b\udc80.json")]) == 2
    assert "no\\x1b\\udc80.json" in capsys.readouterr().err
