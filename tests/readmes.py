"""The README files taken apart: their shell commands, Python blocks, outputs and links.

A shell splits each command into calls. It finds the programs of `PROGRAMS` only, which say their words:
what is tried is what a reader's shell would start, and a program that nothing tries is an error.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("attention", "benchmarks", "tests")
FILES = [ROOT / "README.md", *sorted(file for name in FOLDERS for file in (ROOT / name).rglob("README.md"))]
TEXTS = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in FILES}
TOP = TEXTS["README.md"]

PROGRAMS = ("pip", "pytest", "python", "torchrun", "ruff", "mypy")
SHELLS = ("sh", "bash", "shell", "console")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}(.+)$", re.MULTILINE)
INLINE = re.compile(rf"`((?:{'|'.join(PROGRAMS)})\s[^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
SAY = "".join(f'{name}() {{ printf "%s\\0" {name} "$@"; echo; }}; ' for name in PROGRAMS)


def fences(text: str, *languages: str) -> list[str]:
    """Fenced blocks of given languages; "" is the language of an output."""
    return [block for language, block in FENCE.findall(text) if language in languages]


def commands(text: str) -> list[str]:
    """The shell commands of a README: indented, in a fence of a shell, or between backticks in a sentence."""
    prose = FENCE.sub("", text)
    blocks = "\n".join([*INDENTED.findall(prose), *fences(text, *SHELLS)])
    spans = [" ".join(span.split()) for span in INLINE.findall(prose)]
    return [*filter(str.strip, re.sub(r"\\\n *", "", blocks).splitlines()), *spans]


def calls(command: str) -> list[list[str]]:
    """The words of each program that a shell starts for a command, in order.

    Raises:
        ValueError: the shell does not understand it, or a program is none of `PROGRAMS`.
    """
    shell = shutil.which("bash")
    assert shell
    done = subprocess.run(
        [shell, "-c", SAY + command], cwd=ROOT, env={"PATH": "/none"}, capture_output=True, text=True
    )
    if done.returncode or not done.stdout:
        raise ValueError(f"nothing tries {command!r}: {done.stderr.strip()}")
    return [line.removesuffix("\0").split("\0") for line in done.stdout.splitlines()]


def dead_links(text: str, folder: Path) -> Iterator[str]:
    """The relative links and pictures of a README in a folder whose file or heading does not exist."""
    for link in LINK.findall(FENCE.sub("", text)):
        path, _, anchor = link.partition("#")
        target = folder / path
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(_read(target) if path else text)):
            yield link


def _read(target: Path) -> str:
    return target.read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """Anchors of the headings of a text, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
