"""Write a comparison: what changed between two sets of runs, as text, JSON and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.analysis.comparison.conclusions import Comparison
from benchmarks.analysis.comparison.picture import save_comparison
from benchmarks.analysis.comparison.regression import MARGIN, compare
from benchmarks.analysis.comparison.text import sections
from benchmarks.analysis.document import Section, as_markdown, as_text
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
) -> WrittenComparison:
    """Read two sets of runs, compare them, and write comparison.json, comparison.png and summary.md.

    Args:
        base_files: JSON files of the runs compared with.
        head_files: JSON files of the runs compared.
        output: Folder for the files; made if it does not exist.
        margin: See `regression.compare`, as `paired` and `noise`.
        paired: Whether the runs are pairs.
        noise: The known noise of this machine between equal commits.
        format: Of the text: one of `FORMATS`.

    Raises:
        InputError: The input cannot be used or compared, or the folder cannot be written.
    """
    comparison = compare(load(base_files), load(head_files), margin=margin, paired=paired, noise=noise)
    parts, folder = sections(comparison), Path(output)
    files = [folder / name for name in ("comparison.json", "summary.md", "comparison.png")]
    json = json_text(comparison)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files[0].write_text(json, encoding="utf-8")
        files[1].write_text(as_markdown(parts), encoding="utf-8")
        save_comparison(comparison, files[2])
    except OSError as error:
        raise InputError(
            f"the comparison cannot be written to {folder} ({error.strerror}); name another folder with -o"
        ) from None
    written = Section("Written", [", ".join(map(str, files))])
    texts = {"json": json, "markdown": as_markdown(parts), "text": as_text([*parts, written])}
    return WrittenComparison(texts[format], files, comparison)
