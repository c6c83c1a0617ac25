"""The text of a report: the answer in sentences first, then the tables on which it rests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.document import Section, Table
from benchmarks.analysis.reading.roles import USUAL
from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.report.ceilings import Ceiling, Rate
from benchmarks.analysis.report.conclusions import LeftOut, Runs, Series, Summary, headline_kernel
from benchmarks.analysis.report.distributed_text import over_ranks, rank_tables
from benchmarks.analysis.report.evidence import evidence
from benchmarks.analysis.report.functions import labelled, what_they_compute
from benchmarks.analysis.report.headline import headline
from benchmarks.analysis.report.inference import inference
from benchmarks.analysis.report.next_steps import next_steps
from benchmarks.analysis.report.sentences import bend, growth, joined, predicate
from benchmarks.analysis.scaling.firmness import FIRMNESS, RULE

QUANTITIES = {"time": "Time", "peak_bytes": "Peak memory", "energy_j": "Energy"}


def sections(summary: Summary, cases: pd.DataFrame) -> list[Section]:
    """All sections of a report.

    Args:
        summary: What `summary.summarise` concluded.
        cases: What `cases.case_table` made of the same records.
    """
    opening, computed, following = headline(summary), what_they_compute(summary), next_steps(summary)
    summary, cases = labelled(summary, cases)
    settings = list(dict.fromkeys(one.setting for one in summary.series if one.setting.mode))
    own = {one.setting for one in summary.series if one.kernel in summary.roles.own}
    settings.sort(key=lambda setting: (setting.subject != "operator", bool(own) and setting not in own))
    return [
        opening,
        *(_answer(summary, setting) for setting in settings),
        *inference(summary.contexts),
        *over_ranks(summary),
        *computed,
        *following,
        *_ground(summary),
        _warned(summary),
        *_quality(summary),
        *_ceilings(summary.ceilings),
        *rank_tables(summary.over_ranks),
        *(section for setting in settings for section in evidence(summary, cases, setting)),
        *_left_out(summary),
    ]


def _ground(summary: Summary) -> Iterator[Section]:
    """The section on the files, the unit of sampling, the intervals and how firm a conclusion is."""
    files = wording.files([one.file for one in summary.runs.files])
    yield Section("About these numbers", [f"From {files}.", *_units(summary.runs)])


def _units(runs: Runs) -> Iterator[str]:
    """Sentences on the unit of sampling, the intervals and the firmness of what follows."""
    if runs.unit == "mixed":
        yield "The unit of sampling is the run where several files measured a setting, else the repetition."
    elif runs.unit:
        yield f"The unit of sampling is the {runs.unit}; there are {runs.units} of them."
    if runs.run_effect:
        share = wording.percent(runs.run_effect)
        yield (
            "What a run does to all its repetitions does not show between them: a standard deviation of "
            f"{share} of each time is taken for it."
        )
    if runs.unit and runs.units > 1:
        yield (
            "Brackets hold 95 % intervals over the units; of peak memory, which is exact, what the measured "
            "lengths leave open."
        )
    if runs.unit:
        yield f"How firm is it? {RULE}"


def _answer(summary: Summary, setting: Setting) -> Section:
    """Sentences on who is ahead from which length on, the kernel of the headline first."""
    pairs = [pair for pair in summary.crossovers if pair.setting == setting]
    series = [one for one in summary.series if one.setting == setting]
    best = headline_kernel(series, summary.roles)
    sentences = []
    for quantity, name in QUANTITIES.items():
        ours = [pair for pair in pairs if pair.quantity == quantity]
        ours.sort(key=lambda pair: (pair.contender != best, summary.roles.order(pair.contender)))
        for contender, firmness in dict.fromkeys((pair.contender, pair.firmness) for pair in ours):
            alike = [pair for pair in ours if (pair.contender, pair.firmness) == (contender, firmness)]
            sentences.append(f"{name} ({firmness}): {contender} {joined(map(predicate, alike))}.")
    where = f"{wording.what(setting).capitalize()} on {wording.place(setting)}"
    if not sentences:
        nobody = "linear and standard kernel" if summary.roles == USUAL else "contender and baseline"
        sentences = [f"No {nobody} were measured at the same lengths."]
    return Section(where, [*sentences, *_growth(series)])


def _growth(series: Sequence[Series]) -> Iterator[str]:
    """Sentences on the growth of each kernel's time, the firm ones first."""
    for firmness in FIRMNESS:
        words = [
            f"{one.kernel} {growth(one.exponent)}" for one in series if one.exponent.firmness == firmness
        ]
        if words:
            yield f"Growth ({firmness}): {'; '.join(words)}."
    for one in series:
        if one.laws.bent and one.laws.bent.bends_at.kind == "inside":
            yield f"Bend ({one.laws_firmness}): {one.kernel}: {bend(one.laws.bent.bends_at)}."


def _warned(summary: Summary) -> Section:
    return Section("Warnings", summary.warnings or ["None."])


def _quality(summary: Summary) -> Iterator[Section]:
    """The section on unsteady measurements; none where all were steady."""
    if summary.quality:
        yield Section("Quality of the measurements", summary.quality)


def _ceilings(ceilings: Sequence[Ceiling]) -> Iterator[Section]:
    """The table of the copy bandwidth and the matrix rate of every device and dtype."""
    rows, stacks = [], []
    for one in ceilings:
        machine, how = wording.machine(one), f"{one.dtype}, {one.clock} clock"
        stacks.append((machine, how))
        rows.append(
            [f"{machine}, {how}", _rate_cell(one.bytes_per_s, "B/s"), _rate_cell(one.flops_per_s, "FLOP/s")]
        )
    if rows:
        table = Table(["device", "copy, read + written", "matrix rate"], rows, stacks)
        notes = [
            "Median over the units; in parentheses the lowest and the highest unit. The floor of a case is "
            "the larger of its least bytes / copy bandwidth and its FLOPs / matrix rate."
        ]
        yield Section("Ceilings", table=table, notes=notes)


def _rate_cell(rate: Rate | None, unit: str) -> str:
    return "not measured" if rate is None else wording.amount_range(rate.value, rate.low, rate.high, unit)


def _left_out(summary: Summary) -> Iterator[Section]:
    """The section on cases without times, each reason with all its lengths."""
    gone = [LeftOut.of(row) for row in summary.not_measured.to_dict("records")]
    attention = [one.setting for one in summary.series]
    attention += [one.case.setting for one in gone if one.case.setting.subject != "ceiling"]
    places = {wording.place(setting) for setting in attention if setting.heads}
    lengths: dict[tuple[str, str], list[int]] = {}
    for one in gone:
        case, setting = one.case, one.case.setting
        ending = f"({wording.OUTCOME_WORDS[one.outcome]}): {one.reason.rstrip('.')}."
        if setting.subject == "ceiling":
            name = f"{case.kernel}, {wording.machine(setting)}, {setting.dtype}"
        else:
            name = f"{case.kernel}, {wording.what(setting)}"
            ending += f" [{wording.place(setting)}]" if len(places) > 1 else ""
        alike = lengths.setdefault((name, ending), [])
        if setting.subject != "ceiling" and case.seq_len is not None:
            alike.append(case.seq_len)
    sentences = [
        name + (f", N = {wording.ranges(ns)}" if ns else "") + f" {ending}"
        for (name, ending), ns in lengths.items()
    ]
    if sentences:
        yield Section("Not measured", sentences)
