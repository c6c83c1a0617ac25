"""Storage, comparison and command line of pytest-benchmark on the suite, over several commits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.repository import IDENTITY, Repository

# CI runs this file, one process of many sessions.
pytestmark = pytest.mark.slow

TINY = (
    "benchmarks/test_attention.py", "-p", "no:cacheprovider", "--device=cpu",
    "--kernel=standard-explicit", "--kernel=linear-explicit",
    "--mode=causal", "--case-seconds=0.001",
)  # fmt: skip
FIRST = (*TINY, "--seq-len=16,32", "--repetitions=2")
WIDER = (*TINY, "--seq-len=8,16,32", "--repetitions=3")
LAST = (*TINY, "--seq-len=16", "--repetitions=1")

# Sessions one after another in one process, because each import of torch takes seconds. Between them a
# commit is made, and the machine is the same as another container at another moment.
DRIVER = """
import contextlib, io, json, pathlib, platform, subprocess, sys
import cpuinfo, pytest, torch
from pytest_benchmark import cli

same = cpuinfo.get_cpu_info()
for number, (kind, arguments) in enumerate(json.loads(sys.argv[1])):
    text = io.StringIO()
    wobbling = same | {"hz_actual": [number, 0], "hz_advertised": [number, 0]}
    cpuinfo.get_cpu_info = lambda: wobbling
    platform.node = lambda: f"host{number}"
    platform.release = lambda: f"kernel{number}"
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        if kind == "threads":
            torch.set_num_threads(torch.get_num_threads() + 1)
        if kind == "regression":  # whatever this machine does: the saved times become a hundredth
            storage, *arguments = arguments
            (saved,) = pathlib.Path(storage).glob("*/0002_*.json")
            content = json.loads(saved.read_text())
            for benchmark in content["benchmarks"]:
                benchmark["stats"]["median"] /= 100
            saved.write_text(json.dumps(content))
        if kind == "cli":
            sys.argv = ["pytest-benchmark", *arguments]
            code = cli.main()
        else:
            try:
                code = int(pytest.main(arguments))
            except Exception as error:  # pytest-benchmark's own way to fail
                code = repr(error)
    print(json.dumps([code, text.getvalue()]), flush=True)
    with open("notes.txt", "a") as notes:
        notes.write("another commit")
    subprocess.run(["git", "add", "--all"], check=True)
    subprocess.run(["git", "commit", "--quiet", "-m", str(number)], check=True)
