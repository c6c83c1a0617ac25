"""Fits of laws and the tests of their tenability, on times of known law."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.analysis.scaling.fits import fit_sum
from benchmarks.analysis.scaling.fitted import Laws, compare_laws
from benchmarks.analysis.scaling.laws import LAWS, judge
from tests.synthetic import DOUBLINGS, Law
from tests.test_scaling import LENGTHS, table

OWN: dict[str, Law] = {
    "linear": Law(3e-9, 1, 1e-6),
    "quadratic": Law(3e-9, 2, 1e-3),
    "free": Law(1e-8, 1.5, 1e-4),
}
MIXED = {length: 1e-6 * length + 1e-9 * length**2 for length in DOUBLINGS}  # equal parts at N = 1000


def mixed(
    noise: float = 0.0, units: int = 3, seed: int = 0, lengths: Sequence[int] = DOUBLINGS
) -> pd.DataFrame:
    noises = table(Law(1.0, 0), noise, units, seed, lengths)
    return noises.mul([MIXED.get(length, 1e-6 * length + 1e-9 * length**2) for length in lengths])


def laws_of(times: pd.DataFrame) -> Laws:
    return compare_laws(times)[0]


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("constant", [0.0, 2e-5, 3e-3])
def test_a_fit_of_a_law_finds_the_coefficients_of_its_own_law(power: int, constant: float) -> None:
    law = Law(3e-9, power, constant)
    fit = fit_sum(LENGTHS, np.array([law(int(n)) for n in LENGTHS]), power)
    assert fit.a == pytest.approx(3e-9, rel=1e-5)
    assert fit.c == pytest.approx(constant, rel=1e-5, abs=1e-4 * law(256))
    assert fit.error < 1e-4


def test_a_fit_of_a_law_weighs_every_length_alike() -> None:
    """A factor on the time of one length changes the coefficient alike, whichever length that is."""
    times = 3e-9 * LENGTHS**2
    off = []
    for index in range(1, len(times)):
        off.append(fit_sum(LENGTHS, np.where(np.arange(len(times)) == index, 1.2 * times, times), 2).a)
    # Coefficients change by the mean of the logs, 1.2^(1/6), where the overhead is at its bound of zero.
    assert off[-1] == pytest.approx(3e-9 * 1.2 ** (1 / 6), rel=0.03)
    assert max(off) / min(off) < 1.2 ** (1 / 3)


def test_a_fit_of_a_law_is_the_same_in_any_unit() -> None:
    times = table(Law(3e-9, 2, 1e-3), noise=0.05).to_numpy()[0]
    seconds, microseconds = (fit_sum(LENGTHS, scale * times, 2) for scale in (1e-6, 1))
    assert microseconds.a == pytest.approx(1e6 * seconds.a, rel=1e-5)
    assert microseconds.error == pytest.approx(seconds.error, abs=1e-6)


@pytest.mark.parametrize("power", [1, 2, None])
def test_a_fit_of_a_law_errs_less_than_random_laws(power: float | None) -> None:
    """A thousand random laws near by and far away err more on any times."""
    random = np.random.default_rng(2)
    for seed in range(5):
        times = np.exp(np.cumsum(np.random.default_rng(seed).uniform(0, 2, len(LENGTHS)) * np.log(2)))
        fit = fit_sum(LENGTHS, times, power)
        powers = random.uniform(0.25, 3, 1000) if power is None else np.full(1000, power)
        shapes = np.logaddexp(powers[:, None] * np.log(LENGTHS / 1500), random.normal(0, 4, 1000)[:, None])
        assert np.std(np.log(times) - shapes, axis=1).min() > fit.error - 1e-4


def test_coefficients_of_a_law_are_never_negative() -> None:
    falling = fit_sum(LENGTHS, 1 / LENGTHS, 1)
    assert falling.a == 0 and falling.c > 0
    concave = fit_sum(LENGTHS, LENGTHS - 100, 1)
    assert concave.a > 0 and concave.c == 0


@pytest.mark.parametrize(("power", "constant"), [(2, 20e-6), (1, 4e-4), (1.5, 1e-3)])
def test_the_overhead_of_a_law_is_found_beside_a_free_exponent(power: float, constant: float) -> None:
    times = table(Law(constant / 1000**power, power, constant))
    assert laws_of(times).overhead == pytest.approx(constant, rel=1e-3)


def test_an_overhead_of_a_law_that_cannot_be_told_is_null() -> None:
    assert laws_of(table(Law(1e-9, 2, 1e-3), lengths=DOUBLINGS[:3])).overhead is None
    assert laws_of(table(Law(1e-3, 0))).overhead is None
    assert laws_of(table(Law(1e-9, 4))).overhead is None
    assert laws_of(table(Law(1e-9, 2))).overhead == 0  # a pure power has no overhead


@pytest.mark.parametrize("own", list(LAWS))
def test_without_noise_the_true_law_is_tenable_and_other_laws_of_its_kind_are_not(own: str) -> None:
    times = mixed() if own == "mixed" else table(OWN[own])
    laws, best = compare_laws(times)
    assert best == own
    assert set(laws.known) == set(LAWS)
    for name, law in laws.known.items():
        assert law.formula == LAWS[name].formula
        assert law.tenable == (name == own or (name == "free" and own != "mixed"))
    again = laws.known[own]
    assert again.r2 == pytest.approx(1) and again.relative_error < 1e-4
    assert again.coefficients.seconds(LENGTHS) == pytest.approx(times.iloc[0].to_numpy(), rel=1e-4)


def test_coefficients_of_a_law_are_named_by_their_units() -> None:
    quadratic, both, free = (
        laws_of(table(OWN["quadratic"])).quadratic,
        laws_of(mixed()).mixed,
        laws_of(table(OWN["free"])).free,
    )
    assert quadratic is not None and both is not None and free is not None
    assert quadratic.coefficients.a_s_per_token2 == pytest.approx(3e-9, rel=1e-4)
    assert both.coefficients.a_s_per_token == pytest.approx(1e-6, rel=1e-4)
    assert both.coefficients.b_s_per_token2 == pytest.approx(1e-9, rel=1e-4)
    assert free.coefficients.power == pytest.approx(1.5, rel=1e-4)


def test_a_law_is_not_judged_on_too_few_lengths_or_units() -> None:
    few = laws_of(table(Law(1e-9, 2), lengths=DOUBLINGS[:3]))
    assert few.free is None and few.quadratic is not None and few.quadratic.tenable is True
    none, best = compare_laws(table(Law(1e-9, 2), lengths=DOUBLINGS[:2]))
    assert none == Laws(None, None, None, None) and best is None
    single = laws_of(table(Law(1e-9, 2), units=1)).known
    assert len(single) == len(LAWS)
    assert {(law.tenable, law.p_value) for law in single.values()} == {(None, None)}


def test_a_step_leaves_no_smooth_law_tenable() -> None:
    times = table(Law(1e-9, 2), noise=0.01, units=5)
    times.loc[:, 2048:] *= 1.5
    laws = laws_of(times).known
    assert len(laws) == len(LAWS) and not any(law.tenable for law in laws.values())


def test_the_test_of_a_law_with_one_free_direction_is_students_t_test() -> None:
    """A power law through 3 lengths leaves the second difference."""
    times = table(Law(1e-9, 2.3), noise=0.05, units=5, lengths=(1, 2, 4))
    logs = np.log(times.to_numpy())
    free = LAWS["free"]
    judged = judge(times, free)
    assert judged.fit.c == 0
    expected = stats.ttest_1samp(logs @ [1, -2, 1], 0).pvalue
    assert judged.p_value == pytest.approx(expected, rel=1e-6)


def test_a_factor_on_a_whole_unit_changes_no_judgement_of_a_law() -> None:
    calm = table(Law(1e-9, 2, 1e-4), noise=0.02)
    slowed = calm.mul([1, 3, 0.5], axis=0)
    for name in LAWS:
        before, after = laws_of(calm).known[name], laws_of(slowed).known[name]
        assert before.p_value == pytest.approx(after.p_value, abs=1e-4)


@pytest.mark.parametrize(
    ("lengths", "kind"), [(DOUBLINGS, "inside"), ((16, 32, 64, 128), "above"), ((4096, 8192, 16384), "below")]
)
def test_the_quadratic_part_dominates_from_a_over_b_on_where_that_was_measured(
    lengths: tuple[int, ...], kind: str
) -> None:
    law = laws_of(mixed(lengths=lengths)).mixed
    assert law is not None and law.dominates_from is not None
    found = law.dominates_from
    assert found.kind == kind
    if kind == "inside":
        assert [found.n, found.low, found.high] == pytest.approx([1000] * 3, rel=1e-3)
    else:
        assert (found.n, found.low, found.high) == (None, None, None)
    end = lengths[0] if kind == "below" else lengths[-1]
    if kind != "inside":
        share = 1000 / (1000 + end)
        assert found.lesser_share == pytest.approx(min(share, 1 - share), rel=1e-2)


def test_a_law_of_one_part_has_no_length_where_the_quadratic_part_dominates() -> None:
    for power in (1, 2):
        law = laws_of(table(Law(1e-9, power))).mixed
        assert law is not None and law.dominates_from is None
