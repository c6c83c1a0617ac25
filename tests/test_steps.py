"""Steps in lines over commits: error rates, quiet histories, stray runs and repeated commits.

`pytest tests/test_steps.py -m table -s` prints the rates in the README of the history.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.analysis.history.levels import Segment, change, segments, smallest_step, step_cost
from benchmarks.analysis.history.noises import Noise, estimate_noises
from benchmarks.analysis.history.traced import Traced
from benchmarks.analysis.history.traces import MARGIN, trace
from benchmarks.analysis.scaling.units import Floats
from tests.histories import DISQUIETS, STATES, Disquiet, State, timeline

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


def traced(logs: Floats, kernels: int = 10) -> list[Traced]:
    """The lines of a history of so many kernels, each with its segments, without the machine's own."""
    return trace(timeline(logs, kernels))[: len(logs)]


def rates(
    disquiet: Disquiet, states: Sequence[State] = (), *, families: int, lines: int = LINES, kernels: int = 10
) -> dict[str, float]:
    """False steps per 100 quiet histories; shares of steps found within one commit, of intervals that hold.

    A tenth of the lines have a step of 10 %, 10 commits or more from either end, where steps are sought. For
    "kernel" all lines of one kernel have it at the same commit.
    """
    random = np.random.default_rng(0)
    false = found = held = steps = kernel = 0

    def draw() -> Floats:
        return sum(
            (state.draw(random, lines, COMMITS) for state in states), disquiet.draw(random, lines, COMMITS)
        )

    def near(one: Traced, place: int) -> list[int]:
        return [index for index, start in enumerate(starts(one.segments)) if abs(start - place) <= 1]

    for _ in range(families):
        false += sum(len(one.segments) - 1 for one in traced(draw(), kernels))
        logs, stepped = draw(), random.permutation(lines)[: lines // 10]
        places = random.integers(10, COMMITS - 10, len(stepped))
        logs[stepped] += STEP * (np.arange(COMMITS) >= places[:, None])
        ours = traced(logs, kernels)
        for line, place in zip(stepped, places, strict=True):
            steps += 1
            indices = near(ours[line], place)
            found += bool(indices)
            if indices:
                old, new = ours[line].steps[indices[0]]
                _, low, high = change(old, new, ours[line].noise)
                held += low <= STEP <= high
        logs, count, place = draw(), lines // kernels, int(random.integers(10, COMMITS - 10))
        logs[:count, place:] += STEP
        kernel += sum(bool(near(one, place)) for one in traced(logs, kernels)[:count])
    return {
        "false": 100 * false / (families * lines),
        "found": found / steps,
        "held": held / max(1, found),
        "kernel": kernel / (families * (lines // kernels)),
    }


def alone(disquiet: Disquiet, families: int) -> dict[str, float]:
    """False steps and found steps, as in `rates`, of single lines without others beside them."""
    random = np.random.default_rng(0)
    false = found = 0
    stepped = LINES // 10
    for _ in range(families):
        false += sum(
            len(own) - 1 for own, _ in found_in(disquiet.draw(random, LINES, COMMITS), together=False)
        )
        logs = disquiet.draw(random, stepped, COMMITS)
        places = random.integers(10, COMMITS - 10, stepped)
        logs += STEP * (np.arange(COMMITS) >= places[:, None])
        for place, (own, _) in zip(places, found_in(logs, together=False), strict=True):
            found += any(abs(start - place) <= 1 for start in starts(own))
    return {"false": 100 * false / (families * LINES), "found": found / (families * stepped)}


@pytest.mark.parametrize("name", ["independent runs", "correlated, 0.3 between neighbours", "all of these"])
def test_steps_are_found_and_quiet_histories_have_none(name: str) -> None:
    """One false step in 100 quiet histories, give or take three standard errors."""
    together, single = rates(DISQUIETS[name], families=1), alone(DISQUIETS[name], families=1)
    for achieved in (together, single):
        assert achieved["false"] <= 4
        assert achieved["found"] >= 0.7


@pytest.mark.parametrize("name", STATES)
def test_states_of_the_machine_are_no_steps_of_lines_and_hide_none(name: str) -> None:
    achieved = rates(Disquiet(), STATES[name], families=1, lines=40, kernels=5)
    assert achieved["false"] <= 2.5, "one of 40 lines"
    assert achieved["found"] >= 0.75 and achieved["kernel"] >= 0.8


@pytest.mark.table
def test_error_rates_of_steps_under_every_disquiet() -> None:
    """Error rates for the tables of the README of history are printed."""
    print(
        "\n| noise of 1.5 %, 100 commits | false steps | found | intervals that hold | alone: false | found |"
    )
    print("|---|---|---|---|---|---|")
    misses = []
    for name, disquiet in DISQUIETS.items():
        family, single = rates(disquiet, families=20), alone(disquiet, families=20)
        print(
            f"| {name} | {family['false']:.2f} | {family['found']:.1%} | {family['held']:.1%} "
            f"| {single['false']:.2f} | {single['found']:.1%} |",
            flush=True,
        )
        # Drift next to a step counts as part of that step.
        least = 0.8 if disquiet.drift else 0.9
        misses += [name] if family["held"] < least else []
        misses += [name for one in (family, single) if one["false"] > 1 or one["found"] < 0.95]
    assert not misses


@pytest.mark.table
def test_error_rates_of_steps_under_the_states_of_a_machine() -> None:
    """Error rates for the second table of that README are printed."""
    print("\n| states of the machine | false steps | found | of a whole kernel | intervals that hold |")
    print("|---|---|---|---|---|")
    misses = []
    for name, states in STATES.items():
        family = rates(Disquiet(), states, families=20)
        print(
            f"| {name} | {family['false']:.2f} | {family['found']:.1%} | {family['kernel']:.1%} "
            f"| {family['held']:.1%} |",
            flush=True,
        )
        misses += [name] if family["false"] > 1 or family["found"] < 0.9 or family["kernel"] < 0.9 else []
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


@pytest.mark.parametrize(("values", "lines"), [(4, 30), (5, 30), (12, 1), (100, 100)])
def test_the_smallest_step_of_a_history_is_the_one_from_which_on_its_middle_shows(
    values: int, lines: int
) -> None:
    """Without noise in the values, a step shows 5 % above it and does not 5 % below it."""
    noise, weights = Noise(0.01, 0.01, 10.0), np.ones(values)
    least = smallest_step(noise, values, lines)
    middle = (np.arange(values) >= values // 2).astype(float)
    assert starts(segments(1.05 * least * middle, weights, noise, lines=lines)) == [values // 2]
    assert starts(segments(0.95 * least * middle, weights, noise, lines=lines)) == []


@pytest.mark.parametrize("values", [1, 2, 3])
def test_three_values_show_no_step_however_large(values: int) -> None:
    noise = Noise(0.01, 0.01, 10.0)
    assert smallest_step(noise, values, 10) == math.inf
    steep = 100.0 * np.arange(values)
    assert starts(segments(np.minimum(steep, 100), np.ones(values), noise, lines=10)) == []
