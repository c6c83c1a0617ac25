"""Error rates of the verdicts on two sets of runs, and their statistics on known changes.

The simulations print the rates they achieved: `pytest tests/test_regression.py -s`; with `-m table` those of
all noises, which the README of comparison shows, and with `-m slow` those of fewer draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import pytest

from benchmarks.analysis.comparison.inference import Change, find_change, holm, noise
from benchmarks.analysis.comparison.judging import verdicts
from benchmarks.analysis.comparison.regression import MARGIN
from benchmarks.analysis.scaling.run_effect import RUN_EFFECT
from tests.noise import CALM, NOISES, Floats, Unrest, draw_tables
from tests.test_coverage import assert_rate

CASES = 60
QUIET = Unrest(run=0.015)
"""Noise with a 1.5 % effect of the run, and the usual noise of repetitions and rounds."""
UNEQUAL = "the noise of a case is larger or smaller by factors of 1.6 (standard deviation)"
ALL = NOISES["all of these"]


@dataclass(frozen=True)
class Draws:
    """Logarithms of times of equal code, shape (draws, pairs, cases), in which changes are planted later."""

    base: Floats
    head: Floats

    def rate(
        self, raised: Callable[[Change], bool], *, paired: bool = True, slower: Floats | float = 0
    ) -> float:
        """Mean of a statistic over the draws, with the head slower by a logarithm."""
        return float(np.mean([raised(change) for change in self.changes(paired, slower)]))

    def changes(self, paired: bool = True, slower: Floats | float = 0) -> Iterator[Change]:
        """The change of each draw: what slows all units alike moves its value, and no variance."""
        for change in self._paired if paired else self._unpaired:
            yield replace(change, value=change.value + slower)

    @cached_property
    def _paired(self) -> list[Change]:
        return [find_change(*both, paired=True) for both in zip(self.base, self.head, strict=True)]

    @cached_property
    def _unpaired(self) -> list[Change]:
        return [find_change(*both, paired=False) for both in zip(self.base, self.head, strict=True)]


def draw(unrest: Unrest, draws: int, pairs: int, *, unequal: bool = False) -> Draws:
    """Draw experiments of runs in the order of measurement, base and head in turn."""
    parts = []
    for seed in range(math.ceil(draws / 100)):
        truth = np.ones((10, CASES // 10))
        tables = draw_tables(truth, unrest, draws=min(draws, 100), units=2 * pairs, seed=seed)
        parts.append(np.log(np.moveaxis(tables, 0, 2).reshape(-1, 2 * pairs, CASES)))
    logs = np.concatenate(parts)
    if unequal:
        logs *= np.exp(0.5 * np.random.default_rng(0).standard_normal((len(logs), 1, CASES)))
    return Draws(logs[:, 0::2], logs[:, 1::2])


def alarm(change: Change) -> bool:
    return bool({"larger", "smaller"} & set(verdicts(change, math.log1p(MARGIN))[0]))


def found_first(change: Change) -> bool:
    """Whether the first case is called slower."""
    return verdicts(change, math.log1p(MARGIN))[0][0] == "larger"


def called_same(runs: Draws) -> float:
    """Share of the cases called same within 3 %."""
    called = [
        verdicts(change, math.log1p(0.03))[0].count("same") for change in runs.changes(slower=math.log(1.05))
    ]
    return sum(called) / (len(called) * CASES)


def only_first(ratio: float) -> Floats:
    slower = np.zeros(CASES)
    slower[0] = math.log(ratio)
    return slower


@pytest.mark.parametrize("unrest", [CALM, ALL], ids=["calm", "all noises"])
def test_comparison_of_equal_commits_raises_no_alarm(unrest: Unrest) -> None:
    runs = draw(unrest, 200, 6)
    assert_rate(runs.rate(alarm), 0, 0.05, 200, "A/A alarm in 60 cases, 6 pairs")
    assert_rate(runs.rate(alarm, paired=False), 0, 0.05, 200, "A/A alarm in 60 cases, 6 + 6 runs")


def test_a_slowdown_of_10_percent_in_one_of_60_cases_is_found() -> None:
    rate = draw(QUIET, 300, 6).rate(found_first, slower=only_first(1.1))
    assert_rate(rate, 0.9, 1, 300, "10 % in one of 60 cases, 1.5 % run noise, 6 pairs")


def test_a_slowdown_of_5_percent_is_never_called_same_within_3() -> None:
    runs = draw(QUIET, 200, 6)
    assert_rate(called_same(runs), 0, 0.001, 200 * CASES, "5 % called the same within 3 %")


@pytest.mark.slow
def test_students_t_without_shared_variances_finds_fewer_slowdowns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slowdown of 10 % that shared variances find is missed in more than a tenth of the draws."""
    monkeypatch.setattr("benchmarks.analysis.comparison.inference.FAMILY", CASES + 1)
    rate = draw(QUIET, 1000, 6).rate(found_first, slower=only_first(1.1))
    assert_rate(rate, 0, 0.9, 1000, "10 % in one of 60 cases, each case by itself")


