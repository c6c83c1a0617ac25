"""A temporary git repository that holds a copy of this project, to commit to."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARTS = ("attention", "benchmarks", "conftest.py", "pytest.ini")
IDENTITY = {
    f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}


class Repository:
    """A copy of the project in a git repository of its own, with one commit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        ignored = shutil.ignore_patterns("__pycache__", "published")
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, folder / part, ignore=ignored)
            else:
                shutil.copy(ROOT / part, folder / part)
        (folder / "tests").mkdir()
        (folder / "tests" / "__init__.py").touch()  # pytest.ini names the folder
        (folder / ".gitignore").write_text("__pycache__/\n")
        self.git("init", "--quiet", "--initial-branch=main")
        self.first = self.commit("first")

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            env={**os.environ, **IDENTITY},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        """Commit all files and return the hash."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--no-verify", "-m", message)
        return self.git("rev-parse", "HEAD")

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.folder / path
        text = file.read_text()
        assert text.count(old) == 1, (path, old)
        file.write_text(text.replace(old, new))

    def state(self) -> list[object]:
        """Parts of the repository that a comparison must leave unchanged."""
        questions = (
            ("status", "--porcelain"),
            ("worktree", "list"),
            ("branch", "--all", "--verbose"),
            ("stash", "list"),
        )
        answers: list[object] = [(self.folder / ".git" / "index").read_bytes()]
        answers += [self.git("--no-optional-locks", *question) for question in questions]
        return [*answers, (self.folder / ".git" / "HEAD").read_text()]
