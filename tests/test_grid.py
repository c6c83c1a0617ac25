"""The grid of a session: its cases and their order."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.distributed import cases as over_ranks
from benchmarks.distributed import measuring
from benchmarks.grid import build_cases, schedule, series_of
from benchmarks.selection import PRESETS, Selection, Shape


def test_the_first_repetition_of_the_grid_ascends_and_each_later_one_is_shuffled() -> None:
    cases = build_cases(Selection(PRESETS["default"], ["cpu"]))
    order = schedule(cases, 3, seed=1)
    repetitions = [[case for case, repetition in order if repetition == r] for r in (1, 2, 3)]
    for repetition in repetitions:
        assert Counter(repetition) == Counter(cases)
    for series in map(series_of, cases):
        lengths = [case.seq_len for case in repetitions[0] if series_of(case) == series]
        assert lengths == sorted(lengths)
    assert repetitions[0] != cases and repetitions[1] != repetitions[2]
    assert schedule(cases, 3, seed=1) == order != schedule(cases, 3, seed=2)


def test_the_first_repetition_is_shuffled_as_well_where_times_are_known() -> None:
    cases = build_cases(Selection(PRESETS["default"], ["cpu"]))
    order = schedule(cases, 1, seed=1, known=True)
    assert Counter(case for case, _ in order) == Counter(cases)
    ascending = 0
    for series in set(map(series_of, cases)):
        lengths = [case.seq_len for case, _ in order if series_of(case) == series]
        ascending += lengths == sorted(lengths)
    assert ascending <= 1 and order != schedule(cases, 1, seed=2, known=True)


@pytest.mark.parametrize("seed", range(5))
def test_no_length_that_ranks_share_comes_before_a_shorter_one_whether_strong_or_weak(seed: int) -> None:
    """The longest weak case is longer than every strong one, and its time is predicted from theirs."""
    kernels, modes, phases = ["linear-sequence-parallel"], ["causal"], ["forward"]
    kinds = [over_ranks.STRONG, over_ranks.WEAK]
    chosen = over_ranks.Selection(
        "cpu", "float32", kernels, modes, phases, [Shape(1, 8, 64, 8)], [64, 256, 1024], kinds
    )
    order = schedule(over_ranks.build_cases(chosen, 2), 1, seed, series=measuring.series_of)
    lengths = [case.seq_len for case, _ in order]
    assert lengths == sorted(lengths) and lengths[-1] == 2048


def test_the_default_grid_holds_six_lengths_of_both_families_in_both_modes() -> None:
    cases = build_cases(Selection(PRESETS["default"], ["cpu"]))
    for kernel in ("standard-explicit", "standard-sdpa", "linear-explicit", "linear-chunked"):
        for mode in ("bidirectional", "causal"):
            lengths = [case.seq_len for case in cases if (case.kernel, case.mode) == (kernel, mode)]
            assert lengths == [256, 512, 1024, 2048, 4096, 8192]
