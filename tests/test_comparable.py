"""Comparable runs: pairs, machines, and cases that one side lacks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from benchmarks.analysis.comparison.conclusions import UnitCounts
from benchmarks.analysis.comparison.picture import comparison_picture
from benchmarks.analysis.comparison.regression import compare
from benchmarks.analysis.comparison.text import sections
from benchmarks.analysis.document import as_text
from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.reading.records import load
from tests.compared import LAWS, PLAIN, Content, having, other_machine, records, slower, write
from tests.synthetic import DOUBLINGS, Run


def test_a_comparison_of_one_run_a_side_is_tentative_and_finds_a_large_change(tmp_path: Path) -> None:
    base, head = (replace(run, repetitions=3) for run in (PLAIN, slower(1.5, ("linear-explicit", "causal"))))
    found = compare(records(tmp_path, "base", base, 1), records(tmp_path, "head", head, 1))
    assert found.tentative and found.unit == "repetition"
    assert {(one.case.kernel, one.case.setting.mode) for one in having(found.cases, "slower")} == {
        ("linear-explicit", "causal")
    }
    assert "Tentative: there is one run a side, so 2 % are assumed" in as_text(sections(found))


def test_a_comparison_of_two_pairs_calls_only_changes_that_no_states_of_processes_make(
    tmp_path: Path,
) -> None:
    base = records(tmp_path, "base", PLAIN, 2)
    found = [compare(base, records(tmp_path, "head", slower(factor), 2)) for factor in (1.3, 2)]
    assert [one.regressed for one in found] == [False, True]
    assert not having(found[0].cases, "slower") and not having(found[1].cases, "faster")
    assert "Only a change surely beyond 40 % raises an alarm" in " ".join(as_text(sections(found[0])).split())


def test_one_head_run_is_compared_with_several_base_runs(tmp_path: Path) -> None:
    head = slower(1.3, ("linear-explicit", "causal"))
    found = compare(records(tmp_path, "base", PLAIN, 5), records(tmp_path, "head", head, 1))
    assert (found.unit, found.units) == ("run", UnitCounts(5, 1))
    assert {one.case.kernel for one in having(found.cases, "slower", "faster")} == {"linear-explicit"}


# Pairs and machines


def in_a_row(content: Content) -> None:
    content["datetime"] = content["datetime"].replace(
        "2025", str(2020 + ord(content["commit_info"]["id"][0]))
    )


def test_runs_measured_one_side_after_the_other_are_not_paired(tmp_path: Path) -> None:
    base, head = (records(tmp_path, side, PLAIN, edit=in_a_row) for side in ("base", "head"))
    assert compare(base, head).unit == "run"
    assert compare(base, head, paired=True).unit == "pair"


def test_numbered_runs_are_paired_whatever_their_order(tmp_path: Path) -> None:
    """Both runs of a pair are slower by the same factor, which cancels in pairs only."""

    def files(side: str, run: Run, order: Sequence[int]) -> list[Path]:
        written = write(tmp_path, side, run, 5, in_a_row)
        for pair, file in enumerate(written):
            content = json.loads(file.read_text())
            content["run"]["pair"] = pair
            for row in content["benchmarks"]:
                row["stats"]["data"] = [second * 1.5**pair for second in row["stats"]["data"]]
            file.write_text(json.dumps(content))
        return [written[pair] for pair in order]

    base = load(files("base", PLAIN, (0, 1, 2, 3, 4)))
    head = load(files("head", slower(1.2), (3, 1, 4, 0, 2)))
    found = compare(base, head)
    assert found.unit == "pair" and {one.verdict for one in found.cases} == {"slower"}
    apart = compare(base, head, paired=False)
    assert {one.verdict for one in apart.cases} == {"inconclusive"}


def test_pairs_of_unequal_numbers_of_runs_are_refused(tmp_path: Path) -> None:
    base, head = records(tmp_path, "base", PLAIN, 3), records(tmp_path, "head", PLAIN, 2)
    with pytest.raises(InputError, match="3 runs of the base and 2 of the head; give as many of either"):
        compare(base, head, paired=True)


def test_runs_of_different_machines_are_not_compared(tmp_path: Path) -> None:
    base = records(tmp_path, "base", PLAIN)
    head = records(tmp_path, "head", PLAIN, edit=other_machine)
    with pytest.raises(InputError, match=r"nothing is comparable.*CPU: Synthetic and Another CPU"):
        compare(base, head)


def test_cases_of_another_machine_are_incomparable_and_all_other_cases_compared(tmp_path: Path) -> None:
    on_cpu = replace(PLAIN, laws={("linear-chunked", "causal"): LAWS["linear-chunked", "causal"]})
    elsewhere = replace(PLAIN, laws={("linear-explicit", "causal"): LAWS["linear-explicit", "causal"]})
    both = replace(PLAIN, laws={**on_cpu.laws, **elsewhere.laws})
    base = records(tmp_path, "base", both)
    head = load([
        *write(tmp_path, "head", on_cpu), *write(tmp_path / "..", "head", elsewhere, 2, other_machine)
    ])  # fmt: skip
    found = compare(base, head)
    assert {one.case.kernel for one in found.cases} == {"linear-chunked"}
    assert {(one.case.kernel, one.verdict) for one in found.outcomes} == {("linear-explicit", "incomparable")}
    assert "linear-explicit" in as_text(sections(found)) and not found.regressed


def test_cases_of_one_side_only_are_listed_and_raise_no_alarm(tmp_path: Path) -> None:
    base = replace(PLAIN, not_measured=[("standard-sdpa", "causal", 512, "failed", "an error")])
    head = replace(
        PLAIN,
        lengths=(*DOUBLINGS[:-1], 16384),
        not_measured=[("standard-sdpa", "causal", 4096, "over_time", "predicted 3 s a round")],
    )
    found = compare(records(tmp_path, "base", base), records(tmp_path, "head", head))
    fates = {(one.case.seq_len, one.verdict) for one in found.outcomes}
    assert fates == {(512, "gained"), (4096, "left out"), (8192, "vanished"), (16384, "new")}
    assert not found.regressed
    text = as_text(sections(found))
    assert "left out now: predicted 3 s a round" in text and "not asked for in the base" in text


def test_a_comparison_where_every_case_is_lost_is_a_regression(tmp_path: Path) -> None:
    head = replace(PLAIN, not_measured=[(*name, n, "oom", "too large") for name in LAWS for n in DOUBLINGS])
    found = compare(records(tmp_path, "base", PLAIN, 2), records(tmp_path, "head", head, 2))
    assert found.regressed and {one.verdict for one in found.outcomes} == {"lost"}
    comparison_picture(found)


def test_cases_that_some_runs_lack_cost_other_cases_no_pairs(tmp_path: Path) -> None:
    """One pair lacks linear-explicit, one has standard-sdpa only, and N = 256 is in one run only."""
    base = records(tmp_path, "base", PLAIN)

    def lose(content: Content) -> None:
        kept = {"2025-01-01": "linear-explicit", "2025-01-02": "standard-sdpa"}.get(content["datetime"][:10])
        content["benchmarks"] = [
            row
            for row in content["benchmarks"]
            if (kept != "linear-explicit" or row["extra_info"]["kernel"] != kept)
            and (kept != "standard-sdpa" or row["extra_info"]["kernel"] == kept)
            and (row["extra_info"]["seq_len"] != 256 or content["datetime"].startswith("2025-01-03"))
        ]

    found = compare(base, records(tmp_path, "head", slower(1.3), edit=lose))
    units = {(one.case.kernel, one.case.seq_len): one.units for one in found.cases}
    assert units["linear-explicit", 512] == 2 and units["standard-sdpa", 512] == 4
    assert units["linear-chunked", 256] == 1
    assert {one.verdict for one in found.cases if one.units > 2} == {"slower"}
    sections(found)
    comparison_picture(found)


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["nvidia-h200", "two-core-cpu"])
def test_published_runs_of_the_same_code_rarely_raise_an_alarm(machine: str) -> None:
    """Alarms are counted over every two of five runs against three, and every run against each later run.

    Each comparison may raise an alarm with 5 %; more than 3 of 20 independent ones would in 1.6 %.
    """
    files = sorted((Path(__file__).parents[1] / "benchmarks/published" / machine).glob("run-*.json.gz"))
    assert len(files) == 5
    alarms = []
    for two in combinations(files, 2):
        others = [file for file in files if file not in two]
        for base, head in ((two, others), (two[:1], two[1:])):
            found = compare(load(base), load(head), paired=False)
            alarms += having(found.cases, "slower", "faster")[:1]
            assert not having(found.counts, "larger", "smaller"), (base, head)
            assert not having(found.outcomes, "lost"), (base, head)
    assert len(alarms) <= 3, alarms
