"""Whatever a file holds, a command ends with its exit code and a sentence, and nothing foreign gets out."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from benchmarks.__main__ import main
from benchmarks.analysis.serialization import FORMULA
from tests.hostile import Edit, sound, undrawn, write

COMMANDS = (*["history"] * 24, *["report"] * 2, "report of a layer", "compare")
"""The cheapest one most often: all of them read a file alike."""
DRAWN = 100
"""One of so many examples draws its pictures, which takes most of the time."""


@dataclass(frozen=True)
class Example:
    """A command and the changes of its files, which a number chooses: any two numbers make unlike ones."""

    seed: int

    def check(self) -> None:
        random = Random(self.seed)
        command, drawn = random.choice(COMMANDS), random.randrange(DRAWN) == 0
        # The files take them in turn, so that one list of changes is that of all files.
        changes = [
            [Edit(random.getrandbits(64)) for _ in range(random.randint(1, 8))]
            for _ in range(random.randint(1, 2))
        ]
        check(command, changes, drawn=drawn)


EXAMPLES = st.builds(Example, st.integers(0, 2**64 - 1))
QUICK = settings(
    max_examples=150, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


@QUICK
@given(EXAMPLES)
@example(Example(16308112816698314837))  # repetitions that share no length
@example(Example(510511))  # a side without a unit that holds all lengths
@example(Example(3027971237029191368))  # lengths that no run holds all of
@example(Example(11626))  # a floor beyond every float
def test_no_file_makes_a_command_fail_or_write_what_it_should_not(one: Example) -> None:
    one.check()


@pytest.mark.slow
@settings(QUICK, max_examples=10_000, derandomize=False)
@given(EXAMPLES)
def test_no_file_of_ten_thousand_makes_a_command_fail(one: Example) -> None:
    one.check()


def check(command: str, changes: list[list[Edit]], *, drawn: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = _files(folder, command, changes)
        code, out, err = _carry_out([*words, "-o", str(folder / "out")], drawn=drawn)
        assert code in (0, 1, 2), err
        lines = err.splitlines()
        assert len(lines) == (code == 2) and all(line.startswith("error: ") for line in lines), err
        for text in (out, err):
            assert_harmless(text)
        written = sorted((folder / "out").iterdir()) if code != 2 else []
        assert bool(written) == (code != 2) == (folder / "out").exists()
        for file in written:
            assert_file_harmless(file)


def _files(folder: Path, command: str, changes: list[list[Edit]]) -> list[str]:
    """The words of a command, with its files changed one after the other."""
    count = {"report": 1, "report of a layer": 1, "compare": 2, "history": 2}[command]
    files = []
    for number in range(count):
        content = sound(number, layer=command == "report of a layer")
        for change in changes[number % len(changes)]:
            change(content)
        files.append(str(write(folder / f"{number}.json", content)))
    if command == "compare":
        return ["compare", files[0], "--against", files[1]]
    return ["history", str(folder)] if command == "history" else ["report", *files]


def _carry_out(words: list[str], *, drawn: bool) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), nullcontext() if drawn else undrawn():
        return main(words), out.getvalue(), err.getvalue()


def assert_harmless(text: str) -> None:
    """No control characters but line feeds."""
    assert [line for line in text.split("\n") if not line.isprintable()] == []


def assert_file_harmless(file: Path) -> None:
    if file.suffix in (".png", ".npz"):
        assert file.stat().st_size > 0
        return
    text = file.read_text(encoding="utf-8")
    assert_harmless(text)
    if file.suffix == ".json":
        assert_strict(json.loads(text, parse_constant=_refuse))
    if file.suffix == ".csv":
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert [cell for cell in cells if cell.startswith(FORMULA) and not _is_number(cell)] == []


def assert_strict(value: Any) -> None:
    """No control characters in any text, which JSON would hide behind escapes."""
    if isinstance(value, str):
        assert_harmless(value)
    for part in [*value.keys(), *value.values()] if isinstance(value, dict) else []:
        assert_strict(part)
    for part in value if isinstance(value, list) else []:
        assert_strict(part)


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
