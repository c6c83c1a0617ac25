"""The text of a report: the answer in sentences first, then the tables it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.document import Section, Table
from benchmarks.analysis.reading.setting import SETTING, Setting
from benchmarks.analysis.report.evidence import evidence
from benchmarks.analysis.report.summary import best_linear, same
from benchmarks.analysis.scaling.firmness import FIRMNESS, RULE

MOST_NAMES = 5
"""Files are named up to here; many runs of one experiment need no list."""
QUANTITIES = {"time": "Time", "peak_bytes": "Peak memory"}


def sections(summary: Mapping[str, Any], cases: pd.DataFrame) -> list[Section]:
    """The whole text.

    Args:
        summary: What `summary.summarise` concluded.
        cases: What `cases.case_table` made of the same records.
    """
    settings = [{field: one[field] for field in SETTING} for one in summary["series"] if one["mode"]]
    settings.sort(key=lambda setting: setting["subject"] != "operator")
    unique = list({tuple(setting.values()): setting for setting in settings}.values())
    return [
        _head(summary),
        *(_answer(summary, setting) for setting in unique),
        _warned(summary),
        *_quality(summary),
        *_ceilings(summary["ceilings"]),
        *(section for setting in unique for section in evidence(summary, cases, setting)),
        *_left_out(summary),
    ]


def _head(summary: Mapping[str, Any]) -> Section:
    names = [one["file"] for one in summary["runs"]["files"]]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    files = f"From {wording.count(len(names), 'file')}: {', '.join(names[:MOST_NAMES])}{more}."
    only_ceilings = summary["ceilings"] and not summary["series"]
    title = "What the devices can do" if only_ceilings else "Linear against standard attention"
    return Section(title, [files, *_units(summary["runs"])], level=1)


def _units(runs: Mapping[str, Any]) -> Iterator[str]:
    """What a unit of sampling is, without which no interval means anything."""
    if runs["unit"] == "mixed":
        yield "The unit of sampling is the run where several files measured a setting, else the repetition."
    elif runs["unit"]:
        yield f"The unit of sampling is the {runs['unit']}; there are {runs['units']} of them."
    if runs["unit"] and runs["units"] > 1:
        yield "Brackets hold 95 % intervals over the units."
    if runs["unit"]:
        yield f"How firm is it? {RULE}"


def _answer(summary: Mapping[str, Any], setting: Mapping[str, Any]) -> Section:
    """Who wins from which length on, the best linear kernel first."""
    crossovers = [one for one in summary["crossovers"] if same(one, setting)]
    series = [one for one in summary["series"] if same(one, setting)]
    best = best_linear(series)
    sentences = []
    for quantity, name in QUANTITIES.items():
        ours = [one for one in crossovers if one["quantity"] == quantity]
        ours.sort(key=lambda one: (one["linear"] != best, one["linear"]))
        for linear, firmness in dict.fromkeys((one["linear"], one["firmness"]) for one in ours):
            alike = [one for one in ours if (one["linear"], one["firmness"]) == (linear, firmness)]
            sentences.append(f"{name} ({firmness}): {linear} {_merged(alike)}.")
    known = Setting.of(setting)
    where = f"{wording.what(known).capitalize()} on {wording.place(known)}"
    sentences = sentences or ["No linear and standard kernel were measured at the same lengths."]
    return Section(where, [*sentences, *_growth(series)])


def _growth(series: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How the time of each kernel grows, the firm statements first."""
    for firmness in FIRMNESS:
        words = []
        for one in series:
            p = one["exponent"]
            if p["firmness"] == firmness:
                value = wording.interval(p["value"], p["low"], p["high"])
                words.append(
                    f"{one['kernel']} {p['verdict']}" + ("" if firmness == "open" else f", p = {value}")
                )
        if words:
            yield f"Growth ({firmness}): {'; '.join(words)}."


def _merged(crossovers: Sequence[Mapping[str, Any]]) -> str:
    """One sentence for one linear kernel: rivals with the same fate together, and no verb twice in a row."""
    fates: dict[tuple[str, str], list[str]] = {}
    for one in crossovers:
        head, _, tail = wording.crossover(one, subject=False).partition(f" {one['standard']}")
        fates.setdefault((head, tail), []).append(one["standard"])
    sentence, verb = "", ""
    for (head, tail), standards in sorted(fates.items(), key=lambda fate: fate[0][0]):
        rivals = " and ".join(filter(None, [", ".join(standards[:-1]), standards[-1]])) + tail
        joint = ", " if head == verb else f"; {head} " if sentence else f"{head} "
        sentence, verb = sentence + joint + rivals, head
    return sentence


def _warned(summary: Mapping[str, Any]) -> Section:
    return Section("Warnings", summary["warnings"] or ["None."])


def _quality(summary: Mapping[str, Any]) -> Iterator[Section]:
    """What was unstable, and what to try; nothing where all was steady."""
    if summary["quality"]:
        yield Section("Quality of the measurements", summary["quality"])


def _ceilings(ceilings: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    """The copy bandwidth and the matrix rate of every device and dtype."""
    rows = []
    for one in ceilings:
        device = wording.machine(Setting.of({**dict.fromkeys(SETTING), **one}))
        where = f"{device}, {one['dtype']}, {one['clock']} clock"
        bandwidth = _ceiling_cell(one["bytes_per_s"], "B/s")
        rows.append([where, bandwidth, _ceiling_cell(one["flops_per_s"], "FLOP/s")])
    if rows:
        table = Table(["device", "copy bandwidth, read + written", "matrix rate"], rows)
        notes = [
            "Median over the units; in parentheses the lowest and the highest unit. The floor of a case is "
            "the larger of its least bytes / copy bandwidth and its FLOPs / matrix rate."
        ]
        yield Section("Ceilings", table=table, notes=notes)


def _ceiling_cell(ceiling: Mapping[str, Any] | None, unit: str) -> str:
    if ceiling is None:
        return "not measured"
    return wording.amount_range(ceiling["value"], ceiling["low"], ceiling["high"], unit)


def _left_out(summary: Mapping[str, Any]) -> Iterator[Section]:
    """What was not measured and why, lengths of the same reason together."""
    attention = [*summary["series"], *(one for one in summary["not_measured"] if one["subject"] != "ceiling")]
    places = {wording.place(Setting.of(one)) for one in attention if one["heads"]}
    lengths: dict[tuple[str, str, str], list[int]] = {}
    for one in summary["not_measured"]:
        ending = f"({wording.OUTCOME_WORDS[one['outcome']]}): {one['reason'].rstrip('.')}."
        if one["subject"] == "ceiling":
            name = f"{one['kernel']}, {wording.machine(Setting.of(one))}, {one['dtype']}"
        else:
            name = f"{one['kernel']}, {wording.what(Setting.of(one))}"
            ending += f" [{wording.place(Setting.of(one))}]" if len(places) > 1 else ""
        lengths.setdefault((one["subject"], name, ending), []).append(one["seq_len"])
    sentences = [
        f"{name} {ending}" if subject == "ceiling" else f"{name}, N = {wording.ranges(ns)} {ending}"
        for (subject, name, ending), ns in lengths.items()
    ]
    if sentences:
        yield Section("Not measured", sentences)
