"""Comparison of two sets of runs: its verdicts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.analysis.comparison.conclusions import Comparison, Ratio, UnitCounts
from benchmarks.analysis.comparison.regression import compare
from benchmarks.analysis.comparison.text import sections
from benchmarks.analysis.document import as_text
from benchmarks.analysis.reading.records import Records, load
from tests.compared import (
    LAWS,
    PLAIN,
    Content,
    Edit,
    having,
    records,
    regressed_head,
    slower,
)
from tests.synthetic import DOUBLINGS, SILENT, Law, Machine, Run, ceilings


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """Records of the base: runs without anything planted."""
    return records(tmp_path_factory.mktemp("base"), "base", PLAIN)


@pytest.fixture(scope="module")
def regressed(base: Records, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Comparison with a head of a 15 % slower kernel, one of twice the memory, and a lost case."""
    return compare(base, regressed_head(tmp_path_factory.mktemp("regressed")))


def holds(change: Ratio, ratio: float, within: float = 1) -> bool:
    """Whether an interval reaches to within a factor of a ratio."""
    assert change.low and change.high
    return change.low <= ratio * within and change.high >= ratio / within


# Verdicts


def test_comparison_finds_the_planted_slowdown_and_no_other_change(regressed: Comparison) -> None:
    changed = having(regressed.cases, "slower", "faster")
    assert {(one.case.kernel, one.case.setting.mode, one.verdict) for one in changed} == {
        ("linear-chunked", "causal", "slower")
    }
    assert len(changed) == len(DOUBLINGS)
    assert all(holds(one.change, 1.15, within=1.03) for one in changed)
    assert (regressed.unit, regressed.units) == ("pair", UnitCounts(4, 4))
    assert regressed.regressed and not regressed.tentative


def test_peak_memory_and_outcomes_are_compared_exactly(regressed: Comparison) -> None:
    assert {(one.case.kernel, one.quantity, one.verdict) for one in regressed.counts} == {
        ("linear-explicit", "peak_bytes", "larger")
    }
    assert all(one.head == 2 * one.base for one in regressed.counts)
    (lost,) = regressed.outcomes
    assert (lost.case.kernel, lost.case.seq_len, lost.head, lost.verdict) == (
        "standard-sdpa", 8192, "oom", "lost"
    )  # fmt: skip


def test_a_crossover_moves_with_its_kernel_and_an_exponent_does_not(regressed: Comparison) -> None:
    """N* of pure powers 1 and 2 moves by the factor by which the linear kernel slows down."""
    (moved,) = having(regressed.crossovers, "moved")
    assert (moved.contender, moved.setting.mode) == ("linear-chunked", "causal")
    assert holds(moved.change, 1.15)
    assert moved.head.n and moved.base.n
    assert moved.change.ratio == pytest.approx(moved.head.n / moved.base.n, rel=0.01)
    assert not having(regressed.exponents, "moved")


def test_comparison_tells_an_exponent_that_moved(base: Records, tmp_path: Path) -> None:
    head = replace(PLAIN, laws={**LAWS, ("linear-chunked", "causal"): Law(1.6e-5 / 256**0.2, 1.2)})
    found = compare(base, records(tmp_path, "head", head))
    (moved,) = having(found.exponents, "moved")
    assert moved.low and moved.high and moved.low < 0.2 < moved.high
    assert moved.kernel == "linear-chunked"


def test_a_crossover_that_left_the_measured_lengths_counts_as_moved(base: Records, tmp_path: Path) -> None:
    head = slower(0.1, ("linear-chunked", "causal"))
    found = compare(base, records(tmp_path, "head", head))
    (moved,) = having(found.crossovers, "moved")
    assert (moved.base.kind, moved.head.kind) == ("inside", "below")


def test_swapping_base_and_head_swaps_the_verdicts(base: Records, tmp_path: Path) -> None:
    head = records(tmp_path, "head", slower(1.3, ("linear-explicit", "causal")))
    there, back = compare(base, head), compare(head, base)
    swapped = {"slower": "faster", "faster": "slower"}
    assert [swapped.get(one.verdict, one.verdict) for one in there.cases] == [
        one.verdict for one in back.cases
    ]
    assert there.regressed and not back.regressed


def test_a_commit_compared_with_itself_has_no_regression(base: Records, tmp_path: Path) -> None:
    found = compare(base, records(tmp_path, "head", PLAIN))
    assert not having(found.cases, "slower", "faster") and not found.regressed
    assert not (found.counts or found.outcomes)


