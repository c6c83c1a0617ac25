"""Steps in lines over commits: error rates, quiet histories, stray runs and repeated commits.

`pytest tests/test_steps.py -m slow -s` prints the rates in the README of the history.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.analysis.history.levels import Segment, around, change, segments, step_cost
from benchmarks.analysis.history.noises import Noise, estimate_noises
from benchmarks.analysis.history.traces import MARGIN
from benchmarks.analysis.scaling.units import Floats
from tests.histories import DISQUIETS, Disquiet

COMMITS, LINES = 100, 100
STEP = math.log(1.1)
LOG_MARGIN = math.log1p(MARGIN)


def found_in(logs: Floats, *, together: bool = True) -> list[tuple[list[Segment], Noise]]:
    """Segments and noise of each row, the noise estimated from all rows together or from each alone."""
    weights = np.ones(logs.shape[1])
    lines = [(row, weights) for row in logs]
    noises = estimate_noises(lines) if together else [estimate_noises([line])[0] for line in lines]
    count = len(lines) if together else 1
    return [
        (segments(row, weights, noise, lines=count, margin=LOG_MARGIN), noise)
        for row, noise in zip(logs, noises, strict=True)
    ]


def starts(found: Sequence[Segment]) -> list[int]:
    """Indices of the commits at which the level changes."""
    return [segment.start for segment in found[1:]]


def rates(disquiet: Disquiet, *, together: bool, families: int, seed: int = 0) -> dict[str, float]:
    """False steps per 100 quiet histories; shares of steps found within one commit, of intervals that hold.

    A tenth of the lines have a step of 10 %, 10 commits or more from either end, where steps are sought.
    """
    random = np.random.default_rng(seed)
    false = found = held = steps = 0
    for _ in range(families):
        quiet = disquiet.draw(random, LINES, COMMITS)
        false += sum(len(segments) - 1 for segments, _ in found_in(quiet, together=together))
        logs, stepped = disquiet.draw(random, LINES, COMMITS), LINES // 10
        places = random.integers(10, COMMITS - 10, stepped)
        logs[:stepped] += STEP * (np.arange(COMMITS) >= places[:, None])
        ours = found_in(logs, together=together)[:stepped]
        for line, (place, (own, noise)) in enumerate(zip(places, ours, strict=True)):
            steps += 1
            near = [index for index, start in enumerate(starts(own)) if abs(start - place) <= 1]
            found += bool(near)
            if near:
                index = near[0]
                sides = around(logs[line], np.ones(COMMITS), noise, LINES, own[index], own[index + 1])
                _, low, high = change(*sides, noise)
                held += low <= STEP <= high
    return {"false": 100 * false / (families * LINES), "found": found / steps, "held": held / max(1, found)}


@pytest.mark.parametrize("together", [True, False], ids=["a family of lines", "lines alone"])
@pytest.mark.parametrize("name", ["independent runs", "correlated, 0.3 between neighbours", "all of these"])
def test_steps_are_found_and_quiet_histories_have_none(name: str, together: bool) -> None:
    """One false step in 100 quiet histories and 95 % coverage, give or take three standard errors."""
    achieved = rates(DISQUIETS[name], together=together, families=1)
    assert achieved["false"] <= 4
    assert achieved["found"] >= 0.7


@pytest.mark.slow
def test_error_rates_of_steps_under_every_disquiet() -> None:
    """Error rates for the table of the README of history are printed."""
    print(
        "\n| noise of 1.5 %, 100 commits | false steps | found | intervals that hold | alone: false | found |"
    )
    print("|---|---|---|---|---|---|")
    misses = []
    for name, disquiet in DISQUIETS.items():
        family = rates(disquiet, together=True, families=20)
        alone = rates(disquiet, together=False, families=20)
        print(
            f"| {name} | {family['false']:.2f} | {family['found']:.1%} | {family['held']:.1%} "
            f"| {alone['false']:.2f} | {alone['found']:.1%} |",
            flush=True,
        )
        # Drift next to a step counts as part of that step.
        least = 0.8 if disquiet.drift else 0.9
        for one in (family, alone):
            misses += [name] if one["false"] > 1 or one["found"] < 0.95 or one["held"] < least else []
    assert not misses


def test_every_step_of_a_line_with_many_steps_is_found() -> None:
    logs = Disquiet().draw(np.random.default_rng(1), 1, COMMITS)
    places = [15, 30, 50, 65, 85]
    for place in places:
        logs[:, place:] += STEP if place != 50 else -2 * STEP
    ((found, _),) = found_in(logs)
    assert len(found) == len(places) + 1
    assert all(abs(start - place) <= 1 for start, place in zip(starts(found), places, strict=True))


@pytest.mark.parametrize(
    ("strays", "steps"),
    [
        ([40], []),
        ([40, 41], []),
        ([99], []),
        ([98, 99], [98]),
        ([40, 41, 42], [40, 43]),
        ([10, 30, 50, 70], []),
    ],
)
def test_single_stray_runs_are_no_steps_and_lasting_changes_are_steps(
    strays: list[int], steps: list[int]
) -> None:
    logs = Disquiet().draw(np.random.default_rng(2), 20, COMMITS)
    logs[0, strays] += 0.3
    assert starts(found_in(logs)[0][0]) == steps


def test_a_step_of_few_commits_is_found_where_each_has_several_runs() -> None:
    """Two commits off by 3.5 standard deviations are no step with one run each, and one with four."""
    noise = Noise(0.01, 0.01, 50.0)
    values = np.array([0.0] * 10 + [0.035] * 2)
    few, many = np.ones(12), np.full(12, 4.0)
    assert 2 * 3.5**2 * 10 / 12 < step_cost(noise, 12, 100) < 4 * 2 * 3.5**2 * 10 / 12
    assert starts(segments(values, few, noise, lines=100)) == []
    assert starts(segments(values, many, noise, lines=100)) == [10]
