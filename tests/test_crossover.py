"""Crossovers of known laws, their kinds and their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.interpolate import CubicSpline

from benchmarks.analysis.report.conclusions import PairCrossover
from benchmarks.analysis.report.sentences import crossover
from benchmarks.analysis.scaling.crossover import Crossover, find_crossover
from tests.concluded import SETTING
from tests.noise import Floored, Tiled
from tests.synthetic import DOUBLINGS, Law

LINEAR, STANDARD = Law(1e-6, 1), Law(1e-9, 2)  # both 1e-3 s at N = 1000
EXACT = 1e-9


def table(law: Law, noise: float = 0.0, units: int = 3, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    times = np.array([law(length) for length in DOUBLINGS])
    noisy = times * np.exp(noise * random.standard_normal((units, len(times))))
    return pd.DataFrame(noisy, columns=DOUBLINGS)


def ratios(*units: Sequence[float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of two kernels with given time ratios, linear over standard."""
    lengths = DOUBLINGS[: len(units[0])]
    linear = pd.DataFrame(units, columns=lengths, dtype=float)
    return linear, linear * 0 + 1


def sentence(found: Crossover) -> str:
    return crossover(PairCrossover("linear-a", "standard-b", SETTING, "time", found, "open"))


@pytest.mark.parametrize("where", [300.0, 1000.0, 7000.0])
def test_the_crossover_of_pure_powers_is_where_their_laws_cross(where: float) -> None:
    found = find_crossover(table(Law(where * 1e-9, 1)), table(STANDARD))
    assert (found.kind, found.ahead_beyond) == ("inside", "contender")
    assert found.n == pytest.approx(where, rel=EXACT)
    assert found.low == pytest.approx(where / 1.05, rel=1e-5)
    assert found.high == pytest.approx(where * 1.05, rel=1e-5)


def at_lengths(law: Law, lengths: Sequence[int]) -> pd.DataFrame:
    return pd.DataFrame([[law(length) for length in lengths]] * 3, columns=list(lengths))


@pytest.mark.parametrize(
    ("linear", "standard"),
    [
        (Tiled(1e-6, 1, tile=384), STANDARD),
        (Tiled(1e-6, 1, tile=128), STANDARD),
        (Floored(1e-6, 1, 1.3e-3), STANDARD),
        (Floored(1e-6, 1, 0.9e-3), STANDARD),
    ],
    ids=["tiles of 384", "tiles of 128", "a floor above", "a floor below"],
)
def test_the_interval_of_the_crossover_holds_one_between_lengths_that_double(
    linear: Law, standard: Law
) -> None:
    """Time between two measured lengths is a staircase, or has a kink, and no noise tells so."""
    every = range(DOUBLINGS[0], DOUBLINGS[-1])
    ahead = np.array([linear(length) < standard(length) for length in every])
    crossings = [every[at] for at in np.flatnonzero(ahead[1:] != ahead[:-1]) + 1]
    found = find_crossover(at_lengths(linear, DOUBLINGS), at_lengths(standard, DOUBLINGS))
    assert found.n is not None and found.low is not None and found.high is not None
    assert any(found.low <= crossing <= found.high for crossing in crossings)
    assert found.low <= found.n / 1.049 and found.n * 1.049 <= found.high


def test_finer_lengths_narrow_the_interval_of_the_crossover() -> None:
    widths = []
    for lengths in (DOUBLINGS, (256, 512, 768, 896, 1024, 1152, 1280, 2048), range(904, 1100, 8)):
        found = find_crossover(at_lengths(LINEAR, lengths), at_lengths(STANDARD, lengths))
        assert found.low is not None and found.high is not None and found.low < 1000 < found.high
        widths.append(found.high / found.low)
    assert widths[0] > 1.1 > 1.03 > widths[1] > widths[2] > 1


def test_the_crossover_depends_neither_on_the_unit_of_time_nor_on_the_speed_of_a_run() -> None:
    linear, standard = table(LINEAR, 0.05, seed=1), table(STANDARD, 0.05, seed=2)
    found = find_crossover(linear, standard)
    speeds = [1e3, 2.0, 0.1]
    again = find_crossover(linear.mul(speeds, axis=0), standard.mul(speeds, axis=0))
    assert (again.n, again.low, again.high) == pytest.approx((found.n, found.low, found.high), rel=EXACT)


