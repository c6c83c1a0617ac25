"""Exponents, windows, verdicts and local slopes on times of known law."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.analysis.scaling.exclusion import power_left
from benchmarks.analysis.scaling.exponent import estimate_exponent
from benchmarks.analysis.scaling.growth import SLOPE_TOLERANCE, flat_window, over_window, slope_tolerance
from benchmarks.analysis.scaling.units import (
    MIN_LENGTHS,
    complete_block,
    count_exponent,
    local_slopes,
    student_interval,
)
from tests.noise import Tiled
from tests.synthetic import DOUBLINGS, Law

LENGTHS = np.array(DOUBLINGS, dtype=float)
EXACT = 1e-9
"""Tolerance of results from logarithms of a dozen digits, a few operations each."""


def table(
    law: Law, noise: float = 0.0, units: int = 3, seed: int = 0, lengths: Sequence[int] = DOUBLINGS
) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    effects = noise * random.standard_normal((units, len(lengths)))
    return pd.DataFrame(np.exp(effects), columns=list(lengths)).mul([law(length) for length in lengths])


@pytest.mark.parametrize(
    ("power", "verdict"), [(0, "constant"), (1, "linear"), (2, "quadratic"), (1.5, "undetermined")]
)
def test_the_exponent_of_a_pure_power_is_that_power(power: float, verdict: str) -> None:
    exponent = estimate_exponent(table(Law(1e-9, power)))
    assert exponent.value == pytest.approx(power, abs=EXACT)
    assert exponent.verdict == verdict
    assert exponent.window == (256, 8192) and exponent.units == 3
    assert (exponent.reason is None) == (verdict != "undetermined")


def test_the_interval_of_the_exponent_holds_the_true_exponent_at_its_confidence() -> None:
    draws, hits = 500, 0
    for seed in range(draws):
        exponent = estimate_exponent(table(Law(1e-9, 2), noise=0.02, seed=seed))
        assert exponent.low is not None and exponent.high is not None
        hits += exponent.low <= 2 <= exponent.high
    low, high = (stats.binom.ppf(quantile, draws, 0.95) for quantile in (1e-5, 1 - 1e-5))
    assert low <= hits <= high, f"covered in {hits / draws:.1%} of the draws"


def test_the_interval_of_the_exponent_is_that_of_a_t_test() -> None:
    for units in (2, 3, 10):
        values = np.random.default_rng(units).standard_normal(units)
        expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert student_interval(values) == pytest.approx((values.mean(), expected.low, expected.high))


def test_a_verdict_on_the_exponent_needs_the_interval_within_its_margin() -> None:
    powers = np.array([[1.86], [1.94], [1.94]])
    for shift in (0.0, 0.174):  # the interval [1.80, 2.03] and its mirror image at 2
        exponent = estimate_exponent(pd.DataFrame(LENGTHS ** (powers + shift), columns=list(DOUBLINGS)))
        assert exponent.low is not None and exponent.high is not None
        assert (exponent.low < 1.9) != (exponent.high > 2.1)
        assert exponent.verdict == "like quadratic" and exponent.reason is None


def test_a_factor_on_a_whole_unit_does_not_change_the_exponent() -> None:
    calm = table(Law(1e-9, 2), noise=0.02)
    slowed = calm.mul([1, 3, 0.5], axis=0)
    assert estimate_exponent(slowed).value == pytest.approx(estimate_exponent(calm).value, abs=EXACT)
    assert estimate_exponent(slowed).low == pytest.approx(estimate_exponent(calm).low, abs=EXACT)


def test_an_overhead_that_has_not_faded_moves_the_window_and_is_named() -> None:
    law = Law(1e-12, 2, overhead=20e-6)
    exponent = estimate_exponent(table(law))
    slope_of_all = np.polyfit(np.log(LENGTHS), np.log([law(int(n)) for n in LENGTHS]), 1)[0]
    assert exponent.window is not None and exponent.window[0] > 256
    assert exponent.value is not None and slope_of_all < exponent.value < 2
    assert exponent.verdict == "not reached" and exponent.overhead_s is None
    share = 20e-6 / law(8192)
    assert f"20.0 µs still are {100 * share:.0f} % of the time at N = 8192" in str(exponent.reason)


@pytest.mark.parametrize(("power", "verdict"), [(1, "linear"), (2, "quadratic"), (1.5, "undetermined")])
def test_an_overhead_that_has_faded_does_not_change_the_verdict_on_the_exponent(
    power: float, verdict: str
) -> None:
    """An overhead of half of the shortest time bends the slopes within the window, too."""
    exponent = estimate_exponent(
        table(Law(1e-3 / 256**power, power, 1e-3), lengths=(*DOUBLINGS, 16384, 32768))
    )
    assert exponent.value == pytest.approx(power, abs=1e-4) and exponent.verdict == verdict
    assert exponent.overhead_s == pytest.approx(1e-3, rel=1e-3)
    assert exponent.window == (256, 32768)


def test_a_slope_still_rising_at_the_longest_lengths_has_the_verdict_not_reached() -> None:
    """The mean slope of the window is within 0.1 of 1, that at its end is not."""
    slopes = np.array([1.0, 1.0, 1.0, 1.06, 1.2])
    times = 1e-6 * np.exp(np.log(2) * np.concatenate([[0], np.cumsum(slopes)]))
    exponent = estimate_exponent(pd.DataFrame([times] * 3, columns=list(DOUBLINGS)))
    assert exponent.value == pytest.approx(1.05, abs=0.02) and exponent.verdict == "not reached"
    assert "still rising" in str(exponent.reason)


def test_an_exponent_of_time_below_that_of_flops_is_not_reached() -> None:
    linear = table(Law(1e-9, 1))
    assert estimate_exponent(linear, 1.0).verdict == "linear"
    exponent = estimate_exponent(linear, 2.0)
    assert exponent.verdict == "not reached" and "FLOPs, whose exponent is 2.00" in str(exponent.reason)
    assert estimate_exponent(table(Law(1e-9, 2)), 1.0).verdict == "quadratic"


def test_the_window_of_the_exponent_is_the_longest_flat_stretch_up_to_the_longest_length() -> None:
    random = np.random.default_rng(1)
    found = set()
    for _ in range(300):
        slopes = 2 + random.uniform(0.02, 0.4) * random.standard_normal(random.integers(1, 8))
        start = flat_window(slopes)
        flat = [
            first
            for first in range(len(slopes) - MIN_LENGTHS + 2)
            if max(slopes[first:]) - min(slopes[first:]) <= SLOPE_TOLERANCE
        ]
        assert start == min(flat, default=None)
        found.add(start)
    assert None in found and 0 in found and len(found) > 4  # the draws reached every kind of window


def test_an_exponent_without_a_flat_window_is_undetermined() -> None:
    bent = pd.DataFrame([[1, 2, 8, 16]] * 3, columns=[1, 2, 4, 8], dtype=float)
    exponent = estimate_exponent(bent)
    assert exponent.verdict == "undetermined" and "the slope goes from 2.00 to 1.00" in str(exponent.reason)
    assert exponent.window == (2, 8)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_lengths_give_no_exponent_and_say_why(count: int) -> None:
    exponent = estimate_exponent(table(Law(1e-9, 2), lengths=DOUBLINGS[:count]))
    assert (exponent.value, exponent.window, exponent.verdict) == (None, None, "undetermined")
    assert "needs 3" in str(exponent.reason)


def test_the_exponent_of_a_single_unit_has_no_interval() -> None:
    exponent = estimate_exponent(table(Law(1e-9, 2), units=1))
    assert exponent.value == pytest.approx(2, abs=EXACT)
    assert (exponent.low, exponent.high, exponent.verdict) == (None, None, "undetermined")


def test_noise_makes_a_verdict_on_the_exponent_undetermined_rather_than_wrong() -> None:
    exponent = estimate_exponent(table(Law(1e-9, 2), noise=1.0, seed=3))
    assert exponent.low is not None and exponent.high is not None
    assert exponent.high - exponent.low > 1 and exponent.verdict in ("undetermined", "not reached")


@pytest.mark.parametrize(
    ("law", "verdict"),
    [
        (Law(1e-6, 1), "like linear"),
        (Law(1e-6, 1, 2e-4), "like linear"),
        (Law(1e-9, 2), "like quadratic"),
        (Law(1e-9, 2, 1e-4), "like quadratic"),
        (Law(3e-8, 1.5), "undetermined"),
        (Law(1e-4, 0), "undetermined"),
    ],
)
def test_a_wide_interval_has_a_verdict_where_the_times_rule_out_the_other_powers(
    law: Law, verdict: str
) -> None:
    """Noise of 15 % leaves the interval of the exponent too wide for the name of a power."""
    for seed in range(20):
        exponent = estimate_exponent(table(law, noise=0.15, units=3, seed=seed))
        assert exponent.low is not None and exponent.high is not None
        if exponent.high - exponent.low > 0.2 and exponent.verdict != "not reached":
            assert exponent.verdict in (verdict, "undetermined")
    assert exponent.reason is None or verdict == "undetermined"


def test_a_part_that_grows_like_n_squared_is_no_texture_of_a_linear_kernel() -> None:
    """A fifth of the time grows like N² at the longest length, and the units tell so."""
    random = np.random.default_rng(0)
    times = 3e-5 * LENGTHS + 1e-9 * LENGTHS**2
    for _ in range(20):
        noisy = times * np.exp(0.005 * random.standard_normal((6, len(LENGTHS))))
        assert estimate_exponent(pd.DataFrame(noisy, columns=list(DOUBLINGS))).verdict not in (
            "like linear", "like quadratic", "quadratic",
        )  # fmt: skip


def test_units_of_which_none_holds_all_lengths_have_no_exponent_and_say_so() -> None:
    times = table(Law(1e-9, 2), lengths=DOUBLINGS[:3]).to_numpy(copy=True)
    np.fill_diagonal(times, np.nan)
    exponent = estimate_exponent(pd.DataFrame(times, columns=list(DOUBLINGS[:3])))
    assert (exponent.value, exponent.low, exponent.verdict) == (None, None, "undetermined")
    assert exponent.reason is not None


def test_fixed_costs_alone_rule_out_no_power() -> None:
    """A kernel that is constant up to the longest length may yet grow by any law."""
    block = table(Law(1e-4, 0), noise=0.1)
    growth = over_window(block, local_slopes(block))
    assert growth.low is not None and growth.high is not None and -0.5 < growth.low < growth.high < 0.5
    assert power_left(block, growth) is None


def test_growth_below_that_of_the_flops_is_not_reached_whatever_the_times_rule_out() -> None:
    block = table(Law(1e-6, 1), noise=0.15, units=3)
    assert estimate_exponent(block, 1.0).verdict == "like linear"
    assert estimate_exponent(block, 2.0).verdict == "not reached"


def test_what_all_units_share_widens_the_interval_of_the_exponent() -> None:
    block = table(Law(1e-9, 2), noise=0.01)
    own, shared = estimate_exponent(block), estimate_exponent(block, unseen=0.05)
    assert own.low and own.high and shared.low and shared.high
    x = np.log(LENGTHS)
    least = 2 * 1.96 * 0.05 / float(np.sqrt(np.sum((x - x.mean()) ** 2)))
    assert shared.high - shared.low > max(own.high - own.low, least)


def test_a_misfit_that_no_noise_explains_widens_the_interval_of_the_exponent() -> None:
    """Tiles of 384 bend the slopes of N² to 1.75, and all units agree on that."""
    exponent = estimate_exponent(table(Tiled(1e-9, 2, tile=384), noise=1e-3))
    assert exponent.low is not None and exponent.high is not None
    assert exponent.low < 2 < exponent.high and exponent.value != pytest.approx(2, abs=0.05)


def test_the_tolerance_of_a_window_follows_the_noise_of_the_units() -> None:
    calm, noisy = (table(Law(1e-9, 2), noise=noise, seed=1) for noise in (0.01, 0.15))
    assert slope_tolerance(calm) == SLOPE_TOLERANCE == slope_tolerance(calm.iloc[:1])
    assert slope_tolerance(noisy) > 1.5 * SLOPE_TOLERANCE
    assert slope_tolerance(calm, unseen=0.15) > slope_tolerance(noisy)
    whole = sum(
        flat_window(local_slopes(one), slope_tolerance(one)) == 0
        for one in (table(Law(1e-9, 2), noise=0.15, seed=seed) for seed in range(100))
    )
    assert whole >= 80


def test_local_slopes_are_exact_between_lengths_that_do_not_double() -> None:
    slopes = local_slopes(table(Law(1e-9, 1.7), lengths=(10, 100, 150, 1000)))
    assert slopes == pytest.approx([1.7] * 3, abs=EXACT)


def test_a_length_measured_once_leaves_all_other_lengths_their_units() -> None:
    times = table(Law(1e-9, 2), noise=0.01)
    times.iloc[1:, -1] = np.nan
    exponent = estimate_exponent(times)
    assert exponent == estimate_exponent(times.iloc[:, :-1])
    assert exponent.units == 3 and exponent.window == (256, 4096)


def test_an_interrupted_repetition_leaves_all_other_repetitions_their_lengths() -> None:
    times = table(Law(1e-9, 2), noise=0.01)
    times.iloc[2, 2:] = np.nan
    block, notes = complete_block(times)
    assert block.equals(times.iloc[:2]) and notes == [
        "only 2 of 3 units hold all lengths, and only they were used"
    ]


def test_the_exponent_of_counts_is_the_slope_at_the_longest_lengths() -> None:
    counts = 4 * LENGTHS**2 + 1000 * LENGTHS
    exact = np.log(counts[-1] / counts[-2]) / np.log(2)
    assert count_exponent(LENGTHS, counts) == pytest.approx(exact, abs=EXACT)
    assert count_exponent(LENGTHS, np.where(LENGTHS > 512, np.nan, counts)) == pytest.approx(
        np.log2(counts[1] / counts[0]), abs=EXACT
    )
    assert count_exponent(LENGTHS[:1], counts[:1]) is None
