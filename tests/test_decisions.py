"""How often conclusions are decided on a noisy machine, and how seldom they are wrong, by six short slices.

Every test prints the rates it achieved: `pytest tests/test_decisions.py -s`; with `-m table` those under
every noise, which the README of scaling shows, and with `-m slow` those of fewer draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.analysis.scaling.exponent import NOT_REACHED, UNDETERMINED, Exponent
from benchmarks.analysis.scaling.firmness import of_crossover
from benchmarks.analysis.scaling.run_effect import RUN_EFFECT
from tests.noise import NOISES, SHARED, CacheStep, Floored, Tiled, Unrest
from tests.sampling import DRAWS, FILES, RUNS, SHORT_RUNS, Sample, covers, crossovers, every_noise, exponents
from tests.synthetic import Law
from tests.test_coverage import LINEAR, STANDARD, assert_rate, lies_within, print_coverage

SIX = (FILES[1], SHORT_RUNS)
SAMPLE = 200
"""Draws of the tests that are not slow."""
POWERS = {"N^0": Law(1e-4, 0), "N": LINEAR, "N^1.5": Law(3e-8, 1.5), "N²": STANDARD}
NAMES = {"N^0": "constant", "N": "linear", "N²": "quadratic"}
BENT = {
    "tiles of 128 in N": (Tiled(1e-6, 1, tile=128), "N"),
    "tiles of 384 in N": (Tiled(1e-6, 1, tile=384), "N"),
    "tiles of 384 in N²": (Tiled(1e-9, 2, tile=384), "N²"),
    "max(c, aN), even at N = 1000": (Floored(1e-6, 1, 1e-3), "N"),
    "max(c, aN), even at N = 4000": (Floored(1e-6, 1, 4e-3), "N"),
    "max(c, aN²), even at N = 700": (Floored(1e-9, 2, 4.9e-4), "N²"),
    "N, 1.3 times as slow from 4096 on": (CacheStep(1e-6, 1, at=4096), "N"),
    "N², 1.3 times as slow from 2048 on": (CacheStep(1e-9, 2), "N²"),
    "c + aN, even at N = 256": (Law(1e-6, 1, 2.56e-4), "N"),
    "c + aN², even at N = 256": (Law(1e-9, 2, 6.6e-5), "N²"),
}
"""Laws that are no powers, and the power that they grow by in the end."""


def decided(found: Sequence[Exponent], power: str) -> float:
    """Share of the exponents whose verdict is this power."""
    name = NAMES.get(power)
    return float(np.mean([one.verdict in (name, f"like {name}") for one in found]))


def wrong(found: Sequence[Exponent], power: str) -> float:
    """Share of the exponents whose verdict is another power than this."""
    name = NAMES.get(power)
    right = (name, f"like {name}", UNDETERMINED, NOT_REACHED)
    return float(np.mean([one.verdict not in right for one in found]))


def wrong_kinds(linear: Law, standard: Law, kind: str, unrest: Unrest, sample: Sample) -> float:
    """Share of the crossovers that are firmly of another kind than they are."""
    found = crossovers(linear, standard, unrest, sample, SAMPLE)
    return float(np.mean([one.kind != kind and of_crossover(one, sample.unit) == "firm" for one in found]))


@pytest.mark.parametrize("sample", SIX, ids=str)
@pytest.mark.parametrize("power", POWERS)
def test_growth_is_decided_on_a_noisy_machine_and_never_wrongly(power: str, sample: Sample) -> None:
    """The slices of a shared machine lie 18 % apart, and its rounds 10 %."""
    found = exponents(POWERS[power], SHARED, sample, SAMPLE)
    assert_rate(wrong(found, power), 0, 0.01, SAMPLE, f"{power}, {sample}: wrong")
    if power in ("N", "N²"):
        assert_rate(decided(found, power), 0.9, 1, SAMPLE, f"{power}, {sample}: decided")
    truth = {"N^0": 0, "N": 1, "N^1.5": 1.5, "N²": 2}[power]
    assert_rate(covers(found, truth), 0.9, 1, SAMPLE, f"{power}, {sample}: held")


@pytest.mark.parametrize("draws", [SAMPLE // 5, pytest.param(SAMPLE, marks=pytest.mark.slow)])
@pytest.mark.parametrize("law", BENT)
def test_growth_that_is_no_power_is_never_called_another(law: str, draws: int) -> None:
    times, power = BENT[law]
    for sample in SIX:
        found = exponents(times, SHARED, sample, draws)
        assert_rate(wrong(found, power), 0, 0.01, draws, f"{law}, {sample}: wrong")


def test_one_file_holds_what_its_run_does_to_all_repetitions() -> None:
    calm = NOISES["run, repetition and AR(1) round noise"]
    found = exponents(STANDARD, calm, FILES[1], SAMPLE)
    assert_rate(covers(found, 2), 0.9, 1, SAMPLE, f"exponent, {FILES[1]}")
    both = crossovers(LINEAR, STANDARD, calm, FILES[1], SAMPLE)
    assert_rate(covers(both, 1000), 0.9, 1, SAMPLE, f"crossover, {FILES[1]}")


@every_noise
def test_coverage_of_one_file_and_of_short_runs_under_every_noise(draws: int) -> None:
    """Coverage for the table of single files in the README of scaling is printed."""
    assumed = {name: unrest for name, unrest in NOISES.items() if unrest.run <= RUN_EFFECT}
    print_coverage((*FILES, SHORT_RUNS), assumed, 0.9, draws)
    print_coverage((*FILES, SHORT_RUNS), {n: u for n, u in NOISES.items() if n not in assumed}, 0.0, draws)


@every_noise
def test_decisions_on_growth_under_every_noise(draws: int) -> None:
    """The table of decisions in the README of scaling is printed."""
    samples = (*FILES, SHORT_RUNS)
    cells = [f"{power}, {one}" for power in ("N", "N²") for one in samples]
    print(f"\n| noise, draws | {' | '.join(cells)} | wrong |\n|---|" + "---|" * (len(cells) + 1))
    misses = []
    for name, unrest in NOISES.items():
        # Of few draws at the edge of what can be decided, chance makes a percent.
        count = DRAWS if unrest is SHARED else draws
        told = [decided(exponents(POWERS[p], unrest, one, count), p) for p in ("N", "N²") for one in samples]
        false = max(
            wrong(exponents(law, unrest, one, count), power)
            for power, law in POWERS.items()
            for one in samples
        )
        print(f"| {name}, {count} | {' | '.join(f'{rate:.0%}' for rate in told)} | {false:.1%} |", flush=True)
        misses += [name] if false > 0.01 else []
    assert not misses


@pytest.mark.table
def test_decisions_on_laws_that_are_no_powers() -> None:
    """The table of bent laws in the README of scaling is printed, means over all noises."""
    samples = (RUNS[0], SHORT_RUNS, FILES[1])
    cells = [f"{what}, {one}" for what in ("held", "decided") for one in samples]
    print(f"\n| law | {' | '.join(cells)} | wrong |\n|---|" + "---|" * (len(cells) + 1))
    misses = []
    for law, (times, power) in BENT.items():
        found = [[exponents(times, unrest, one, SAMPLE) for unrest in NOISES.values()] for one in samples]
        truth = {"N": 1, "N²": 2}[power]
        rates = [np.mean([covers(some, truth) for some in ours]) for ours in found]
        rates += [np.mean([decided(some, power) for some in ours]) for ours in found]
        false = max(wrong(some, power) for ours in found for some in ours)
        print(f"| {law} | {' | '.join(f'{rate:.0%}' for rate in rates)} | {false:.1%} |", flush=True)
        misses += [law] if not lies_within(false, 0, 0.01, SAMPLE) else []
    assert not misses


@pytest.mark.table
@pytest.mark.parametrize(
    ("linear", "standard", "kind"),
    [
        (Law(0.3e-6, 1), STANDARD, "inside"),
        (Law(0.24e-6, 1), STANDARD, "below"),
        (Law(7.5e-6, 1), STANDARD, "inside"),
        (Law(9e-6, 1), STANDARD, "above"),
    ],
    ids=["inside at 300", "below 256", "inside at 7500", "above 8192"],
)
def test_no_kind_of_crossover_is_firmly_wrong_under_any_noise(linear: Law, standard: Law, kind: str) -> None:
    worst = max(
        wrong_kinds(linear, standard, kind, unrest, one)
        for unrest in NOISES.values()
        for one in (RUNS[0], SHORT_RUNS)
    )
    assert_rate(worst, 0, 0.01, SAMPLE, f"firmly another kind than {kind}")
