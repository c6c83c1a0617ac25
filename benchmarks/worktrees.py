"""Revisions of the kernels, each checked out beside the user's own tree, which stays as it is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.analysis.reading.fields import InputError
from benchmarks.survival.endings import ENDINGS, OUTSIDE, Stop, handling
from benchmarks.survival.locks import hold

WORKING_TREE = "."
KERNELS = "attention"
HARNESS = ("benchmarks", "conftest.py", "pytest.ini")
# Set while git runs a hook; they would lead git from our worktrees back to the user's tree and index.
LEADING_ASTRAY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
PREFIX, LOCK = "attention-compare-", "lock"
"""How the folders of worktrees are named, and the file in each that its process holds while it lives."""


@dataclass(frozen=True)
class Revision:
    """A version of `attention/`, or of a user's own files.

    Attributes:
        name: As it was asked for; "." is the working tree.
        commit: The full hash of the commit that it is, or builds on.
        tree: The hashes of these in that commit.
        changed: Whether it is the working tree, and differs from its commit in them.
    """

    name: str
    commit: str
    tree: str
    changed: bool = False

    @property
    def label(self) -> str:
        """Short enough for a line, exact enough to find it again."""
        return self.commit[:10] + ("+changes" if self.changed else "")

    def same_kernels(self, other: Revision) -> bool:
        """Whether both hold the same code, so that whatever differs between their times is noise."""
        return (self.tree, self.changed) == (other.tree, other.changed)


def find_revision(name: str, root: Path, content: Sequence[str] = (KERNELS,)) -> Revision:
    """The revision that git knows under this name.

    Args:
        name: Anything that git takes for a commit, or "." for the working tree with its changes.
        root: A folder in the user's tree.
        content: What is measured of a revision, below that folder.

    Raises:
        InputError: There is no git, no repository, no such commit, or nothing to measure in it.
    """
    found = _git(root, "rev-parse", "--show-toplevel")
    if found.returncode:
        raise InputError(
            f"--rev {name}: {root} is no git repository for revisions to come from "
            f"({_last(found.stderr)}); compare files with --against instead"
        )
    wanted = "HEAD" if name == WORKING_TREE else name
    commit = _ask(root, "rev-parse", "--verify", "--quiet", "--end-of-options", wanted + "^{commit}")
    if commit is None:
        raise InputError(
            f"--rev {name}: git finds no such commit in {root}; "
            "name a commit, tag or branch, or fetch it where the history was cut short"
        )
    changed = name == WORKING_TREE and has_changes(root, content)
    trees = {path: _ask(root, "rev-parse", "--verify", "--quiet", f"{commit}:./{path}") for path in content}
    if missing := [path for path, tree in trees.items() if tree is None]:
        raise InputError(
            f"--rev {name}: commit {commit[:10]} has no {named(missing)}, so it has nothing to measure; "
            "name a commit that has"
        )
    return Revision(name, commit, " ".join(filter(None, trees.values())), changed)


def named(content: Sequence[str]) -> str:
    """Files and folders in a sentence."""
    return ", ".join(f"{path}/" if path == KERNELS else path for path in content)


def repository_of(folder: Path) -> Path | None:
    """The top folder of the repository that holds a folder; None where there is none."""
    found = _ask(folder, "rev-parse", "--show-toplevel") if folder.is_dir() else None
    return Path(found) if found else None


def has_changes(root: Path, content: Sequence[str] = (KERNELS,)) -> bool:
    """Whether the working tree differs from its commit in what is measured of it."""
    return bool(_ask(root, "status", "--porcelain", "--untracked-files=all", "--", *content))


@contextmanager
def checked_out(
    revisions: Sequence[Revision], root: Path, content: Sequence[str] = (KERNELS,), suite: Path | None = None
) -> Iterator[tuple[Path, list[Path]]]:
    """The benchmark code of the tree run from, and a worktree of each revision, for as long as needed.

    All is cleared away however it ends, and the user's tree, index and branch are not touched.

    Args:
        revisions: What to check out.
        root: A folder in the user's tree.
        content: What is measured of a revision, below that folder.
        suite: The folder of the benchmark code, unless it is that one.

    Yields:
        A folder with a copy of the benchmark code and no kernels, and per revision the folder that stands for
        `root` in it.

    Raises:
        InputError: git cannot check a revision out.
    """
    prefix = _ask(root, "rev-parse", "--show-prefix") or ""
    _clear_leftovers(root)
    with (
        handling(Stop(), *OUTSIDE),
        tempfile.TemporaryDirectory(prefix=PREFIX) as temporary,
        hold(Path(temporary) / LOCK, temporary),
    ):
        harness = Path(temporary) / "harness"
        _copy(HARNESS, suite or root, harness)
        # Names of equal length: nothing but the kernels may differ.
        worktrees = [Path(temporary) / f"side{number}" for number in range(len(revisions))]
        try:
            for revision, worktree in zip(revisions, worktrees, strict=True):
                _check_out(revision, worktree, root)
                if revision.changed:
                    shutil.rmtree(worktree / prefix / KERNELS, ignore_errors=True)
                    _copy(content, root, worktree / prefix)
            yield harness, [worktree / prefix for worktree in worktrees]
        finally:
            with handling(signal.SIG_IGN, *ENDINGS):
                for worktree in worktrees:
                    _git(root, "worktree", "remove", "--force", str(worktree))


def _clear_leftovers(root: Path) -> None:
    """Remove the worktrees of processes that were killed."""
    listed = (_ask(root, "worktree", "list", "--porcelain") or "").splitlines()
    known = [Path(line.removeprefix("worktree ")) for line in listed if line.startswith("worktree ")]
    ours = [path for path in known if path.parent.name.startswith(PREFIX)]
    for folder in {path.parent for path in ours} | set(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        # Another user's folder stays as well.
        with suppress(OSError, InputError), _held_if_there(folder):
            for path in ours:
                if path.parent == folder:
                    # Twice: git locks a worktree while it makes it, and may have been killed with us.
                    _git(root, "worktree", "remove", "--force", "--force", str(path))
            shutil.rmtree(folder, ignore_errors=True)


def _held_if_there(folder: Path) -> AbstractContextManager[Any]:
    """Holds a folder of worktrees, unless its process lives or has only just made it."""
    if not folder.exists():
        return nullcontext()
    if not (folder / LOCK).exists():
        raise FileNotFoundError(folder / LOCK)
    return hold(folder / LOCK, str(folder), patience_s=0)


def environment() -> dict[str, str]:
    """This process's variables, less those that lead git elsewhere."""
    return {name: value for name, value in os.environ.items() if name not in LEADING_ASTRAY}


def _check_out(revision: Revision, worktree: Path, root: Path) -> None:
    # The user's hooks are for the user's tree.
    options = ("-c", f"core.hooksPath={os.devnull}")
    done = _git(root, *options, "worktree", "add", "--quiet", "--detach", str(worktree), revision.commit)
    if done.returncode:
        raise InputError(f"--rev {revision.name} cannot be checked out: {_last(done.stderr)}")


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["git does not say why"])[-1]


def _copy(names: Sequence[str], source: Path, target: Path) -> None:
    # What Python compiled elsewhere stays there, and published runs are no code.
    ignored = shutil.ignore_patterns("__pycache__", "published")
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=ignored, symlinks=True)
        else:
            shutil.copy(source / name, target / name)


def _ask(root: Path, *arguments: str) -> str | None:
    """The answer of git, or None where git refuses."""
    done = _git(root, *arguments)
    return None if done.returncode else done.stdout.strip()


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Without optional locks a mere question does not refresh the user's index.
    command = ["git", "--no-optional-locks", *arguments]
    try:
        return subprocess.run(
            command, cwd=root, env=environment(), capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise InputError("--rev needs git, which was not found; install it, or compare files") from None
