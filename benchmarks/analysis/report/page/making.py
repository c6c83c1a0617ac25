"""The page of a report: its answer first, then a tab for each setting, then what it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from benchmarks.analysis.document import Section
from benchmarks.analysis.page.content import Grid, Page, Tab
from benchmarks.analysis.page.naming import tab_names
from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.report.cases import agreeing
from benchmarks.analysis.report.conclusions import Summary
from benchmarks.analysis.report.distributed_text import rank_tables
from benchmarks.analysis.report.evidence import evidence
from benchmarks.analysis.report.page.charts import charts
from benchmarks.analysis.report.page.layers import layer_charts
from benchmarks.analysis.report.page.ranks import rank_charts
from benchmarks.analysis.report.page.tables import (
    cases_grid,
    crossovers_grid,
    exponents_grid,
    left_out_grid,
    run_records,
    runs_grid,
)
from benchmarks.analysis.report.pictures.distributed import rank_views
from benchmarks.analysis.report.pictures.layers import LayerView, layer_views
from benchmarks.analysis.report.pictures.views import views

GROUND = ("About these numbers", "Warnings", "Quality of the measurements", "Ceilings")
"""Sections that the console prints between the answer and the tables, and the page behind them."""


def report_page(summary: Summary, cases: pd.DataFrame, text: Sequence[Section]) -> Page:
    """The page of a report.

    Args:
        summary: What `summary.summarise` concluded, and `functions.labelled` named.
        cases: What `cases.case_table` made of the same records, likewise.
        text: The sections of the console.
    """
    found = [*_operator_tabs(summary, cases), *_rank_tabs(summary, cases), *_layer_tabs(summary, cases)]
    names = tab_names([setting for setting, _ in found])
    tabs = [
        Tab(name, tab.about, tab.charts, tab.grids, tab.sections, tab.kernels)
        for name, (_, tab) in zip(names, found, strict=True)
    ]
    in_tabs = [section for tab in tabs for section in tab.sections]
    rest = [section for section in text if section not in in_tabs]
    firsts = [place for place, section in enumerate(text) if section in in_tabs]
    before = text[: firsts[0]] if firsts else text[:1]
    answer = [section for section in before if section.title not in GROUND]
    return Page(
        answer,
        tabs,
        ground=[section for section in rest if section not in answer],
        grids=[*left_out_grid(cases), runs_grid(summary, first=len(cases))],
        records=[*map(_plain, cases.to_dict("records")), *run_records(summary)],
    )


def _operator_tabs(summary: Summary, cases: pd.DataFrame) -> Iterator[tuple[Setting, Tab]]:
    for _, view in views(summary, cases):
        series = [one for ours in view.series.values() for one in ours]
        shown = {one.kernel for one in series}
        yield (
            view.setting,
            Tab(
                "",
                _capital(view.subtitle),
                list(charts(view)),
                [cases_grid(view.cases), *crossovers_grid(view.crossovers), *exponents_grid(series)],
                _sections(summary, cases, list(dict.fromkeys(one.setting for one in series))),
                {kernel: look for kernel, look in view.looks.items() if kernel in shown},
            ),
        )


def _rank_tabs(summary: Summary, cases: pd.DataFrame) -> Iterator[tuple[Setting, Tab]]:
    for _, view in rank_views(summary.over_ranks):
        settings = [one.setting for one in summary.series if view.holds(one.setting)]
        series = [one for one in summary.series if one.setting in settings]
        pairs = [pair for pair in summary.crossovers if pair.setting in settings]
        tables = rank_tables(one for ours in view.kernels.values() for one in ours)
        ours = [cases_grid(pd.concat([agreeing(cases, one) for one in dict.fromkeys(settings)]))]
        yield (
            view.setting,
            Tab(
                "",
                _capital(view.subtitle),
                list(rank_charts(view)),
                [*ours, *crossovers_grid(pairs), *exponents_grid(series)],
                [*tables, *_sections(summary, cases, list(dict.fromkeys(settings)))],
                view.looks,
            ),
        )


def _layer_tabs(summary: Summary, cases: pd.DataFrame) -> Iterator[tuple[Setting, Tab]]:
    for _, view in layer_views(cases):
        settings = view.environments
        pairs = [pair for pair in summary.crossovers if pair.setting in settings]
        series = [one for one in summary.series if one.setting in settings]
        yield (
            settings[0],
            Tab(
                "",
                _capital(view.subtitle),
                list(layer_charts(view)),
                [_layer_cases(view, cases), *crossovers_grid(pairs), *exponents_grid(series)],
                _sections(summary, cases, settings),
                view.looks,
            ),
        )


def _layer_cases(view: LayerView, cases: pd.DataFrame) -> Grid:
    return cases_grid(pd.concat([agreeing(cases, setting) for setting in view.environments]))


def _sections(summary: Summary, cases: pd.DataFrame, settings: Sequence[Setting]) -> list[Section]:
    return [section for setting in settings for section in evidence(summary, cases, setting)]


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _plain(record: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in record.items()}
