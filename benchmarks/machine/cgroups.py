"""The control groups of this process, by which Linux limits a container: of version 2, or of version 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNT, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Group:
    """A control group, in the folder where the kernel shows its limits."""

    folder: Path

    def number(self, file: str) -> int | None:
        """The number in a file; None where there is no such file or no number in it, as in "max"."""
        text = self._read(file)
        return int(text) if text.removeprefix("-").isdecimal() else None

    def words(self, file: str) -> list[str]:
        """The words of a file; none where there is no such file."""
        return self._read(file).split()

    def entry(self, file: str, name: str) -> int | None:
        """The number after a name in a file of names and numbers, or None."""
        entries = (line.split() for line in self._read(file).splitlines())
        return next(
            (int(words[1]) for words in entries if words[:1] == [name] and words[1].isdecimal()), None
        )

    def _read(self, file: str) -> str:
        try:
            return (self.folder / file).read_text(errors="replace").strip()
        except OSError:
            return ""


def groups(controller: str, mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> list[Group]:
    """The groups that limit this process, its own first, then each above it up to the visible root.

    Args:
        controller: What is limited: "memory" or "cpu".
        mount: Where the hierarchies are mounted: that of version 2, or one a controller of version 1.
        membership: The file that names the group of this process in each hierarchy.
    """
    found = [
        folder for base, path in _hierarchies(controller, mount, membership) for folder in _up(base, path)
    ]
    return [Group(folder) for folder in dict.fromkeys(found)]


def _hierarchies(controller: str, mount: Path, membership: Path) -> Iterator[tuple[Path, str]]:
    """The folder of each hierarchy that may limit the controller, and the process's place below it."""
    try:
        lines = membership.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            yield from ((mount, path), (mount / "unified", path))
        elif controller in controllers.split(","):
            yield from ((mount / controllers, path), (mount / controller, path))
    # A container that cannot read its place still sees the limits of its root.
    yield from ((mount, ""), (mount / controller, ""))


def _up(base: Path, path: str) -> list[Path]:
    """The folder of a group, and of each above it.

    A container may see its own group, or one above it, as the root: the path then begins outside of its view.
    """
    parts = [part for part in path.split("/") if part not in ("", "..")]
    visible = next(
        (parts[start:] for start in range(len(parts)) if base.joinpath(*parts[start:]).is_dir()), []
    )
    return [base.joinpath(*visible[:depth]) for depth in range(len(visible), -1, -1)]
