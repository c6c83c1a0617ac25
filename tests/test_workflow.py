"""The workflow that compares a pull request: each of its commands runs as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from tests.repository import ROOT, Repository

WORKFLOW = (ROOT / ".github" / "workflows" / "compare.yml").read_text()
# pip commands are only checked for their packages, which are installed already.
FOREIGN = ("pip install",)


def commands() -> list[str]:
    """The shell text of all steps, in order."""
    found = re.findall(r"^( +)(?:- )?run: (?:\|\n((?:\1   *.*\n)+)|(.+)\n)", WORKFLOW, re.MULTILINE)
    return [textwrap.dedent(block) or line for _, block, line in found]


def ours() -> list[str]:
    return [command for command in commands() if not command.startswith(FOREIGN)]


def setting(name: str) -> str:
    match = re.search(rf"^ +{name}: (.+)$", WORKFLOW, re.MULTILINE)
    assert match, name
    return match[1]


def test_the_workflow_holds_commands_and_settings_under_test() -> None:
    assert len(commands()) == WORKFLOW.count("run:") == 4 and len(ours()) == 2
    assert "\t" not in WORKFLOW and "pull_request_target" not in WORKFLOW
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (extra,) = re.findall(r"\.\[(\w+)\]", "".join(commands()))
    assert extra in extras


@pytest.mark.slow
def test_every_command_of_the_workflow_runs_on_a_pull_request(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repository")
    repository.git("checkout", "--quiet", "-b", "proposal")
    repository.edit("attention/kernels/linear_explicit.py", "from __future__", "# proposed\nfrom __future__")
    repository.commit("proposed")
    repository.git("checkout", "--quiet", "main")
    repository.git("merge", "--quiet", "--no-ff", "proposal", "-m", "merge")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "posted.md"),
        "PAIRS": "2",
        # Cases take a thousandth of a second each.
        "CASES": setting("CASES").replace("0.5", "0.001") + " --repetitions 1",
    }
    for command in ours():
        done = subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=repository.folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stdout + done.stderr
    posted = (tmp_path / "posted.md").read_text()
    assert posted.startswith("#") and repository.first[:9] in posted
