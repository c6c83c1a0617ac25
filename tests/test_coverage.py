"""Coverage of intervals and error rates of verdicts, under the noise of shared machines.

Every test prints the rates it achieved: `pytest tests/test_coverage.py -s`; with `-m table` the full
matrix of noises and units, which the README of scaling shows, and with `-m slow` that of fewer draws.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy.optimize import brentq

from benchmarks.analysis.scaling.exponent import NOT_REACHED, UNDETERMINED, Exponent
from benchmarks.analysis.scaling.growth import TANGIBLE
from tests.noise import ALL, CALM, NOISES, CacheStep, Unrest
from tests.sampling import DRAWS, RUNS, Sample, covers, crossovers, every_noise, exponents
from tests.synthetic import DOUBLINGS, Law

FEW = (RUNS[0], *(pytest.param(runs, marks=pytest.mark.slow) for runs in RUNS[1:]))
"""Three runs are the fewest worth measuring, and where most goes wrong."""
PROMISED = (0.92, 1.0)
"""Range of coverage allowed for a 95 % interval, which allows for misfit and resolution as well."""
WRONG = 0.01
OPEN = (UNDETERMINED, NOT_REACHED)
"""Verdicts allowed where the data do not decide."""

LINEAR, STANDARD = Law(1e-6, 1), Law(1e-9, 2)  # both 1e-3 s at N = 1000
BENT = (Law(1e-6, 1, 3e-4), Law(1e-9, 2))
"""A fixed cost of the linear kernel bends the log-ratio."""
VERY_BENT = (Law(1e-6, 1, 1e-4), Law(1e-9, 2, 2e-4))
"""Fixed costs of both kernels, which make its slope change threefold within two doublings."""
STEPPED = (Law(0.75e-6, 1), CacheStep(1e-9, 2, at=2048, factor=1.3))
"""Laws whose standard kernel overflows a cache between the two lengths after the crossover."""
PARALLEL = (Law(1e-6, 1), Law(1e-6 / 1500**0.02, 1.02))
"""Laws that cross at 1500 and are 3.5 % apart at most, hardly more than the noise of a unit."""


def lies_within(rate: float, low: float, high: float, draws: int) -> bool:
    """Whether a rate lies in a range widened by 3 standard errors of a binomial share at its ends."""
    below, above = (3 * math.sqrt(end * (1 - end) / draws) for end in (low, high))
    return low - below <= rate <= high + above


def assert_rate(rate: float, low: float, high: float, draws: int, what: str) -> None:
    print(f"{what:70s} {rate:7.1%}   (expected {low:.0%} to {high:.0%}, {draws} draws)")
    assert lies_within(rate, low, high, draws), f"{what}: {rate:.1%} of {draws} draws"


def crossing(linear: Law, standard: Law) -> float:
    """N at which the laws cross, leaving out any cache step."""
    smooth = Law(standard.coefficient, standard.power, standard.overhead)
    return float(brentq(lambda n: linear(n) - smooth(n), DOUBLINGS[0], DOUBLINGS[-1]))


@pytest.mark.parametrize("runs", RUNS, ids=str)
def test_the_interval_of_the_exponent_covers_at_its_confidence(runs: Sample) -> None:
    found = exponents(Law(1e-9, 2), CALM, runs)
    assert_rate(covers(found, 2), *PROMISED, DRAWS, f"exponent, {runs}")


@pytest.mark.parametrize("runs", FEW, ids=str)
def test_the_interval_of_the_exponent_covers_under_every_noise_at_once(runs: Sample) -> None:
    found = exponents(Law(1e-9, 2), ALL, runs)
    assert_rate(covers(found, 2), *PROMISED, DRAWS, f"exponent, {runs}, all noises")


def test_noise_seldom_cuts_the_window_of_the_exponent() -> None:
    """Noise bends the slopes of N² by more than tiles and caches bend those of a kernel."""
    found = exponents(Law(1e-9, 2), Unrest(run=0.08, repetition=0.03), RUNS[0])
    cut = float(np.mean([one.window != (DOUBLINGS[0], DOUBLINGS[-1]) for one in found]))
    assert_rate(cut, 0, 0.2, DRAWS, "exponent, 3 runs, window cut short")
    assert_rate(covers(found, 2), *PROMISED, DRAWS, "exponent, 3 runs, noise of 8 %")


@pytest.mark.parametrize("runs", FEW, ids=str)
def test_the_interval_of_the_crossover_covers_at_its_confidence(runs: Sample) -> None:
    found = crossovers(LINEAR, STANDARD, CALM, runs)
    assert all(one.kind == "inside" for one in found)
    assert_rate(covers(found, 1000), *PROMISED, DRAWS, f"crossover, {runs}")


@pytest.mark.parametrize("draws", (200, pytest.param(DRAWS, marks=pytest.mark.slow)))
@pytest.mark.parametrize(
    "laws", [BENT, VERY_BENT, STEPPED], ids=["a bent ratio", "a very bent ratio", "a step beside it"]
)
def test_the_interval_of_the_crossover_covers_for_laws_that_are_no_powers(
    laws: tuple[Law, Law], draws: int, request: pytest.FixtureRequest
) -> None:
    """Fixed costs bend the ratio, and a cache cliff breaks it."""
    found = crossovers(*laws, CALM, RUNS[2], draws)
    assert_rate(covers(found, crossing(*laws)), *PROMISED, draws, f"crossover, {request.node.callspec.id}")


@pytest.mark.parametrize("runs", FEW, ids=str)
@pytest.mark.parametrize(
    ("power", "right"), [(0, "constant"), (1, "linear"), (1.5, "undetermined"), (2, "quadratic")]
)
def test_verdicts_on_exponents_are_hardly_ever_wrong(power: float, right: str, runs: Sample) -> None:
    verdicts = [one.verdict for one in exponents(Law(1e-9, power), ALL, runs)]
    wrong = np.mean([verdict not in (right, f"like {right}", *OPEN) for verdict in verdicts])
    told = np.mean([verdict == right for verdict in verdicts])
    what = f"wrong verdict on N^{power}, {runs} ({right} {told:.0%})"
    assert_rate(float(wrong), 0, WRONG, DRAWS, what)


def says_rising(exponent: Exponent) -> bool:
    """Whether the reason names slopes, and the last of them is the steepest."""
    slopes = [float(word) for word in re.findall(r"-?\d+\.\d\d", str(exponent.reason).partition("slope")[2])]
    return len(slopes) > 1 and slopes[-1] == max(slopes)


@pytest.mark.parametrize(
    ("runs", "draws"), [(RUNS[0], 250), *(pytest.param(n, DRAWS, marks=pytest.mark.slow) for n in RUNS)]
)
@pytest.mark.parametrize("reached", [1, 4, 16, 64])
def test_a_quadratic_law_hidden_by_its_overhead_gets_no_other_exponent_without_a_reason(
    reached: float, runs: Sample, draws: int
) -> None:
    """The N^2 part reaches `reached` times the 20 us of overhead at the longest length, N = 512."""
    law = Law(reached * 20e-6 / 512**2, 2, 20e-6)
    found = exponents(law, CALM, runs, draws, lengths=(64, 128, 256, 512))
    faded = reached > 1 / TANGIBLE
    called = np.mean(
        [one.verdict not in (*OPEN, *(["quadratic", "like quadratic"] if faded else [])) for one in found]
    )
    # Who reads that it grows like N² is not misled by an interval that ends short of 2.
    unsaid = [one for one in found if one.high and one.high < 2 and "quadratic" not in one.verdict]
    silent = sum(not says_rising(one) for one in unsaid) / draws
    what = f"20 us + N^2, {reached}x at N = 512, {runs}"
    assert_rate(float(called), 0, WRONG, draws, f"{what}: called a power" + (" but 2" if faded else ""))
    # A 95 % interval may miss on one side where the overhead has faded.
    assert_rate(float(silent), 0, 0.025 if faded else WRONG, draws, f"{what}: excludes 2 in silence")


@pytest.mark.parametrize(
    ("runs", "draws"), [(RUNS[0], 200), *(pytest.param(n, DRAWS, marks=pytest.mark.slow) for n in RUNS)]
)
@pytest.mark.parametrize(
    ("linear", "standard", "kind"),
    [
        (Law(0.2e-6, 1), STANDARD, "below"),
        (Law(10e-6, 1), STANDARD, "above"),
        (LINEAR, STANDARD, "inside"),
        (CacheStep(0.7e-6, 1, at=2048, factor=4), STANDARD, "multiple"),
    ],
    ids=["below", "above", "inside", "multiple"],
)
def test_the_kind_of_a_clear_crossover_is_told(
    linear: Law, standard: Law, kind: str, runs: Sample, draws: int
) -> None:
    """A crossover is clear where at all lengths but one a kernel is ahead by a quarter or more."""
    found = crossovers(linear, standard, ALL, runs, draws)
    rate = sum(one.kind == kind for one in found) / draws
    assert_rate(rate, 0.99, 1, draws, f"told: {kind}, {runs}")


@pytest.mark.parametrize(
    ("runs", "draws"), [(RUNS[0], 200), *(pytest.param(n, DRAWS, marks=pytest.mark.slow) for n in RUNS)]
)
def test_nearly_parallel_laws_give_no_narrow_interval_of_the_crossover(runs: Sample, draws: int) -> None:
    """The interval spans a factor of 1.5 or more, or lengths within the noise are named."""
    sure = 0
    found = crossovers(*PARALLEL, CALM, runs, draws)
    for one in found:
        if one.low is None or one.high is None:
            sure += not one.within_noise
        else:
            sure += one.high < 1.5 * one.low
    inside = sum(one.kind == "inside" for one in found) / draws
    what = f"nearly parallel, {runs} ({inside:.0%} inside): too sure"
    assert_rate(sure / draws, 0, 0.05, draws, what)


@every_noise
def test_coverage_of_every_interval_under_every_noise(draws: int) -> None:
    """Coverage for the table of runs in the README of scaling is printed."""
    print_coverage(RUNS, NOISES, 0.92, draws)


def print_coverage(samples: Sequence[Sample], noises: Mapping[str, Unrest], least: float, draws: int) -> None:
    """Print a row of coverages for each noise, of which none may be below the least."""
    print(f"\n| noise of {draws} draws | " + " | ".join(f"exponent, {one}" for one in samples), end=" | ")
    print(" | ".join(f"crossover, {one}" for one in samples), "|\n|---|" + "---|" * 2 * len(samples))
    misses = []
    for name, unrest in noises.items():
        rates = [covers(exponents(STANDARD, unrest, one, draws), 2) for one in samples]
        rates += [covers(crossovers(LINEAR, STANDARD, unrest, one, draws), 1000) for one in samples]
        print(f"| {name} | " + " | ".join(f"{rate:.1%}" for rate in rates), "|", flush=True)
        misses += [(name, rate) for rate in rates if not lies_within(rate, least, 1, draws)]
    assert not misses
