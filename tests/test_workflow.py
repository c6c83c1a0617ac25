"""The workflows of pull requests: they say what they must, and their commands run as written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.repository import ROOT, Repository

FOLDER = ROOT / ".github" / "workflows"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EVEN_AFTER_A_FAILURE = "!cancelled()"


def job(name: str) -> dict[str, Any]:
    """The one job of a workflow."""
    (found,) = yaml.safe_load((FOLDER / f"{name}.yml").read_text())["jobs"].values()
    return dict(found)


def steps(name: str) -> list[dict[str, Any]]:
    return list(job(name)["steps"])


def commands(name: str) -> list[str]:
    """The shell text of all steps, in order."""
    return [step["run"] for step in steps(name) if "run" in step]


def executable(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("name", ["compare", "tests"])
def test_workflows_run_for_pull_requests_with_no_more_rights_than_they_need(name: str) -> None:
    text = (FOLDER / f"{name}.yml").read_text()
    workflow = yaml.safe_load(text)
    on = workflow[True]  # YAML 1.1 takes "on" for a truth
    assert on == "pull_request" or "pull_request" in on
    assert "pull_request_target" not in text and "secrets." not in text
    comments = {"pull-requests": "write"} if name == "compare" else {}
    assert workflow["permissions"] == {"contents": "read", **comments}
    used = [step["uses"] for step in steps(name) if "uses" in step]
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", one) for one in used)
    assert job(name)["timeout-minutes"] <= 120


def test_the_tests_are_those_of_ci() -> None:
    assert commands("tests") == [".ci/run"]
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


def test_what_follows_the_comparison_runs_after_its_failure_too() -> None:
    names = [step.get("name") for step in steps("compare")]
    after = steps("compare")[names.index("Measure and compare") + 1 :]
    assert len(after) == 3 and all(EVEN_AFTER_A_FAILURE in step["if"] for step in after)
    assert all("hashFiles('comparison/summary.md')" in step["if"] for step in after if "run" in step)


def test_what_is_installed_is_what_the_project_names(tmp_path: Path) -> None:
    executable(tmp_path / "pip", f'printf "%s\\n" "$@" >> {tmp_path}/asked; echo >> {tmp_path}/asked')
    for command in [command for command in commands("compare") if "pip install" in command]:
        environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        subprocess.run(["bash", "-e", "-c", command], cwd=ROOT, env=environment, check=True)
    asked = (tmp_path / "asked").read_text().strip().split("\n\n")
    (_, torch, *_), (_, _, suite) = (words.split("\n") for words in asked)
    assert torch in PROJECT["dependencies"] and torch.startswith("torch>=")
    (extra,) = re.findall(r"\.\[(\w+)\]", suite)
    assert extra in PROJECT["optional-dependencies"]


@pytest.mark.slow
def test_every_command_of_the_comparison_runs_on_a_pull_request(tmp_path: Path) -> None:
    """GitHub's own program is a stub, which at last refuses to comment, as it does for a fork."""
    repository = Repository(tmp_path / "repository")
    repository.git("checkout", "--quiet", "-b", "proposal")
    repository.edit("attention/kernels/linear_explicit.py", "from __future__", "# proposed\nfrom __future__")
    repository.commit("proposed")
    repository.git("checkout", "--quiet", "main")
    repository.git("merge", "--quiet", "--no-ff", "proposal", "-m", "merge")
    programs, posted, commented = (tmp_path / name for name in ("bin", "posted.md", "commented.md"))
    programs.mkdir()
    executable(programs / "gh", f'echo "$@" > {tmp_path}/asked; cp "${{@: -1}}" {commented}')
    path = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(path),
        "GITHUB_STEP_SUMMARY": str(posted),
        "PULL_REQUEST": "7",
        "PAIRS": "1",
        "CASES": str(job("compare")["env"]["CASES"]).replace("512,2048,8192", "16"),
        "TIME": "--repetitions 1 --case-seconds 0.001",
    }

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=repository.folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    measure, summarise, comment = [one for one in commands("compare") if "pip install" not in one]
    done = run(measure)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = json.loads((repository.folder / "comparison" / "comparison.json").read_text())
    kernels = {one["kernel"] for one in found["cases"]}
    assert kernels == {"standard-sdpa", "linear-chunked", "linear-native"}
    assert {one["phase"] for one in found["cases"]} == {"forward", "forward_backward"}
    assert run(summarise).returncode == run(comment).returncode == 0
    assert posted.read_text() == commented.read_text()
    assert posted.read_text().startswith("#") and repository.first[:9] in posted.read_text()
    assert "comment 7 --edit-last --create-if-none" in (tmp_path / "asked").read_text()
    executable(programs / "gh", "exit 1")
    refused = run(comment)
    assert refused.returncode == 0 and refused.stdout.startswith("::notice::")