@pytest.mark.parametrize(
    ("ratio", "kind", "ahead", "words"),
    [
        ([0.9, 0.5, 0.3], "below", "contender", "beats standard-b at every length"),
        ([4, 3, 2], "above", "baseline", "never beats"),
        ([1, 1, 1], "above", "baseline", "never beats"),
        ([2, 0.5, 2, 0.5], "multiple", "contender", "more than once"),
        ([0.5, 2, 0.5, 2], "multiple", "baseline", "standard-b is ahead"),
        ([2, 1.5, 0.5], "inside", "contender", "beats standard-b from N ="),
        ([0.5, 0.8, 2], "inside", "baseline", "only up to N ="),
    ],
)
def test_each_kind_of_crossover_has_its_sentence(
    ratio: list[float], kind: str, ahead: str, words: str
) -> None:
    found = find_crossover(*ratios(ratio, ratio))
    assert (found.kind, found.ahead_beyond) == (kind, ahead)
    assert words in sentence(found)
    assert (found.n is None) == (kind != "inside")


def test_a_linear_kernel_ahead_at_short_lengths_only_is_not_said_to_win_from_the_crossover_on() -> None:
    found = find_crossover(*ratios([0.5, 0.8, 2], [0.5, 0.8, 2.1]))
    assert found.n is not None and 512 < found.n < 1024
    assert "from N" not in sentence(found) and "not beyond" in sentence(found)


def test_a_tie_at_a_measured_length_is_the_crossover() -> None:
    assert find_crossover(*ratios([2, 1, 0.5])).n == pytest.approx(512, rel=EXACT)


def test_kernels_without_common_lengths_have_no_crossover() -> None:
    found = find_crossover(table(LINEAR).iloc[:, :2], table(STANDARD).iloc[:, 2:])
    assert (found.kind, found.n, found.ahead_beyond) == ("none", None, None)
    assert "no length in common" in sentence(found)


def test_the_crossover_is_not_extrapolated_beyond_the_common_lengths() -> None:
    standard = table(STANDARD).iloc[
        :, :2
    ]  # the laws cross at 1000, the standard kernel was measured up to 512
    found = find_crossover(table(LINEAR), standard)
    assert (found.kind, found.n, found.lengths) == ("above", None, (256, 512))


def test_the_interval_of_the_crossover_holds_the_true_crossover_at_its_confidence() -> None:
    draws, hits = 500, 0
    for seed in range(draws):
        found = find_crossover(table(LINEAR, 0.02, seed=2 * seed), table(STANDARD, 0.02, seed=2 * seed + 1))
        assert found.low is not None and found.high is not None and found.n is not None
        assert found.low <= found.n <= found.high
        hits += found.low <= 1000 <= found.high
    assert hits >= stats.binom.ppf(1e-5, draws, 0.95), f"covered in {hits / draws:.1%} of the draws"


def test_the_interval_of_the_crossover_is_where_neither_kernel_is_surely_ahead() -> None:
    """The interval equals that of t tests of the log-ratios on a fine grid, by lines and by splines."""
    for seed in range(20):
        linear, standard = table(LINEAR, 0.2, 4, seed=seed), table(STANDARD, 0.2, 4, seed=99 + seed)
        found = find_crossover(linear, standard)
        if found.kind != "inside" or found.notes:
            continue
        assert found.low is not None and found.high is not None and found.n is not None
        x, values = np.log(DOUBLINGS), np.log((linear / standard).to_numpy())
        grid = np.linspace(x[0], x[-1], 4001)
        ends = []
        for fine in (
            np.array([np.interp(grid, x, unit) for unit in values]),
            CubicSpline(x, values.T)(grid).T,
        ):
            doubt = np.asarray(stats.ttest_1samp(fine, 0).pvalue > 0.05)
            mean, sign = fine.mean(axis=0), np.sign(np.interp(grid, x, values.mean(axis=0)))
            # The zero of the spline lies between the two lengths that enclose the zero of the line.
            first = int(np.searchsorted(x, math.log(found.n))) - 1
            within = (grid >= x[first]) & (grid <= x[first + 1])
            at = int(np.flatnonzero(within & (np.sign(mean) != sign[np.argmax(within)]))[0])
            ends.append((grid[at - int(np.argmin(doubt[at::-1]))], grid[at + int(np.argmin(doubt[at:]))]))
        left, right = min(ends)[0], max(high for _, high in ends)
        step = grid[1] - grid[0]
        assert math.log(found.low) == pytest.approx(left, abs=1.01 * step)
        assert math.log(found.high) == pytest.approx(right, abs=1.01 * step)