def test_the_seconds_of_both_sides_belong_to_the_change(tmp_path: Path) -> None:
    """The medians of the sides differ by 18 %, and those of the pairs by nothing."""

    def stalled(*factors: float) -> Edit:
        sequence = iter(factors)

        def edit(content: Content) -> None:
            factor = next(sequence)
            for row in content["benchmarks"]:
                row["stats"]["data"] = [factor * second for second in row["stats"]["data"]]

        return edit

    run = replace(PLAIN, noise=SILENT)
    base = records(tmp_path, "base", run, 5, stalled(1, 1, 1, 1.18, 1.39))
    head = records(tmp_path, "head", run, 5, stalled(0.7, 1.18, 1.18, 1.18, 1.42))
    for paired in (True, False):
        found = compare(base, head, paired=paired)
        for one in found.cases:
            assert one.base_s and one.head_s and one.change.ratio
            assert one.head_s / one.base_s == pytest.approx(one.change.ratio) and one.change.ratio < 1.01
        assert "so that the change is head over base" in " ".join(as_text(sections(found)).split())


def test_the_sides_of_a_change_are_those_of_the_pairs_that_hold_both(tmp_path: Path) -> None:
    def lose(content: Content) -> None:
        if content["datetime"].startswith("2025-01-04"):
            content["benchmarks"] = [
                row for row in content["benchmarks"] if "chunked" not in row["extra_info"]["kernel"]
            ]

    def late(content: Content) -> None:
        if content["datetime"].startswith("2025-01-04"):
            for row in content["benchmarks"]:
                row["stats"]["data"] = [3 * second for second in row["stats"]["data"]]

    base, head = (
        records(tmp_path, side, PLAIN, edit=edit) for side, edit in (("base", late), ("head", lose))
    )
    found = compare(base, head, paired=True)
    for one in found.cases:
        assert one.base_s and one.head_s and one.change.ratio
        assert one.head_s / one.base_s == pytest.approx(one.change.ratio)
        assert one.units == (3 if one.case.kernel == "linear-chunked" else 4)
    for shift in found.exponents:
        assert shift.head - shift.base == pytest.approx(shift.shift)


# Common shifts


def test_a_shift_common_to_all_cases_is_told_apart_from_changes_of_single_cases(
    base: Records, tmp_path: Path
) -> None:
    head = records(tmp_path, "head", slower(1.08))
    (common,) = compare(base, head).common
    assert common.moved and holds(common.change, 1.08)
    assert "Everything moved on cpu: the median case is slower" in as_text(sections(compare(base, head)))


def test_a_shift_of_half_of_the_cases_is_no_common_shift(
    regressed: Comparison, base: Records, tmp_path: Path
) -> None:
    assert not regressed.common[0].moved
    half = slower(1.3, *[name for name in LAWS if name[1] == "causal"])
    found = compare(base, records(tmp_path, "head", half))
    assert not found.common[0].moved


def test_shifts_of_cases_by_different_amounts_are_no_common_shift(base: Records, tmp_path: Path) -> None:
    """All shifts are within the margin of the median case, and one is seven times as large as another."""
    factors = {"standard-sdpa": 1.015, "linear-chunked": 1.055, "linear-explicit": 1.1}
    laws = {name: replace(law, coefficient=law.coefficient * factors[name[0]]) for name, law in LAWS.items()}
    found = compare(base, records(tmp_path, "head", replace(PLAIN, laws=laws)))
    (common,) = found.common
    assert common.change.ratio and common.change.ratio > 1.05 and not common.moved


def test_ceilings_that_moved_point_at_another_state_of_the_machine(tmp_path: Path) -> None:
    def with_ceilings(bandwidth: float) -> Edit:
        return lambda content: content["benchmarks"].extend(
            ceilings(Machine(), bandwidth, 1e11, (1, 1.01, 1))
        )

    base = records(tmp_path, "base", PLAIN, edit=with_ceilings(2e10))
    head = records(tmp_path, "head", PLAIN, edit=with_ceilings(1e10))
    found = compare(base, head)
    assert "ceiling" not in {one.case.family for one in found.cases}
    text = " ".join(as_text(sections(found)).split())
    assert "The machine itself changed" in text and "ceiling-copy" in text and "ceiling-matmul +" not in text


def test_a_tie_at_both_lengths_beside_a_crossover_ends_no_comparison(tmp_path: Path) -> None:
    """A coarse clock gives equal times, so that the ratio has no slope where it is 1."""
    laws = {
        ("linear-a", "causal"): {256: 2e-3, 512: 1e-3, 1024: 1e-3, 2048: 1e-3},
        ("standard-b", "causal"): {256: 1e-3, 512: 1e-3, 1024: 1e-3, 2048: 2e-3},
    }
    sides = [load([Run(laws, seed=seed).write(tmp_path / f"{seed}.json")]) for seed in (0, 1)]
    (shift,) = compare(*sides).crossovers
    assert shift.verdict == "inconclusive"
