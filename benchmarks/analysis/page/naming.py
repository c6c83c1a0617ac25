"""The names of tabs: what tells their settings apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.analysis import wording
from benchmarks.analysis.reading.setting import Setting

PARTS: tuple[Callable[[Setting], str], ...] = (
    wording.phase,
    wording.machine,
    lambda setting: str(setting.dtype),
    wording.shape,
    lambda setting: f"{setting.clock} clock",
    lambda setting: setting.mode or "",
    wording.ranks,
)
"""The parts of a tab's name, each said where tabs differ in it."""


def tab_names(settings: Sequence[Setting]) -> list[str]:
    """The shortest names that tell settings apart: "forward, bfloat16"; a single one has its phase."""
    parts = [[part(one) for part in PARTS] for one in settings]
    telling = [len(set(column)) > 1 for column in zip(*parts, strict=True)]
    found = []
    for row in parts:
        words = [words for words, tells in zip(row, telling, strict=True) if tells and words]
        found.append(", ".join(words) or row[0])
    return found


def place_words(setting: Setting) -> str:
    """A phase and where it was measured, as the heading of a tab."""
    words = f"{wording.phase(setting)}, {wording.place(setting)}"
    return words[:1].upper() + words[1:]
