"""The walk-throughs of the README: one file of a user's in an empty folder, one command, and an answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.readmes import ROOT, TEXTS, commands, fences

pytestmark = pytest.mark.slow

TEXT = TEXTS["benchmarks/README.md"]
FILES = {block[3:].partition(":")[0]: block for block in fences(TEXT, "python") if block.startswith('"""')}
COMMANDS = [command for command in commands(TEXT) for file in FILES if f" try {file}:" in command]
QUICK = ("--device=cpu", "--seq-len=128,256", "--repetitions=1", "--case-seconds=0.01")


def test_there_are_three_of_them() -> None:
    assert len(COMMANDS) == len(FILES) == 3


def test_a_file_may_be_called_as_a_package_of_this_suite(tmp_path: Path) -> None:
    (tmp_path / "attention.py").write_text(FILES["relu.py"])
    words = ["-m", "benchmarks", "try", "attention.py:relu_attention", "--mode=causal", *QUICK]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path, env=_environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "relu_attention" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_walkthrough_leads_to_an_answer(command: str, tmp_path: Path) -> None:
    words = command.split()
    file, _, function = words[4].partition(":")
    (tmp_path / file).write_text(FILES[file])
    done = subprocess.run(
        [sys.executable, *words[1:], *QUICK],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = " ".join(done.stdout.split())
    assert f"{function} computes {words[6]} to a relative error of" in text
    assert f"{function} " in text and " standard-sdpa" in text
    summary: dict[str, Any] = json.loads((tmp_path / "try" / "summary.json").read_text())
    own = [one for one in summary["series"] if one["kernel"] == function]
    assert {found["reference"] for one in own for found in one["functions"]} == {words[6]}
    pairs = {(one["contender"], one["baseline"]) for one in summary["crossovers"]}
    assert (function, "standard-sdpa") in pairs


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
