"""Pages to look at: of a report, also a hostile one, of a comparison and of a history, and what they hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks.analysis.comparison.writing import write_comparison
from benchmarks.analysis.history.writing import write_history
from benchmarks.analysis.report import writing
from benchmarks.analysis.report.writing import write_report
from tests import compared, histories
from tests.synthetic import Law, Machine, Noise, Run, ceilings, write_together

NOISE = Noise(0.05, 0.05, 0.02)
LENGTHS = (256, 512, 1024, 2048, 4096)
MODES = ("bidirectional", "causal")
LAWS = {
    **{("standard-sdpa", mode): Law(1.2e-9, 2) for mode in MODES},
    **{("linear-explicit", mode): Law(2e-6, 1) for mode in MODES},
    **{("linear-chunked", mode): Law(1e-6, 1) for mode in MODES},
}
LEFT_OUT = [("standard-sdpa", "causal", 8192, "oom", "out of memory & more")]
HOSTILE = (
    "linear-<script>window.broken=1</script>",
    'linear-"><img src=x onerror="window.broken=1">',
    "standard-</script><!--<script>window.broken=1",
    "linear-' onmouseover=window.broken=1 %{x} @{y} $$a$$ {{ 7 * 7 }}",
)
"""Names of kernels that a page which takes them for more than text would obey."""
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"}
SVG = {"line", "path"}


def report(folder: Path, *, hostile: bool = False) -> Path:
    """Write the page of three runs of two phases and a layer; hostile ones have markup in every text."""
    laws = {(name, mode): Law(1e-6 * (1 + i), 1) for i, name in enumerate(HOSTILE) for mode in MODES}
    machine = Machine(device_name="<b>A card</b>" if hostile else "A card")
    left_out = [("linear-x", "causal", 512, "failed", HOSTILE[1])] if hostile else LEFT_OUT
    run = Run(
        laws if hostile else LAWS, LENGTHS, 2, 3, NOISE, machine, theory=True, subject="operator",
        not_measured=left_out,
    )  # fmt: skip
    layer = replace(run, subject="layer", laws=dict(list(run.laws.items())[:2]), not_measured=())
    files = []
    for seed in range(3):
        runs = [replace(one, seed=seed) for one in (run, replace(run, phase="forward_backward"), layer)]
        files.append(folder / f"{seed}.json")
        write_together(files[-1], runs, ceilings(machine, 2e10, 1e11, (1.0, 1.1, 0.9)))
    with without_pictures():
        write_report(files, folder / "report")
    return folder / "report" / "report.html"


def published(folder: Path, name: str, pattern: str = "*.json.gz") -> Path:
    """Write the page of published runs."""
    files = sorted((Path(writing.__file__).parents[2] / "published" / name).glob(pattern))
    with without_pictures():
        write_report(files, folder)
    return folder / "report.html"


def comparison(folder: Path) -> Path:
    """Write the page of a comparison in which a kernel became slower."""
    head = compared.slower(1.5, ("linear-chunked", "causal"))
    sides = [compared.write(folder, "base", compared.PLAIN), compared.write(folder, "head", head)]
    write_comparison(sides[0], sides[1], folder / "comparison")
    return folder / "comparison" / "report.html"


def history(folder: Path) -> Path:
    """Write the page of a history with a step at its ninth of twelve commits."""
    for number in range(12):
        laws = histories.slower(1.5) if number >= 8 else histories.KERNELS
        histories.store(folder / "runs", number, laws, **histories.SMALL)
    write_history(folder / "runs", folder / "history")
    return folder / "history" / "report.html"


@contextmanager
def without_pictures() -> Iterator[None]:
    """Let a report draw no pictures beside its page, which take most of its time."""
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(writing, "save_pictures", lambda *_: ([], []))
        yield


@dataclass(repr=False)
class Parsed(HTMLParser):
    """A page as a parser of HTML reads it; an element that is closed by another's end is an error."""

    path: Path
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))
        self.close()
        assert self.opened == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert tag in VOID | SVG

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.opened[-1] if self.opened else ""
        (self.scripts if inside in ("script", "style") else self.texts).append(data)

    @property
    def data(self) -> dict[str, Any]:
        """The plots and records of the page."""
        found: dict[str, Any] = json.loads(next(one for one in self.scripts if one.startswith("{")))
        return found


def columns(plot: dict[str, Any], name: str) -> list[list[Any]]:
    """The columns of this name in all sources of a plot."""
    found = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("name") == "ColumnDataSource":
                entries = dict(value["attributes"]["data"]["entries"])
                if name in entries:
                    found.append(entries[name])
            for one in value.values():
                walk(one)
        elif isinstance(value, list):
            for one in value:
                walk(one)

    walk(plot)
    return found
