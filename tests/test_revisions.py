"""Revisions: found by name, checked out beside the user's tree, and measured in pairs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import revisions
from benchmarks.analysis.reading.fields import InputError
from benchmarks.own.sessions import own_repository
from benchmarks.revisions import Pairs, describe, measure_pairs, order, plan_pairs
from benchmarks.worktrees import checked_out, find_revision
from tests.repository import ROOT, Repository
from tests.synthetic import WHOLE

CHUNKED = "attention/kernels/linear_chunked/passes.py"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository of one commit, which no test may change."""
    return Repository(tmp_path_factory.mktemp("shared") / "repository")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


class Processes:
    """A stand-in for the processes of a plan, which writes the file of each run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> None:
        self.measured: list[str] = []
        self.kernels: list[str] = []
        self.paths: list[list[Path]] = []
        self.stop_after = stop_after
        monkeypatch.setattr(revisions, "measure", self)

    def __call__(
        self, file: Path, options: Sequence[str], root: Path, environment: Mapping[str, str]
    ) -> None:
        if len(self.measured) == self.stop_after:
            raise KeyboardInterrupt
        paths = [Path(path) for path in environment["PYTHONPATH"].split(os.pathsep)]
        assert paths[0] == root and not (root / "attention").exists()
        assert {"benchmarks", "conftest.py", "pytest.ini"} <= {path.name for path in root.iterdir()}
        assert f"--kernels-from={paths[1]}" in options
        self.measured.append(file.stem)
        self.paths.append(paths)
        self.kernels.append((paths[1] / CHUNKED).read_text())
        WHOLE.write(file)


def plan(repository: Repository, *names: str, pairs: int = 2, options: Sequence[str] = ()) -> Pairs:
    return plan_pairs(names, pairs, options, repository.folder.parent / "out", repository.folder)


def test_each_revision_comes_first_in_every_other_pair() -> None:
    sides = [side[0] for _, side in order([1, 2, 3, 4])]
    assert "".join(sides) == "bhhbbhhb"


def test_every_run_of_a_pair_imports_the_kernels_of_its_revision(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)  # whose folders would be among the paths
    repository.edit(CHUNKED, "from __future__", "# second\nfrom __future__")
    repository.commit("second")
    processes, before = Processes(monkeypatch), repository.state()
    lines: list[str] = []
    measure_pairs(plan(repository, "HEAD~1", "HEAD"), lines.append, repository.folder)
    assert processes.measured == ["base-01", "head-01", "head-02", "base-02"]
    assert ["# second" in code for code in processes.kernels] == [False, True, True, False]
    assert repository.state() == before
    assert not any(path.exists() for paths in processes.paths for path in paths)
    head = repository.git("rev-parse", "HEAD")[:10]
    assert lines[0] == f"pair 1 of 2: base {repository.first[:10]}"
    assert lines[1].startswith(f"pair 1 of 2: head {head}, about ") and lines[1].endswith("left")


def test_the_revision_of_the_working_tree_is_its_commit_with_the_changes(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.edit(CHUNKED, "from __future__", "# changed\nfrom __future__")
    (repository.folder / "attention" / "new.py").write_text("")
    os.utime(repository.folder / "attention" / "__init__.py", (0, 0))  # stale in git's index
    processes, before = Processes(monkeypatch), repository.state()
    changed = plan(repository, "HEAD", ".", pairs=1)
    assert changed.head.label == f"{repository.first[:10]}+changes"
    assert "the same code" not in describe(changed, repository.folder)
    measure_pairs(changed, lambda line: None, repository.folder)
    assert ["# changed" in code for code in processes.kernels] == [False, True]
    assert repository.state() == before
    committed = plan(repository, "HEAD", "HEAD")
    assert "the same code" in describe(committed, repository.folder)
    repository.commit("changed")
    (repository.folder / CHUNKED).write_text("")
    text = describe(plan(repository, "HEAD~1", "HEAD"), repository.folder)
    assert "changes in your working tree are not in either" in text and "--rev ." in text


def test_revisions_of_equal_kernels_are_known_by_code_and_not_by_commit(repository: Repository) -> None:
    (repository.folder / "README.md").write_text("words")
    repository.commit("words")
    assert "the same code" in describe(plan(repository, "HEAD~1", "HEAD"), repository.folder)


def test_an_interrupted_comparison_of_revisions_cleans_up_and_continues_with_missing_runs(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, before = Processes(monkeypatch, stop_after=3), repository.state()
    with pytest.raises(KeyboardInterrupt):
        measure_pairs(plan(repository, "HEAD", "HEAD", pairs=3), lambda line: None, repository.folder)
    assert repository.state() == before
    second = Processes(monkeypatch)
    continued = plan(repository, "HEAD", "HEAD", pairs=3)
    measure_pairs(continued, lambda line: None, repository.folder)
    # A pair with one run missing is measured again.
    assert first.measured == ["base-01", "head-01", "head-02"]
    assert second.measured == ["head-02", "base-02", "base-03", "head-03"]
    assert all(file.exists() for side in revisions.SIDES for file in continued.files(side))
    assert continued.folder.name == "runs-001"
    assert plan(repository, "HEAD", "HEAD", pairs=3).folder.name == "runs-002", "it is complete"


def test_a_comparison_of_other_options_or_changes_gets_a_folder_of_its_own(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    Processes(monkeypatch, stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        measure_pairs(plan(repository, "HEAD", "HEAD"), lambda line: None, repository.folder)
    assert plan(repository, "HEAD", "HEAD").folder.name == "runs-001"
    assert plan(repository, "HEAD", "HEAD", options=["--mode=causal"]).folder.name == "runs-002"
    repository.edit(CHUNKED, "from __future__", "# changed\nfrom __future__")
    changed = plan(repository, "HEAD", ".")
    assert changed.folder.name == "runs-002"
    Processes(monkeypatch, stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        measure_pairs(changed, lambda line: None, repository.folder)
    # Uncommitted changes may differ between two calls.
    assert plan(repository, "HEAD", ".").folder.name == "runs-003"


def test_a_base_revision_without_a_measured_case_is_refused(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: Path, *_: Any) -> None:
        row = {"key": "linear-chunked/causal", "reason": "TypeError: no such argument"}
        file.write_text(json.dumps({"benchmarks": [], "not_measured": [row]}))

    monkeypatch.setattr(revisions, "measure", fail)
    pattern = r"--rev HEAD \(.*\): none of its 1 cases .* linear-chunked/causal: TypeError: no such argument$"
    with pytest.raises(InputError, match=pattern):
        measure_pairs(plan(repository, "HEAD", "HEAD"), lambda line: None, repository.folder)


def test_benchmark_code_that_does_not_fit_an_old_revision_is_refused_in_one_sentence(
    repository: Repository,
) -> None:
    (repository.folder / "attention" / "case.py").write_text("")
    (repository.folder / "attention" / "__init__.py").write_text("")
    repository.commit("an old one")
    repository.git("checkout", "--quiet", "HEAD~1")
    pattern = r"--rev main \(.*\) cannot be measured by the benchmark code of this tree: .*ImportError: "
    with pytest.raises(InputError, match=pattern) as refusal:
        measure_pairs(plan(repository, "main", "HEAD"), lambda line: None, repository.folder)
    assert "\n" not in str(refusal.value)
    assert len(repository.git("worktree", "list").splitlines()) == 1


def test_an_unknown_revision_is_refused(shared: Repository, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--rev v9: git finds no such commit in .*; name a commit"):
        find_revision("v9", shared.folder)
    with pytest.raises(InputError, match="--rev -h: git finds no such commit"):
        find_revision("-h", shared.folder)
    with pytest.raises(InputError, match=r"--rev HEAD: .* is no git repository"):
        find_revision("HEAD", tmp_path)
    with pytest.raises(InputError, match="--rev was given 1 times, but twice is needed"):
        plan(shared, "HEAD")


def test_a_revision_without_kernels_is_refused(repository: Repository) -> None:
    repository.git("rm", "-r", "--quiet", "attention")
    repository.git("commit", "--quiet", "-m", "empty")
    with pytest.raises(InputError, match=r"--rev HEAD: commit \w{10} has no attention/"):
        find_revision("HEAD", repository.folder)


def test_checking_out_a_revision_runs_no_hook_and_ignores_git_variables_of_hooks(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = repository.folder / ".git" / "hooks" / "post-checkout"
    hook.write_text("#!/bin/sh\ntouch hooked\n")
    hook.chmod(0o755)
    monkeypatch.setenv("GIT_INDEX_FILE", str(repository.folder / ".git" / "index"))
    before = (repository.folder / ".git" / "index").read_bytes()
    with checked_out([find_revision("HEAD", repository.folder)], repository.folder) as (_, folders):
        assert (folders[0] / CHUNKED).exists() and not (folders[0] / "hooked").exists()
    assert (repository.folder / ".git" / "index").read_bytes() == before


END_WHILE_CHECKED_OUT = """
import subprocess, sys
from pathlib import Path
from benchmarks.worktrees import checked_out, find_revision
root = Path(sys.argv[1])
with checked_out([find_revision("HEAD", root)] * 2, root) as (harness, folders):
    print(harness, *folders, flush=True)
    subprocess.run(["sleep", "60"])
