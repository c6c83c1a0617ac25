"""A run that is killed loses no finished case, and its children and its folder are not left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.survival.journal import journal_of
from tests.sessions import ROOT, TINY, command, rows

LONG = ("--device=cpu", "--kernel=linear-chunked", "--seq-len=16,32,64,128", "--case-seconds=0.2", "-v")


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # Background jobs of a shell ignore Ctrl-C, those of nohup a hangup; their children inherit that.
        preexec_fn=lambda: [signal.signal(one, signal.SIG_DFL) for one in (signal.SIGINT, signal.SIGHUP)],
    )


def finished(process: subprocess.Popen[str], least: int) -> int:
    """Read the console until so many cases are finished."""
    assert process.stdout is not None
    found = 0
    for line in process.stdout:
        found += "PASSED" in line
        if found == least:
            return found
    raise AssertionError("the run ended before")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_run_that_is_asked_to_end_writes_its_file(number: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    process = start(*command(*LONG, f"--benchmark-json={out}"))
    least = finished(process, 3)
    process.send_signal(number)
    time.sleep(0.03)
    process.send_signal(number)  # as who is in a hurry does, and `timeout`
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 2, text
    document = json.loads(out.read_text())
    assert document["run"]["ended"] == "interrupted" and len(rows(document)) >= least
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.slow
def test_a_killed_run_loses_no_finished_case_and_the_same_command_takes_over(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    process = start(*command(*LONG, f"--benchmark-json={out}"))
    least = finished(process, 3)
    process.kill()
    process.communicate()
    assert not out.exists() and journal_of(out).exists()
    again = subprocess.run(
        command(*TINY, f"--benchmark-json={out}"), cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert again.returncode == 0 and "An earlier run was killed" in again.stdout
    # The new run finished, and the cases of the other one that it lacks are beside it.
    kept = json.loads((tmp_path / "out.unfinished.json").read_text())
    assert kept["run"]["ended"] == "killed" and len(rows(kept)) >= least
    assert {"killed", "interrupted"} & {row["reason"].split()[-1] for row in kept["not_measured"]}
    assert not journal_of(out).exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [("--benchmark-json=/proc/nowhere/x.json",), ("--benchmark-save=x", "--benchmark-storage=/proc/x")],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(
    options: tuple[str, ...],
) -> None:
    done = subprocess.run(
        command(*TINY, *options), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 4
    last = [line for line in done.stderr.splitlines() if line][-1]
    assert last.startswith("ERROR: --benchmark-") and "nothing was measured" in last


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_run_ends_with_its_child_and_keeps_what_that_had_measured(
    number: signal.Signals, tmp_path: Path
) -> None:
    words = (sys.executable, "-m", "benchmarks", "run", "--runs=2", "-o", str(tmp_path))
    # Long enough to be killed in the middle of the first run.
    more = (
        "--device=cpu",
        "--kernel=linear-chunked",
        "--seq-len=16,32",
        "--case-seconds=1",
        "-k",
        "attention",
    )
    process = start(*words, *more)
    journal = tmp_path / "run-001.json.journal"
    until = time.monotonic() + 300
    while not (journal.exists() and '"benchmark": {' in journal.read_text()):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    (child,) = [one for one in psutil.Process(process.pid).children() if "pytest" in one.cmdline()]
    process.send_signal(number)
    process.communicate(timeout=300)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    child.wait(timeout=10)
    tiny = [*words, "--device=cpu", "--case-timeout=0.001", "--kernel=linear-chunked"]
    again = subprocess.run(tiny, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    # Other options: the folder's runs are refused, and not mixed.
    assert again.returncode == 2 and "holds runs measured with the options" in again.stderr
