"""Write a comparison: what changed between two sets of runs, as text, JSON and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.analysis.comparison.conclusions import Comparison
from benchmarks.analysis.comparison.page import comparison_page
from benchmarks.analysis.comparison.picture import comparison_picture
from benchmarks.analysis.comparison.regression import MARGIN, compare
from benchmarks.analysis.comparison.text import sections
from benchmarks.analysis.document import as_markdown, as_text
from benchmarks.analysis.layout import Screen
from benchmarks.analysis.output import replacing_files, try_folder, written_section
from benchmarks.analysis.page.rendering import save_page
from benchmarks.analysis.plots.saving import save_pictures
from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.serialization import json_text

FORMATS = ("text", "markdown", "json")


@dataclass(frozen=True)
class WrittenComparison:
    """A written comparison: its text in the format asked for, its files, and what it concludes."""

    text: str
    files: list[Path]
    found: Comparison


def write_comparison(
    base_files: Sequence[str | Path],
    head_files: Sequence[str | Path],
    output: str | Path,
    *,
    margin: float = MARGIN,
    paired: bool | None = None,
    noise: float | None = None,
    format: str = "text",
    screen: Screen | None = None,
) -> WrittenComparison:
    """Read two sets of runs, compare them, and write its page, object, picture and summary.

    Args:
        base_files: JSON files of the runs compared with.
        head_files: JSON files of the runs compared.
        output: Folder for the files; made if it does not exist.
        margin: See `regression.compare`, as `paired` and `noise`.
        paired: Whether the runs are pairs.
        noise: The known noise of this machine between equal commits.
        format: Of the text: one of `FORMATS`.
        screen: What a plain text is shown on.

    Raises:
        InputError: The input cannot be used or compared, or the folder cannot be written.
    """
    folder = Path(output)
    try_folder(folder, "comparison")
    base, head = load(base_files), load(head_files)
    for run in base.places.keys() & head.places.keys():
        raise InputError(f"{head.places[run]} and {base.places[run]} are one run, and a run is on one side")
    comparison = compare(base, head, margin=margin, paired=paired, noise=noise)
    with replacing_files(folder, "comparison") as place:
        drawings = {"comparison.png": lambda: comparison_picture(comparison)}
        pictures, failed = save_pictures(drawings, place)
        comparison = replace(comparison, warnings=[*comparison.warnings, *(f"{one}." for one in failed)])
        parts = sections(comparison)
        page, unmade = save_page(lambda: comparison_page(comparison, parts), place)
        if unmade:
            comparison = replace(comparison, warnings=[*comparison.warnings, *(f"{one}." for one in unmade)])
            parts = sections(comparison)
        json = json_text(comparison)
        (place / "comparison.json").write_text(json, encoding="utf-8")
        (place / "summary.md").write_text(as_markdown(parts), encoding="utf-8")
    files = [folder / name for name in (*page, "comparison.json", "summary.md", *pictures)]
    texts = {
        "json": json,
        "markdown": as_markdown(parts),
        "text": as_text([*parts, written_section(files)], screen),
    }
    return WrittenComparison(texts[format], files, comparison)
