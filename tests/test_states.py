"""States of processes: a comparison of few runs raises no alarm by them.

The simulations print the rates they achieved: `pytest tests/test_states.py -s`; with `-m table` those of
other shares and distances, which the README of comparison shows.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from benchmarks.analysis.comparison.inference import Change
from benchmarks.analysis.comparison.judging import verdicts
from benchmarks.analysis.comparison.regression import MARGIN
from benchmarks.analysis.comparison.states import FARTHEST, chance, shown_by_others, tolerable
from tests.noise import Floats
from tests.test_coverage import assert_rate
from tests.test_regression import CASES, QUIET, Draws, alarm, draw, found_first, only_first

SHARES = (1, 2, 5, 10, 20, 30)
DISTANCES = (0.05, 0.08, 0.12, 0.4)


def with_states(runs: Draws, cases: int, distance: float) -> Draws:
    """These runs, each of which draws one of two states for each of the last cases."""
    random = np.random.default_rng(0)

    def drawn(logs: Floats) -> Floats:
        states = random.random((*logs.shape[:2], cases)) < 0.5
        padded = np.pad(states, ((0, 0), (0, 0), (CASES - cases, 0)))
        return np.asarray(logs + math.log1p(distance) * padded)

    return Draws(drawn(runs.base), drawn(runs.head))


@pytest.mark.parametrize("pairs", [2, 3, 4, 6])
def test_states_of_processes_in_5_of_60_cases_raise_no_alarm(pairs: int) -> None:
    runs = with_states(draw(QUIET, 200, pairs), 5, 0.12)
    assert_rate(runs.rate(alarm), 0, 0.05, 200, f"A/A alarm, 5 cases of two states, {pairs} pairs")
    unpaired = runs.rate(alarm, paired=False)
    assert_rate(unpaired, 0, 0.05, 200, f"A/A alarm, 5 cases of two states, {pairs} + {pairs} runs")


@pytest.mark.table
def test_states_of_processes_raise_no_alarm_whatever_their_share_and_distance() -> None:
    """The largest rate over all distances is printed, for the table of the README of comparison."""
    draws, misses = 400, []
    print("\n| runs | " + " | ".join(f"{cases} of {CASES} cases" for cases in SHARES), "|")
    print("|---|" + "---|" * len(SHARES))
    for pairs, paired in product((2, 3, 4, 5, 6), (True, False)):
        quiet = draw(QUIET, draws, pairs)
        found = {
            (cases, distance): with_states(quiet, cases, distance).rate(alarm, paired=paired)
            for cases, distance in product(SHARES, DISTANCES)
        }
        worst = [max(found[cases, distance] for distance in DISTANCES) for cases in SHARES]
        name = f"{pairs} pairs" if paired else f"{pairs} + {pairs} unpaired"
        print(f"| {name} | " + " | ".join(f"{rate:.1%}" for rate in worst), "|", flush=True)
        misses += [(name, rate) for rate in worst if rate > 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)]
    assert not misses


@pytest.mark.slow
def test_slowdowns_beside_cases_of_two_states_are_found_with_enough_pairs() -> None:
    """What few pairs miss is printed."""
    for pairs in (3, 4, 5, 6):
        quiet = draw(QUIET, 500, pairs)
        for cases in (0, 5):
            runs = with_states(quiet, cases, 0.12)
            rates = [runs.rate(found_first, slower=only_first(ratio)) for ratio in (1.1, 1.2)]
            print(
                f"{pairs} pairs, {cases} cases of two states: 10 %, 20 % found {rates[0]:.1%}, {rates[1]:.1%}"
            )
    assert min(rates) > 0.9


def test_the_chance_of_states_is_that_of_runs_that_agree_on_each_side_and_not_between_them() -> None:
    random = np.random.default_rng(0)
    for pairs in (1, 2, 3):
        base, head = random.random((2, 100_000, pairs)) < 0.5
        apart = np.mean((base == base[:, :1]).all(axis=1) & (head == ~base[:, :1]).all(axis=1))
        assert apart == pytest.approx(float(chance(2 * pairs)), rel=0.05)


def test_hidden_cases_of_two_states_have_together_less_than_the_chance_of_an_alarm() -> None:
    for runs in range(8, 16):
        for paired in (True, False):
            assert tolerable(runs, paired=paired) * float(chance(runs)) < 0.05
        assert (
            tolerable(runs, paired=False) <= tolerable(runs, paired=True) < tolerable(runs + 1, paired=True)
        )


def test_each_variance_is_compared_with_those_of_the_others() -> None:
    variance = np.array([1.0, 5.0, math.nan, 3.0, 2.0])
    assert shown_by_others(variance, 1).tolist() == [5, 3, 5, 5, 5]
    assert shown_by_others(variance, 2)[[0, 1, 3, 4]].tolist() == [3, 2, 2, 3]
    assert shown_by_others(variance, 4).tolist() == [0] * 5


def test_with_few_runs_only_changes_beyond_any_states_are_called() -> None:
    sizes = np.log([1.2, FARTHEST, 1.6, 1 / 1.6])
    few = Change(sizes, np.full(4, 0.01), np.full(4, np.inf), chance=np.full(4, float(chance(4))))
    assert verdicts(few, math.log1p(MARGIN))[0] == ["inconclusive", "inconclusive", "larger", "smaller"]
    more = Change(sizes, np.full(4, 0.01), np.full(4, np.inf), chance=np.full(4, float(chance(6))))
    assert verdicts(more, math.log1p(MARGIN))[0] == ["larger"] * 3 + ["smaller"]
