"""Write a report: pictures, tables and conclusions of measured runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from benchmarks.analysis.document import as_markdown, as_text
from benchmarks.analysis.layout import Screen
from benchmarks.analysis.output import replacing_files, try_folder, written_section
from benchmarks.analysis.page.rendering import save_page
from benchmarks.analysis.plots.saving import save_pictures
from benchmarks.analysis.reading.fields import AMOUNTS, OPTIONAL_AMOUNTS
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.report.cases import case_table
from benchmarks.analysis.report.functions import labelled
from benchmarks.analysis.report.page.making import report_page
from benchmarks.analysis.report.pictures.drawing import STEMS, drawings
from benchmarks.analysis.report.raw import save_raw
from benchmarks.analysis.report.summary import RunEffect, summarise
from benchmarks.analysis.report.text import sections
from benchmarks.analysis.report.wide import STEM as WIDE
from benchmarks.analysis.report.wide import wide_tables
from benchmarks.analysis.serialization import csv_text, json_text


@dataclass(frozen=True)
class Report:
    """A written report: its text for the console, its files, and whether anything had been measured.

    And whether that holds a kernel of the user's own.
    """

    text: str
    files: list[Path]
    measured: bool
    own_measured: bool


def write_report(
    paths: Sequence[str | Path],
    folder: str | Path,
    known: RunEffect = lambda machine: None,
    screen: Screen | None = None,
) -> Report:
    """Read runs, conclude, and write everything into a folder.

    Args:
        paths: JSON files of runs.
        folder: Where to write; made if it does not exist, files of an earlier report in it are replaced.
        known: The effect of a run that a machine is known to have: see `summary.summarise`.
        screen: What the text is shown on.

    Returns:
        The console's text and the files written.

    Raises:
        InputError: The input cannot be used, or the folder cannot be written.
    """
    folder = Path(folder)
    try_folder(folder, "report")
    records = load(paths)
    cases = case_table(records)
    summary = summarise(records, known, cases)
    with replacing_files(folder, "report") as place:
        pictures, failed = save_pictures(drawings(*labelled(summary, cases)), place)
        summary = replace(summary, warnings=[*summary.warnings, *(f"{one}." for one in failed)])
        text = sections(summary, cases)
        page, unmade = save_page(lambda: report_page(*labelled(summary, cases), text), place)
        if unmade:
            summary = replace(summary, warnings=[*summary.warnings, *(f"{one}." for one in unmade)])
            text = sections(summary, cases)
        raw = save_raw(records, place / "profiling_results.npz")
        tables = ("complexity_analysis.csv", "summary.json", "summary.md")
        wide = wide_tables(summary, cases)
        for name, table in {tables[0]: _integers(cases), **wide}.items():
            (place / name).write_text(csv_text(table), encoding="utf-8")
        (place / tables[1]).write_text(json_text(summary), encoding="utf-8")
        (place / tables[2]).write_text(as_markdown(text) + _gallery(pictures), encoding="utf-8")
        names = (*page, *pictures, *([raw.name] if raw else []), tables[0], *wide, *tables[1:])
        files = [folder / name for name in names]
    _remove_files_of_before(folder, {file.name for file in files})
    measured = {one.kernel for one in summary.series}
    return Report(
        as_text([*text, written_section(files)], screen),
        files,
        measured=len(records.rows) > 0,
        own_measured=not measured.isdisjoint(summary.roles.own),
    )


def _remove_files_of_before(folder: Path, written: Collection[str]) -> None:
    """Pictures and wide tables of an earlier report would be taken for those of this one, which has none."""
    for file in (*folder.glob("*.png"), *folder.glob(f"{WIDE}*.csv")):
        if file.name not in written and file.stem.partition("-")[0] in (*STEMS, WIDE):
            with suppress(OSError):
                file.unlink()


def _integers(cases: pd.DataFrame) -> pd.DataFrame:
    """Counts as integers, also in columns where a case that was not measured has none.

    As many queries as keys are told by their number.
    """
    cases = cases.assign(query_len=cases["query_len"].fillna(cases["seq_len"]))
    counts = ("schema", "useful_flops", *AMOUNTS, *OPTIONAL_AMOUNTS, "rounds", "repetitions", "units")
    names = [name for name in counts if name in cases]
    return cases.assign(**{name: pd.to_numeric(cases[name]).convert_dtypes() for name in names})


def _gallery(pictures: Sequence[str]) -> str:
    """The pictures in markdown; their names hold letters, digits, points, dashes and underscores only."""
    return "".join(f"\n![{name.removesuffix('.png').replace('_', ' ')}]({name})\n" for name in pictures)