"""


class Sessions:
    """Exit codes and output of the sessions, and the storage after them."""

    def __init__(self, repository: Repository, storage: Path) -> None:
        self.repository, self.storage = repository, storage
        self.said: dict[str, tuple[int | str | None, str]] = {}

    def run(self, steps: dict[str, tuple[str, Sequence[str]]]) -> None:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, json.dumps(list(steps.values()))],
            cwd=self.repository.folder,
            env={**os.environ, **IDENTITY},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        self.said = dict(zip(steps, map(json.loads, done.stdout.splitlines()), strict=True))

    def saved(self, number: int) -> dict[str, Any]:
        (file,) = self.storage.glob(f"*/{number:04d}_*.json")
        content: dict[str, Any] = json.loads(file.read_text())
        return content


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Sessions:
    folder = tmp_path_factory.mktemp("storage")
    sessions = Sessions(Repository(folder / "repository"), folder / "saved")
    storage = f"--benchmark-storage={sessions.storage}"
    histogram = f"--benchmark-histogram={folder}/histogram"
    comparison = ("--benchmark-compare=0001", "--benchmark-compare-fail=mean:100000%")
    regression = ("--benchmark-compare", "--benchmark-compare-fail=median:100%")
    nothing = ("--kernel=standard-sdpa-cudnn", "--benchmark-save=nothing")
    sessions.run({
        "save": ("pytest", (*FIRST, storage, "--benchmark-save=first")),
        "autosave": ("pytest", (*WIDER, storage, "--benchmark-autosave", histogram, *comparison)),
        "regressed": ("regression", (str(sessions.storage), *LAST, storage, *regression)),
        "nothing": ("pytest", (*TINY[:4], "--device=cpu", "--seq-len=16", storage, *nothing)),
        "list": ("cli", (f"--storage={sessions.storage}", "list")),
        "compare": ("cli", (f"--storage={sessions.storage}", "compare", "0001", "0002", "--columns=median")),
        "other": ("threads", (*LAST, storage, "--benchmark-compare=0001", "--collect-only")),
    })  # fmt: skip
    return sessions


def test_every_session_on_the_storage_ends_with_its_exit_code(sessions: Sessions) -> None:
    codes = {name: code or 0 for name, (code, _) in sessions.said.items()}
    assert codes == {
        **dict.fromkeys(sessions.said, 0),
        "regressed": "PerformanceRegression('Performance has regressed.')",
    }, sessions.said


def test_a_saved_file_is_a_complete_record_with_its_rounds(sessions: Sessions) -> None:
    for number in (1, 2):
        content = sessions.saved(number)
        assert content["not_measured"] == [] and content["run"]["torch"]
        for benchmark in content["benchmarks"]:
            assert len(benchmark["stats"]["data"]) == benchmark["stats"]["rounds"] >= 3


def test_a_saved_file_names_the_commit_that_was_measured(sessions: Sessions) -> None:
    commits = sessions.repository.git("rev-list", "--reverse", "HEAD").splitlines()
    infos = [sessions.saved(number)["commit_info"] for number in (1, 2, 3)]
    assert [info["id"] for info in infos] == [commits[0], commits[1], commits[3]]
    assert not any(info["dirty"] for info in infos)
    (autosaved,) = sessions.storage.glob("*/0002_*.json")
    assert commits[1] in autosaved.name


def test_the_benchmark_name_of_a_case_does_not_depend_on_the_grid(sessions: Sessions) -> None:
    def names(number: int) -> dict[tuple[str, int], str]:
        rows = sessions.saved(number)["benchmarks"]
        return {(row["extra_info"]["key"], row["extra_info"]["repetition"]): row["fullname"] for row in rows}

    narrow, wide = names(1), names(2)
    assert len(narrow) == 8 and len(wide) == 18 and narrow.items() <= wide.items()


def test_benchmark_compare_compares_a_run_with_a_saved_run_case_by_case(sessions: Sessions) -> None:
    text = sessions.said["autosave"][1]
    assert "Comparing against benchmarks from" in text
    assert text.count("(0001_first)") == 8 and text.count("(NOW)") == 8
    histograms = [path.name for path in sessions.storage.parent.glob("histogram-*.svg")]
    assert len(histograms) == 3 and "histogram-causal-forward-N16-B1-H8-D64-float32-cpu.svg" in histograms


def test_benchmark_compare_fail_fails_on_a_regression_and_still_prints_the_summary(
    sessions: Sessions,
) -> None:
    text = sessions.said["regressed"][1]
    assert "Performance has regressed" in text and "(0002_" in text
    assert "of it inside timed rounds" in text


def test_benchmark_compare_names_another_machine_only_by_fields_that_decide_times(sessions: Sessions) -> None:
    for name in ("autosave", "regressed"):
        assert "machine" not in sessions.said[name][1].replace("machine_info=", "")
    text = sessions.said["other"][1]
    assert "The saved run is of another machine (threads: " in text
    assert "machine_info is different" not in text


def test_a_commit_without_a_measured_case_is_saved_with_the_reasons(sessions: Sessions) -> None:
    content = sessions.saved(3)
    assert content["benchmarks"] == []
    assert {row["outcome"] for row in content["not_measured"]} == {"unsupported"}


def test_pytest_benchmark_lists_and_compares_stored_runs(sessions: Sessions) -> None:
    listed = sessions.said["list"][1].split()
    assert [Path(path).name[:4] for path in listed] == ["0001", "0002", "0003"]
    text = sessions.said["compare"][1]
    assert text.count("(0001_first)") == 8 and text.count("(0002_") == 18
