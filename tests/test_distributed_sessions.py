"""Sessions of ranks: what they record, and that a killed or hanging rank loses nothing of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.analysis.reading.records import load

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow
SHORT = ("--shape=1x4:2x16", "--mode=causal", "--case-seconds=0.01s", "--repetitions=1")


@contextmanager
def session(folder: Path, *options: str, ranks: int = 2) -> Iterator[subprocess.Popen[str]]:
    """torchrun with a session of ranks; none of its processes is left at the end."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--standalone"]
    command += ["-m", "benchmarks", "distributed", "--device=cpu", *SHORT, *options, "-o", str(folder)]
    child = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            for one in psutil.Process(child.pid).children(recursive=True):
                one.kill()
            child.kill()
            child.wait()


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"benchmarks": []}
    return found


def disturbed(folder: Path, disturb: Callable[[psutil.Process], object], *options: str) -> tuple[str, int]:
    """A session whose second rank is disturbed after the first case was measured: its words and exit code."""
    file = folder / "ranks-2-001.json"
    with session(folder, "--seq-len=64,128,256,512", "--repetitions=500", *options) as child:
        while not read(file)["benchmarks"]:
            assert child.poll() is None, child.communicate()[0]
            time.sleep(0.05)
        workers = psutil.Process(child.pid).children(recursive=True)
        (second,) = [one for one in workers if one.environ().get("RANK") == "1"]
        disturb(second)
        while child.poll() is None and read(file)["run"]["ended"] != "interrupted":
            time.sleep(0.05)
        with suppress(psutil.NoSuchProcess):
            second.resume()  # a process that is stopped would be killed by torchrun, half a minute later
        text, _ = child.communicate(timeout=100)
        assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in workers)
        return text, child.returncode


def keeps_what_was_measured(folder: Path) -> None:
    """The file is whole, says that it was cut short, and a case without times has an outcome."""
    found = read(folder / "ranks-2-001.json")
    assert found["benchmarks"]
    assert found["run"]["ended"] in ("interrupted", "killed")
    assert all(one["outcome"] == "failed" for one in found["not_measured"])
    assert any("cut short" in warning for warning in load([folder / "ranks-2-001.json"]).warnings)


def test_a_session_records_what_ranks_exchange(tmp_path: Path) -> None:
    kernels = ("--kernel=linear-*", "--kernel=standard-context-parallel")
    with session(tmp_path, "--seq-len=64,128", "--parallelism=strong,weak", *kernels) as child:
        text, _ = child.communicate(timeout=100)
    assert child.returncode == 0, text
    found = read(tmp_path / "ranks-2-001.json")
    assert found["run"]["ended"] == "finished"
    infos = [one["extra_info"] for one in found["benchmarks"]]
    state = 2 * 16 * 17 * 4
    assert {(one["seq_len"], one["phase"]) for one in infos} == {
        (n, phase) for n in (64, 128, 256) for phase in ("forward", "forward_backward")
    }
    for info in infos:
        passes = 2 if info["phase"] == "forward_backward" else 1
        assert info["exchanged_bytes"] == info["predicted_exchanged_bytes"] == passes * state
        assert info["key"].endswith("-P2")
        assert (info["ranks"], info["backend"], info["clock"]) == (2, "gloo", "wall")
    assert {one["outcome"] for one in found["not_measured"]} == {"unsupported"}


def test_a_killed_rank_ends_the_session_and_loses_nothing(tmp_path: Path) -> None:
    text, code = disturbed(tmp_path, psutil.Process.kill)
    assert code != 0
    assert "the session stops" in text, text
    keeps_what_was_measured(tmp_path)


def test_a_hanging_rank_is_given_up_within_the_limit(tmp_path: Path) -> None:
    text, code = disturbed(tmp_path, psutil.Process.suspend, "--case-timeout=15s")
    assert code != 0
    assert "the session stops" in text, text
    keeps_what_was_measured(tmp_path)


def test_what_was_measured_goes_elsewhere_where_there_is_no_folder_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, room = tmp_path / "runs", tmp_path / "room"
    room.mkdir()
    monkeypatch.setenv("TMPDIR", str(room))
    with session(folder, "--seq-len=64,128", "--repetitions=12") as child:
        while not read(folder / "ranks-2-001.json")["benchmarks"]:
            assert child.poll() is None, child.communicate()[0]
            time.sleep(0.05)
        folder.rename(tmp_path / "away")  # at once: the session may be writing into it
        folder.write_text("in its place")
        text, _ = child.communicate(timeout=100)
    assert child.returncode != 0
    assert "cannot be written to" in text and "exitcode  : 3" in text, text
    (file,) = room.glob("ranks-2-001*.json")
    assert str(file) in text
    found = read(file)
    assert (len(found["benchmarks"]), found["run"]["ended"]) == (48, "finished")