@pytest.mark.parametrize("draws", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_single_run_a_side_assumes_the_effect_of_the_run(draws: int) -> None:
    """Repetitions raise false alarms in most comparisons without the assumed effect of the run."""
    random = np.random.default_rng(0)
    run, repetition = CALM.run, CALM.repetition
    found: dict[float, list[bool]] = {0.0: [], RUN_EFFECT: []}
    for _ in range(draws):
        sides = run * random.standard_normal((2, 1, CASES))
        sides = sides + repetition * random.standard_normal((2, 3, CASES))
        for unseen, alarms in found.items():
            alarms.append(alarm(find_change(sides[0], sides[1], paired=False, unseen=unseen)))
    assert_rate(float(np.mean(found[0.0])), 0.5, 1, draws, "A/A alarm, one run a side taken at its word")
    assert_rate(float(np.mean(found[RUN_EFFECT])), 0, 0.05, draws, "A/A alarm, one run a side")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "states"), [(0.02, 0), (0.03, 0), (0.015, 1), (0.015, 5)],
    ids=["2 %", "3 %", "1.5 %, and two states in 1 case", "1.5 %, and two states in 5 cases"],
)  # fmt: skip
def test_a_single_run_a_side_raises_alarms_by_a_larger_effect_than_assumed(
    run: float, states: int, request: pytest.FixtureRequest
) -> None:
    """What larger effects cost is printed; no repetition shows them."""
    random = np.random.default_rng(0)
    alarms = []
    for _ in range(500):
        sides = run * random.standard_normal((2, 1, CASES))
        sides[..., :states] += math.log(1.12) * (random.random((2, 1, states)) < 0.5)
        sides = sides + CALM.repetition * random.standard_normal((2, 3, CASES))
        alarms.append(alarm(find_change(sides[0], sides[1], paired=False, unseen=RUN_EFFECT)))
    what = f"A/A alarm, one run a side, effect {request.node.callspec.id}"
    assert_rate(float(np.mean(alarms)), 0, 0.05 if run <= RUN_EFFECT and not states else 1, 500, what)


@pytest.mark.parametrize(
    "draws", [pytest.param(400, marks=pytest.mark.slow), pytest.param(1000, marks=pytest.mark.table)]
)
def test_error_rates_of_verdicts_under_every_noise(draws: int) -> None:
    """Error rates for the table of the README of comparison are printed."""
    misses = []
    rows = {"1.5 % run noise, and of repetitions and rounds": (QUIET, False)}
    rows |= {name: (unrest, False) for name, unrest in NOISES.items()} | {UNEQUAL: (QUIET, True)}
    print(
        "\n| noise | A/A alarm: 3 pairs | 6 pairs | 6 + 6 runs | 10 % found | 20 % found "
        "| 10 %, 20 % found by 3 pairs | 5 % called same |"
    )
    print("|---|" + "---|" * 7)
    for name, (unrest, unequal) in rows.items():
        three, six = (draw(unrest, draws, pairs, unequal=unequal) for pairs in (3, 6))
        alarms = [three.rate(alarm), six.rate(alarm), six.rate(alarm, paired=False)]
        power, few = (
            [runs.rate(found_first, slower=only_first(ratio)) for ratio in (1.1, 1.2)]
            for runs in (six, three)
        )
        same = called_same(six)
        cells = [*(f"{rate:.1%}" for rate in [*alarms, *power]), f"{few[0]:.0%}, {few[1]:.0%}", f"{same:.3%}"]
        print(f"| {name} | " + " | ".join(cells), "|", flush=True)
        misses += [(name, rate) for rate in alarms if rate > 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)]
        misses += [(name, same)] if same > 0.001 else []
        misses += [(name, power[0])] if unrest == QUIET and not unequal and power[0] < 0.9 else []
    assert not misses


