"""Write a report: pictures, tables and conclusions of measured runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.analysis.document import Section, as_markdown, as_text
from benchmarks.analysis.reading.fields import AMOUNTS, OPTIONAL_AMOUNTS, InputError
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.report.cases import case_table
from benchmarks.analysis.report.pictures.drawing import draw_pictures
from benchmarks.analysis.report.raw import save_raw
from benchmarks.analysis.report.summary import RunEffect, summarise
from benchmarks.analysis.report.text import sections
from benchmarks.analysis.serialization import json_text


@dataclass(frozen=True)
class Report:
    """A written report: its text for the console, its files, and whether anything had been measured."""

    text: str
    files: list[Path]
    measured: bool


def write_report(
    paths: Sequence[str | Path], folder: str | Path, known: RunEffect = lambda machine: None
) -> Report:
    """Read runs, conclude, and write everything into a folder.

    Args:
        paths: JSON files of runs.
        folder: Where to write; made if it does not exist, files of an earlier report in it are replaced.

        known: The effect of a run that a machine is known to have: see `summary.summarise`.

    Returns:
        The console's text and the files written.

    Raises:
        InputError: The input cannot be used, or the folder cannot be written.
    """
    records = load(paths)
    cases = case_table(records)
    summary = summarise(records, known, cases)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = draw_pictures(summary, cases, folder)
        text = sections(summary, cases)
        raw = save_raw(records, folder / "profiling_results.npz")
        files = [
            *pictures,
            *([raw] if raw else []),
            *(folder / name for name in ("complexity_analysis.csv", "summary.json", "summary.md")),
        ]
        _integers(cases).to_csv(files[-3], index=False)
        files[-2].write_text(json_text(summary), encoding="utf-8")
        files[-1].write_text(as_markdown(text) + _gallery(pictures), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the report cannot be written to {folder} ({error.strerror}); name another folder with -o"
        ) from None
    written = Section("Written", [", ".join(str(file) for file in files)])
    return Report(as_text([*text, written]), files, measured=len(records.rows) > 0)


def _integers(cases: pd.DataFrame) -> pd.DataFrame:
    """Counts as integers, also in columns where a case that was not measured has none."""
    names = [
        name for name in (*AMOUNTS, *OPTIONAL_AMOUNTS, "rounds", "repetitions", "units") if name in cases
    ]
    return cases.assign(**{name: pd.to_numeric(cases[name]).convert_dtypes() for name in names})


def _gallery(pictures: Sequence[Path]) -> str:
    return "".join(f"\n![{picture.stem.replace('_', ' ')}]({picture.name})\n" for picture in pictures)
