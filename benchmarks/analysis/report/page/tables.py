"""The tables of a report's page, which a reader sorts and filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.page.content import Cell, Grid
from benchmarks.analysis.report import sentences
from benchmarks.analysis.report.cases import spread
from benchmarks.analysis.report.conclusions import PairCrossover, Series, Summary
from benchmarks.analysis.report.energies import ENERGY, OF_TOKEN
from benchmarks.analysis.report.page.amounts import bytes_words
from benchmarks.analysis.report.page.points import interval_words, known, number

AMOUNTS: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "flops": ("FLOPs", lambda value: wording.amount(value, "FLOP")),
    "min_bytes": ("least bytes", bytes_words),
    "peak_bytes": ("peak memory", bytes_words),
    ENERGY: ("energy", wording.joules),
    OF_TOKEN: ("energy a token", wording.joules),
}
"""Columns of amounts, with their names and words."""


def cases_grid(cases: pd.DataFrame) -> Grid:
    """A row for each case, measured or not, with its record."""
    amounts = {field: words for field, words in AMOUNTS.items() if field in cases}
    headers = ["kernel", "mode", "N", "median time", "95 % interval", "spread", "rounds"]
    headers += [name for name, _ in amounts.values()] + ["of the floor", "outcome"]
    rows, records = [], []
    left_out = cases["outcome"] != "measured"
    for index, case in pd.concat([cases[~left_out], cases[left_out]]).iterrows():
        length = None if pd.isna(case["seq_len"]) else float(case["seq_len"])
        row = [
            Cell(str(case["kernel"])),
            _mode(case["mode"], case["ranks"]),
            Cell("-" if length is None else f"{length:.0f}", length),
            *_times(case),
        ]
        for field, (_, say) in amounts.items():
            value = known(case[field])
            row.append(Cell(say(value), value))
        share, outcome = known(case["floor_share"]), str(case["outcome"])
        row += [Cell(wording.percent(share), share), Cell(wording.OUTCOME_WORDS.get(outcome, outcome))]
        rows.append(row)
        records.append(number(index))
    notes = ["spread: half the range of the units, or of the middle half of the rounds of a single unit."]
    return Grid("Cases", headers, rows, records, notes)


def _mode(mode: object, ranks: Any) -> Cell:
    """A mode, and how many share a sequence where several may."""
    return Cell(f"{mode}" if pd.isna(ranks) else f"{mode}, {wording.count(int(ranks), 'rank')}")


def _times(case: pd.Series) -> Iterator[Cell]:
    if case["outcome"] != "measured":
        yield from (Cell("-") for _ in range(4))
        return
    wide = spread(case)
    yield Cell(wording.seconds(case["median_s"]), float(case["median_s"]))
    yield Cell(interval_words(case), known(case["interval_low_s"]))
    yield Cell(wording.percent(wide), wide)
    yield Cell(f"{case['rounds']:.0f}", float(case["rounds"]))


def crossovers_grid(pairs: Sequence[PairCrossover]) -> Iterator[Grid]:
    """A row for each pair of a contender and a baseline, in time and in memory; none without any."""
    words = {"time": "time", "peak_bytes": "peak memory", ENERGY: "energy"}
    rows = [
        [
            Cell(pair.contender),
            Cell(pair.baseline),
            _mode(pair.setting.mode, pair.setting.ranks),
            Cell(words.get(pair.quantity, pair.quantity)),
            Cell(sentences.short_crossover(pair).removeprefix(f"{pair.contender} against {pair.baseline}: ")),
            Cell("-" if pair.found.n is None else f"{pair.found.n:.0f}", known(pair.found.n)),
            Cell(pair.firmness),
        ]
        for pair in pairs
    ]
    headers = ["contender", "baseline", "mode", "quantity", "crossover", "N*", "how firm"]
    if rows:
        yield Grid("Crossovers", headers, rows)


def exponents_grid(series: Sequence[Series]) -> Iterator[Grid]:
    """A row for each series with its exponents; none without any."""
    energy = ["p of energy"] if any(one.energy_exponent for one in series) else []
    rows = [
        [
            Cell(one.kernel),
            _mode(one.setting.mode, one.setting.ranks),
            _number(
                one.exponent.value, wording.interval(one.exponent.value, one.exponent.low, one.exponent.high)
            ),
            Cell(one.exponent.verdict),
            Cell(one.exponent.firmness),
            _number(one.flops_exponent),
            _number(one.peak_bytes_exponent),
            *(_number(one.energy_exponent.value if one.energy_exponent else None) for _ in energy),
            Cell(wording.seconds(one.overhead_s), known(one.overhead_s)),
        ]
        for one in series
    ]
    headers = [
        "kernel",
        "mode",
        "p of time ~ N^p",
        "verdict",
        "how firm",
        "p of FLOPs",
        "p of memory",
        *energy,
        "overhead",
    ]
    if rows:
        yield Grid("Exponents", headers, rows)


def _number(value: float | None, words: str | None = None) -> Cell:
    return Cell(wording.interval(value, None, None) if words is None else words, value)


def left_out_grid(cases: pd.DataFrame) -> Iterator[Grid]:
    """A row for each case that was asked for and not measured, with the reason; none without any."""
    gone = cases[cases["outcome"] != "measured"]
    rows = [
        [
            Cell(str(case["kernel"])),
            *(Cell(str(case[field])) for field in ("mode", "phase", "device", "dtype")),
            Cell("-", None)
            if pd.isna(case["seq_len"])
            else Cell(f"{case['seq_len']}", float(case["seq_len"])),
            Cell(wording.OUTCOME_WORDS.get(str(case["outcome"]), str(case["outcome"]))),
            Cell(str(case["reason"])),
        ]
        for _, case in gone.iterrows()
    ]
    headers = ["kernel", "mode", "phase", "device", "dtype", "N", "outcome", "reason"]
    if rows:
        yield Grid("Left out, and why", headers, rows, [number(index) for index in gone.index])


def runs_grid(summary: Summary, first: int) -> Grid:
    """A row for each file; the records of the runs begin at a number."""
    machines = summary.runs.machines
    rows = [
        [
            Cell(one.file),
            Cell(one.datetime or "-"),
            Cell((one.commit or "-")[:12]),
            Cell(one.node or "-"),
            Cell(machines[one.machine].fingerprint),
        ]
        for one in summary.runs.files
    ]
    headers = ["file", "time", "commit", "host", "machine"]
    return Grid("Runs and their conditions", headers, rows, list(range(first, first + len(rows))))


def run_records(summary: Summary) -> Iterator[Mapping[str, Any]]:
    """What each file says of its run."""
    for one in summary.runs.files:
        yield {"key": one.file, "machine": summary.runs.machines[one.machine].fingerprint, **one.run}
