"""Sentences naming what is missing, what stands on weak ground, and what cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.reading.fields import FAMILIES
from benchmarks.analysis.reading.machines import differences, machine_names
from benchmarks.analysis.reading.records import Records, groups
from benchmarks.analysis.reading.run_info import RunInfo
from benchmarks.analysis.reading.setting import SETTING, Setting
from benchmarks.analysis.report.ceilings import ceiling_of

WHERE = tuple(field for field in SETTING if field != "mode")
BOTH_MODES = {"bidirectional", "causal"}
WHAT_TO_CHECK = (
    "What to check where a case is faster than its ceilings allow: the clock; whether the working set stays "
    "in a cache, whose bandwidth is above the memory's; whether the function is asynchronous and returns "
    "before its work is done; its FLOP formula; and whether the ceilings were measured in a slower moment."
)


def name_caveats(
    records: Records,
    series: Sequence[Mapping[str, Any]],
    crossovers: Sequence[Mapping[str, Any]],
    ceilings: Sequence[Mapping[str, Any]],
) -> list[str]:
    """All of them, as a report shows them."""
    if records.rows.empty:
        return ["Nothing was measured."]
    return [
        *_impossible(series),
        *_apart(records),
        *_differences(records),
        *_missing(records.rows),
        *_without_ceilings(series, ceilings),
        *_of_crossovers(crossovers),
    ]


def _impossible(series: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What took less time than its floor."""
    found: dict[str, list[str]] = {}
    for one in series:
        shares = zip(one["seq_lens"], one["floor_share"], strict=True)
        above = {length: share for length, share in shares if share > 1}
        if above:
            where = f"{wording.what(Setting.of(one))} on {wording.place(Setting.of(one))}"
            lengths = (
                f"N = {', '.join(map(str, above))} ({wording.percent(max(above.values()))} of the floor)"
            )
            found.setdefault(where, []).append(f"{one['kernel']} at {lengths}")
    for where, cases in found.items():
        yield f"Impossible, faster than the ceilings allow, {where}: {'; '.join(cases)}."
    if found:
        yield WHAT_TO_CHECK


def _apart(records: Records) -> Iterator[str]:
    """The machines whose rows are not pooled, and what makes them several."""
    machines: dict[str, list[RunInfo]] = {}
    names = machine_names([run.machine for run in records.runs])
    for name, run in zip(names, records.runs, strict=True):
        machines.setdefault(name, []).append(run)
    (one, runs), *others = machines.items()
    for other, its_runs in others:
        both = " and ".join(
            f"{name} ({wording.listed([run.file for run in files])})"
            for name, files in ((one, runs), (other, its_runs))
        )
        facts = differences(runs[0].machine, its_runs[0].machine)
        yield f"Not pooled and not compared: {both} differ in {'; '.join(facts)}."


def _differences(records: Records) -> Iterator[str]:
    """Files whose rows are pooled although the code differs."""
    pooled = records.rows[records.rows["unit_kind"] == "run"]
    runs = [records.runs[index] for index in sorted(pooled["run"].unique())]
    if len({run.commit.id for run in runs}) > 1:
        yield "The files pooled here were measured at different commits."


def _missing(rows: pd.DataFrame) -> Iterator[str]:
    """What else must be measured before there is something to compare."""
    for place, group in groups(rows[rows["family"].isin(FAMILIES)], WHERE):
        setting = Setting.of({**place, "mode": None})
        where = f"{wording.phase(setting)} on {wording.place(setting)}"
        if place["subject"] == "operator":
            for mode in sorted(BOTH_MODES - set(group["mode"])):
                yield f"No {mode} case was measured, {where}."
        for family in FAMILIES:
            if family not in set(group["family"]):
                yield f"No {family} kernel was measured, {where}: there is nothing to compare with."
        if group["seq_len"].nunique() < 3:
            found = ", ".join(str(length) for length in sorted(group["seq_len"].unique()))
            yield f"Only N = {found} was measured, {where}: exponents and fits need 3 lengths."
        if group["unit"].nunique() < 2:
            unit = group["unit_kind"].iloc[0]
            yield f"A single {unit} allows no intervals, {where}: measure at least 3 repetitions."


def _without_ceilings(
    series: Sequence[Mapping[str, Any]], ceilings: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Operators that cannot be compared with what their device can do."""
    operators = [one for one in series if one["subject"] == "operator" and one["family"] in FAMILIES]
    without = [one for one in operators if not ceiling_of(one, ceilings)]
    places = [f"{one['device']} {one['dtype']}, {one['clock']} clock" for one in without]
    if places:
        where = f" of {' and '.join(dict.fromkeys(places))}" if ceilings else ""
        yield (
            f"No ceilings{where} were measured, so no share of the floor and no roofline.png can be shown: "
            "run `pytest benchmarks` without deselecting test_ceilings."
        )


def _of_crossovers(crossovers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    notes: dict[str, list[str]] = {}
    for result in crossovers:
        pair = f"{result['linear']} against {result['standard']} ({wording.what(Setting.of(result))})"
        for note in result["notes"]:
            notes.setdefault(note, []).append(pair)
    for note, pairs in notes.items():
        yield f"{', '.join(pairs)}: {note}."