"""


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow), signal.SIGINT]
)
def test_a_comparison_of_revisions_ended_by_a_signal_removes_its_checkouts(
    shared: Repository, number: signal.Signals
) -> None:
    before = shared.state()
    with subprocess.Popen(
        [sys.executable, "-c", END_WHILE_CHECKED_OUT, str(shared.folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # Background jobs of a shell ignore Ctrl-C, those of nohup a hangup; their children inherit that.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        made = [Path(path) for path in process.stdout.readline().split()]
        assert len(made) == 3 and all(path.is_dir() for path in made)
        time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(timeout=20) != 0
    assert not any(path.exists() for path in made)
    assert shared.state() == before


def test_the_next_comparison_clears_what_a_killed_one_left(repository: Repository) -> None:
    before = repository.state()
    words = [sys.executable, "-c", END_WHILE_CHECKED_OUT, str(repository.folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        made = [Path(path) for path in process.stdout.readline().split()]
        process.kill()
    assert all(path.is_dir() for path in made) and repository.git("worktree", "list").count("\n") == 2
    with checked_out([find_revision("HEAD", repository.folder)], repository.folder):
        assert not any(path.exists() for path in made)
    assert repository.state() == before


def test_revisions_of_a_user_s_own_files_are_those_of_their_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "theirs"
    (root / "src").mkdir(parents=True)
    git = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    for text in ("one", "two"):
        (root / "src" / "my.py").write_text(text)
        subprocess.run([*git, "add", "--all"], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", text], check=True)
    (root / "src" / "my.py").write_text("three")
    options = ["--kernel-from=my.py:f", f"--kernel-path={root / 'src'}"]
    assert own_repository(options, ROOT) == root and own_repository(options, root) is None
    seen: list[tuple[str, str, str]] = []

    def measure(file: Path, told: Sequence[str], harness: Path, environment: Mapping[str, str]) -> None:
        place, commit_of = (
            next(word.partition("=")[2] for word in told if word.startswith(name))
            for name in ("--kernel-path", "--commit-of")
        )
        assert Path(place).is_relative_to(commit_of) and not Path(place).is_relative_to(root)
        assert environment["PYTHONPATH"].split(os.pathsep)[:2] == [str(harness), str(ROOT)]
        assert not any(word.startswith("--kernels-from") for word in told)
        seen.append((file.stem, (Path(place) / "my.py").read_text(), harness.name))
        WHOLE.write(file)

    monkeypatch.setattr(revisions, "measure", measure)
    found = plan_pairs(("HEAD~1", "."), 1, options, tmp_path / "out", root)
    assert found.content == ("src/my.py",) and not found.same_code and found.head.changed
    assert describe(found, root).startswith("src/my.py of HEAD~1")
    measure_pairs(found, lambda line: None, root)
    assert seen == [("base-01", "one", "harness"), ("head-01", "three", "harness")]
    same = plan_pairs(("HEAD", "HEAD"), 1, options, tmp_path / "out2", root)
    assert same.same_code