def test_the_interval_of_the_crossover_is_wider_for_nearly_parallel_laws() -> None:
    flat = Law(1e-6 / 1000**0.2, 1.2)
    assert flat(1000) == pytest.approx(LINEAR(1000))
    steep = find_crossover(table(LINEAR, 0.01, seed=4), table(STANDARD, 0.01, seed=5))
    parallel = find_crossover(table(LINEAR, 0.01, seed=4), table(flat, 0.01, seed=5))
    widths = [math.log(one.high / one.low) for one in (steep, parallel) if one.high and one.low]
    assert widths[1] > 3 * widths[0]


def test_the_interval_of_the_crossover_is_clipped_to_the_measured_lengths_and_says_so() -> None:
    found = find_crossover(*ratios([1.1, 0.9, 0.3], [1.3, 0.7, 0.3], [0.8, 1.2, 0.3]))
    assert found.kind == "inside" and found.low == pytest.approx(256)
    assert any("clipped" in note and "256" in note for note in found.notes)


def test_the_crossover_names_lengths_within_the_noise() -> None:
    found = find_crossover(*ratios([0.9, 0.5], [1.05, 0.6], [0.98, 0.4]))
    assert (found.kind, found.within_noise) == ("below", [256])
    assert "within the noise at 256" in sentence(found)


def test_the_crossover_of_one_unit_has_no_interval_unless_the_quantity_is_exact() -> None:
    measured = find_crossover(table(LINEAR, units=1), table(STANDARD, units=1))
    counted = find_crossover(table(LINEAR, units=1), table(STANDARD, units=1), exact=True)
    assert measured.n == pytest.approx(1000) and measured.low is None and measured.high is None
    assert counted.n == pytest.approx(1000)
    assert (counted.low, counted.high) == pytest.approx((1000 / 1.05, 1000 * 1.05), rel=1e-5)


def test_the_crossover_of_kernels_from_different_runs_has_no_interval() -> None:
    linear, standard = table(LINEAR, units=1), table(STANDARD, units=1).rename(index={0: 7})
    found = find_crossover(linear, standard)
    assert found.n == pytest.approx(1000) and found.low is None
    assert any("share no units" in note for note in found.notes)


def test_the_crossover_leaves_out_and_names_a_length_that_some_units_lack() -> None:
    linear, standard = table(LINEAR), table(STANDARD)
    standard.iloc[1:, -1] = np.nan
    found = find_crossover(linear, standard)
    assert found.units == 3 and found.lengths == (256, 4096)
    assert any("8192" in note for note in found.notes)


def test_the_ratios_shown_are_those_that_decide_the_crossover_and_are_1_there() -> None:
    linear, standard = table(LINEAR, 0.3, seed=3), table(STANDARD, 0.3, seed=4)
    linear.iloc[0, -1] = np.nan  # this length decides nothing, but two units still show its ratio
    found = find_crossover(linear, standard)
    assert found.seq_lens == list(DOUBLINGS) and found.lengths == (256, 4096)
    expected = np.exp(np.log(standard / linear).mean()).to_numpy()
    assert found.ratios == pytest.approx(expected, rel=EXACT)
    assert found.kind == "inside" and found.n is not None
    place = np.interp(math.log(found.n), np.log(DOUBLINGS), np.log(np.array(found.ratios, dtype=float)))
    assert place == pytest.approx(0, abs=EXACT)


def test_two_lengths_alone_leave_a_crossover_anywhere_between_them() -> None:
    """Fixed costs bend the ratio, and with no third length nothing tells by how much."""
    lengths = (512, 2048)
    linear, standard = Law(5.03e-7, 1, 1.04e-5), Law(2.37e-10, 2, 1.73e-4)
    found = find_crossover(at_lengths(linear, lengths), at_lengths(standard, lengths))
    assert (found.low, found.high) == pytest.approx((512, 2048), rel=1e-9)
