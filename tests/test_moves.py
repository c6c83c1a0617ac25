"""Moved exponents and crossovers: of equal code hardly ever, of a changed kernel mostly.

The simulations print the rates they achieved: `pytest tests/test_moves.py -s`; with `-m table` those of all
noises, which the README of comparison shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.analysis.comparison.conclusions import CrossoverShift, ExponentShift, Place
from benchmarks.analysis.comparison.matching import Stratum
from benchmarks.analysis.comparison.moves import judge_shifts
from benchmarks.analysis.comparison.regression import MARGIN
from benchmarks.analysis.comparison.shifts import in_doubt
from benchmarks.analysis.scaling.crossover import find_crossover
from benchmarks.analysis.scaling.run_effect import RUN_EFFECT
from tests.compared import having
from tests.noise import CALM, NOISES, Floats, Unrest, draw_files, draw_tables, seconds
from tests.synthetic import DOUBLINGS, Law
from tests.test_coverage import assert_rate

CROSSINGS = {"inside": 1000, "near": 266, "at": 255, "under": 248, "long": 8000, "beyond": 8400}
"""Where linear kernels cross the standard one: inside the lengths and close to their ends."""
KERNELS = {"standard-sdpa": Law(1e-9, 2)} | {
    f"linear-{name}": Law(n * 1e-9, 1) for name, n in CROSSINGS.items()
}
SETTING: dict[str, Any] = {
    "subject": "operator", "mode": "causal", "phase": "forward", "device": "cpu", "device_name": "CPU",
    "machine": "", "dtype": "float32", "clock": "wall",
    "batch": 1, "heads": 8, "kv_heads": 8, "head_dim": 64, "value_dim": 64, "query_len": None,
    "ranks": None,
}  # fmt: skip
Shifts = tuple[list[ExponentShift], list[CrossoverShift]]


def rows(times: Floats, kernels: Sequence[str] = tuple(KERNELS)) -> pd.DataFrame:
    """Rows of one side, from seconds of shape (kernels, units, lengths)."""
    places = [kernels, range(times.shape[1]), DOUBLINGS[: times.shape[2]]]
    index = pd.MultiIndex.from_product(places, names=["kernel", "unit", "seq_len"])
    table = pd.DataFrame({"median_s": times.reshape(-1)}, index=index).reset_index()
    return table.assign(family=table["kernel"].str.partition("-")[0], **SETTING)


def simulated(
    unrest: Unrest, draws: int, *, pairs: int = 0, repetitions: int = 0, slower: float = 1
) -> Iterator[Shifts]:
    """What comparisons say, of pairs of runs or of the repetitions of two files.

    `slower` is what the kernel that crosses inside the lengths takes in the head.
    """
    truth = seconds(list(KERNELS.values()), DOUBLINGS)
    if pairs:
        runs = draw_tables(truth, unrest, draws=draws, units=2 * pairs, seed=0)
        base, head = runs[:, :, 0::2], runs[:, :, 1::2]
    else:
        base, head = (
            draw_files(truth, unrest, draws=draws, repetitions=repetitions, seed=seed) for seed in (0, 1)
        )
    head[list(KERNELS).index("linear-inside")] *= slower
    for draw in range(draws):
        part = Stratum(rows(base[:, draw]), rows(head[:, draw]), "pair" if pairs else "repetition")
        yield judge_shifts([part], MARGIN)


def moved(found: Shifts) -> bool:
    return bool(having(found[0], "moved") or having(found[1], "moved"))


def rate_of_moves(unrest: Unrest, draws: int, pairs: int, repetitions: int = 0) -> float:
    found = simulated(unrest, draws, pairs=pairs, repetitions=repetitions)
    return float(np.mean([moved(one) for one in found]))


@pytest.mark.parametrize("pairs", [pytest.param(3, marks=pytest.mark.slow), 6])
def test_equal_code_moves_no_exponent_and_no_crossover(pairs: int) -> None:
    rate = rate_of_moves(CALM, 30, pairs)
    assert_rate(rate, 0, 0.05, 30, f"A/A moved, {pairs} pairs")


@pytest.mark.parametrize("pairs", [pytest.param(3, marks=pytest.mark.slow), 6])
def test_a_linear_kernel_that_became_slower_moves_its_crossover(pairs: int) -> None:
    found = list(simulated(CALM, 15, pairs=pairs, slower=1.3))
    names = [[one.contender for one in having(pairs_of, "moved")] for _, pairs_of in found]
    rate = np.mean([one == ["linear-inside"] for one in names])
    assert_rate(float(rate), 0.9, 1, 15, f"moved by 30 %, {pairs} pairs")


@pytest.mark.table
def test_equal_code_moves_nothing_under_every_noise() -> None:
    """Rates for the table of the README of comparison are printed."""
    draws, misses = 100, []
    print("\n| noise | 3 pairs | 6 pairs | one run of 3 repetitions a side | of 6 |\n|---|---|---|---|---|")
    for name, unrest in NOISES.items():
        rates = [rate_of_moves(unrest, draws, pairs) for pairs in (3, 6)]
        files = [rate_of_moves(unrest, draws, 0, repetitions) for repetitions in (3, 6)]
        print(f"| {name} | " + " | ".join(f"{rate:.0%}" for rate in [*rates, *files]), "|", flush=True)
        rates += files if unrest.run <= RUN_EFFECT else []  # no repetition shows more than what is assumed
        misses += [(name, rate) for rate in rates if rate > 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)]
    assert not misses


# Where a crossover may lie


def ratios(*logs: Sequence[float] | Floats) -> pd.DataFrame:
    """Linear over standard by unit and length, from the log-ratios of each length in all units."""
    return pd.DataFrame(np.exp(np.array(logs).T), columns=list(DOUBLINGS[: len(logs)]))


def place(table: pd.DataFrame) -> Place:
    return Place.of(find_crossover(table, pd.DataFrame(1.0, table.index, table.columns)))


SPREAD = np.array([0.02, -0.02, 0.02, -0.02, 0.02, -0.02])


@pytest.mark.parametrize(
    ("means", "stretch"),
    [
        ((-0.5, -1, -2), (0, 256)),
        ((-0.01, -1, -2), (0, 512)),
        ((-0.5, -0.01, -2), (0, 1024)),
        ((-2, -1, -0.01), (0, math.inf)),
        ((2, 1, 0.5), (1024, math.inf)),
        ((2, 1, 0.01), (512, math.inf)),
        ((2, 0.01, 1), (256, math.inf)),
        ((0.01, 1, 2), (0, math.inf)),
        ((1, -1, 1), (0, math.inf)),
        ((0.005, -1, -2), (0, None)),
        ((1, 0.8, -0.005), (None, math.inf)),
        ((2, 1, -1, -1, -0.005), (None, math.inf)),
    ],
)
def test_a_crossover_is_in_doubt_up_to_the_next_length_beyond_the_noise(
    means: Sequence[float], stretch: tuple[float | None, float | None]
) -> None:
    """None stands for an end between the lengths."""
    found = in_doubt(place(ratios(*(mean + SPREAD for mean in means))))
    for end, known in zip(found, stretch, strict=True):
        assert (end not in (0, *DOUBLINGS, math.inf)) if known is None else end == known


def test_a_crossover_of_a_single_unit_is_in_doubt_everywhere() -> None:
    assert in_doubt(place(ratios([1], [-1], [-2]))) == (0, math.inf)
    assert in_doubt(place(ratios([-1], [-1], [-2]))) == (0, math.inf)


def compared(base: pd.DataFrame, head: pd.DataFrame) -> CrossoverShift:
    """The crossover of two sides, given as linear over standard."""
    kernels = ("linear-chunked", "standard-sdpa")
    before, after = (rows(np.stack([table, np.ones(table.shape)]), kernels) for table in (base, head))
    (found,) = judge_shifts([Stratum(before, after, "pair")], MARGIN)[1]
    return found


def test_a_crossover_at_the_shortest_length_within_the_noise_has_not_moved() -> None:
    """The ratio at 256 is 3 % on one side and -1 % on the other, each known to 2 %."""
    rest = [mean + SPREAD for mean in (-0.65, -1.35)]
    base, head = ratios(0.03 + SPREAD, *rest), ratios(-0.01 + SPREAD[::-1], *rest)
    for first, second in ((base, head), (head, base)):
        found = compared(first, second)
        assert {found.base.kind, found.head.kind} == {"inside", "below"} and found.verdict == "inconclusive"


def test_a_crossover_moved_where_the_lead_at_a_length_surely_changed_hands() -> None:
    before, after = (
        ratios(*(mean + SPREAD for mean in means)) for means in ((0.4, -0.3, -1), (-0.4, -1, -2))
    )
    for found in (compared(before, after), compared(after, before)):
        assert found.verdict == "moved" and found.p is not None and found.p < 0.05
        assert found.change.ratio is None
    nothing = compared(after, after)
    assert nothing.verdict == "unchanged" and nothing.p is None


def test_a_crossover_of_a_single_unit_neither_moved_nor_did_not() -> None:
    one, other = ratios([-1], [-2], [-3]), ratios([1], [2], [3])
    assert compared(one, one).verdict == compared(one, other).verdict == "inconclusive"