# Variances and degrees of freedom of many quantities


def test_few_quantities_keep_their_own_variances() -> None:
    table = np.random.default_rng(0).standard_normal((4, 3))
    variance, freedom = noise(table)
    assert variance == pytest.approx(table.var(axis=0, ddof=1)) and (freedom == 3).all()


def test_many_quantities_share_degrees_of_freedom_and_none_hides_its_own_variance() -> None:
    random = np.random.default_rng(0)
    table = 0.02 * random.standard_normal((6, CASES))
    table[2, 7] += 1  # a stall
    variance, freedom = noise(table)
    own = table.var(axis=0, ddof=1)
    assert (variance >= own).all() and variance[7] == own[7]
    assert (freedom > 5).all()
    lucky = own.argmin()
    assert variance[lucky] > 2 * own[lucky]


def test_noise_common_to_all_quantities_has_the_degrees_of_freedom_of_the_units() -> None:
    random = np.random.default_rng(0)
    shared = random.standard_normal((6, 1)) + 0.001 * random.standard_normal((6, CASES))
    _, freedom = noise(shared)
    assert freedom == pytest.approx(5, abs=0.01)


def test_a_change_is_estimated_from_the_units_that_hold_its_quantity() -> None:
    base, head = np.zeros((4, 2)), np.full((4, 2), 0.1)
    base += 0.01 * np.arange(4)[:, None] * [[1, -1]]
    head[2:, 1] = np.nan
    change = find_change(base, head, paired=True)
    assert change.value[0] == pytest.approx(0.1 - 0.015) and change.value[1] == pytest.approx(0.1 + 0.005)
    assert change.freedom.tolist() == [3, 1]


def test_a_side_of_one_run_takes_the_variance_of_the_other_side() -> None:
    """The error of a prediction is s sqrt(1 + 1/n) with n - 1 degrees of freedom."""
    base = np.array([[0.0], [0.02], [0.04]])
    change = find_change(base, np.array([[0.5]]), paired=False)
    assert change.error[0] == pytest.approx(0.02 * math.sqrt(1 + 1 / 3)) and change.freedom[0] == 2
    back = find_change(np.array([[0.5]]), base, paired=False)
    assert back.value == -change.value and back.error == change.error


def test_holms_correction_equals_p_values_computed_by_hand() -> None:
    adjusted = holm(np.array([0.01, 0.04, np.nan, 0.03, 0.005]))
    assert adjusted[[0, 1, 3, 4]] == pytest.approx([0.03, 0.06, 0.06, 0.02]) and math.isnan(adjusted[2])


@pytest.mark.parametrize("paired", [True, False])
def test_what_slows_all_units_alike_moves_a_change_and_nothing_else(paired: bool) -> None:
    runs = draw(ALL, 1, 6)
    slower = only_first(1.1) + 0.05
    (moved,) = runs.changes(paired, slower)
    measured = find_change(runs.base[0], runs.head[0] + slower, paired=paired)
    for field in fields(Change):
        assert getattr(moved, field.name) == pytest.approx(getattr(measured, field.name)), field.name


def test_swapping_base_and_head_negates_a_change_and_swaps_its_verdict() -> None:
    random = np.random.default_rng(0)
    base = 0.02 * random.standard_normal((6, CASES))
    head = base + 0.01 * random.standard_normal((6, CASES)) + only_first(1.2)
    for paired in (True, False):
        there, back = find_change(base, head, paired=paired), find_change(head, base, paired=paired)
        assert there.value == pytest.approx(-back.value) and there.p == pytest.approx(back.p)
        swapped = {"larger": "smaller", "smaller": "larger"}
        margin = math.log1p(MARGIN)
        assert verdicts(there, margin)[0] == [swapped.get(one, one) for one in verdicts(back, margin)[0]]
        assert verdicts(there, margin)[0][0] == "larger"


def test_a_significant_change_within_the_margin_has_the_verdict_same() -> None:
    change = Change(np.array([0.03]), np.array([0.001]), np.array([50.0]))
    assert verdicts(change, math.log1p(0.05))[0] == ["same"]
    assert verdicts(change, math.log1p(0.02))[0] == ["larger"]
    assert verdicts(replace(change, error=np.array([0.02])), math.log1p(0.05))[0] == ["inconclusive"]
    assert verdicts(replace(change, error=np.array([np.nan])), math.log1p(0.05))[0] == ["inconclusive"]
