"""Histories of a machine that changes: its own steps, those of kernels beside, and too few revisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.analysis.document import as_text
from benchmarks.analysis.history.lines import timelines
from benchmarks.analysis.history.storage import read_storage
from benchmarks.analysis.history.text import sections
from benchmarks.analysis.history.traces import MARGIN, trace
from benchmarks.analysis.history.writing import conclude, worse, write_history
from benchmarks.analysis.serialization import json_text
from tests.histories import FIVE, commit_id, store_states
from tests.hostile import undrawn


def told(folder: Path) -> tuple[bool, str, dict[str, Any]]:
    """Whether code is worse, the text in one line, and history.json."""
    runs, left_out = read_storage(folder)
    machines = timelines(runs)
    history = conclude(machines, [trace(one) for one in machines], left_out, None, MARGIN)
    return worse(history), " ".join(as_text(sections(history)).split()), json.loads(json_text(history))


def late(number: int) -> float:
    """20 % more from the twelfth commit on."""
    return 1.2 if number >= 12 else 1.0


@pytest.mark.parametrize(("kernels", "times"), [(FIVE, 30), (FIVE[:1], 6), (FIVE[1:3], 12)])
def test_what_moves_the_ceilings_too_is_a_step_of_the_machine_and_of_no_kernel(
    kernels: tuple[str, ...], times: int, tmp_path: Path
) -> None:
    slower, text, history = told(store_states(tmp_path, 24, state=late, kernels=kernels))
    assert not slower and history["steps"] == []
    (step,) = history["common_steps"]
    assert (step["since"]["commit"], step["verdict"]) == (commit_id(12), "slower")
    assert step["low"] < 0.2 < step["high"]
    assert [step[name] for name in ("count", "of", "ceilings", "of_ceilings")] == [times, times, 2, 2]
    assert "The machine became slower" in text and f"{times} of {times} times and 2 of 2 ceilings" in text
    assert {one["verdict"] for one in history["baseline"]["lines"]} == {"same"}


def test_what_moves_many_kernels_without_ceilings_to_tell_is_the_machine_s(tmp_path: Path) -> None:
    slower, text, history = told(store_states(tmp_path, 24, state=late, with_ceilings=False))
    assert not slower and history["steps"] == [] and len(history["common_steps"]) == 1
    assert "(30 of 30 times)" in text


@pytest.mark.parametrize(
    ("kernels", "with_ceilings", "reason"),
    [
        (FIVE, True, "no ceiling did, so rather a library or shared code than the machine"),
        (FIVE[1:3], True, "no ceiling did, so rather a library or shared code than the machine"),
        (FIVE[1:3], False, "without ceilings, one or two kernels cannot tell a commit from the machine"),
        (FIVE[:1], False, "without ceilings, one or two kernels cannot tell a commit from the machine"),
    ],
)
def test_what_moves_all_kernels_but_perhaps_not_the_machine_counts_as_slower(
    kernels: tuple[str, ...], with_ceilings: bool, reason: str, tmp_path: Path
) -> None:
    store_states(
        tmp_path,
        24,
        own=lambda number, _: late(number),
        kernels=kernels,
        with_ceilings=with_ceilings,
    )
    slower, text, history = told(tmp_path)
    assert slower and reason in text
    assert history["common_steps"] == []
    (moved,) = history["moved_together"]
    assert (moved["since"], moved["verdict"], moved["of"]) == (commit_id(12)[:7], "slower", 6 * len(kernels))
    assert moved["count"] >= (0.9 if len(kernels) > 1 else 0.6) * moved["of"], "a few lines see less"


def test_what_comes_and_goes_in_two_kernels_is_the_machine_s_without_ceilings(tmp_path: Path) -> None:
    store_states(
        tmp_path,
        40,
        state=lambda number: 1.15 if number // 10 % 2 else 1.0,
        kernels=FIVE[1:3],
        with_ceilings=False,
    )
    slower, _, history = told(tmp_path)
    assert not slower and history["steps"] == []
    assert [step["since"]["commit"] for step in history["common_steps"]] == [
        commit_id(n) for n in (30, 20, 10)
    ]


@pytest.mark.parametrize("slowed", [FIVE[:1], FIVE[:2]])
def test_kernels_that_slow_down_between_states_of_the_machine_are_found_alone(
    slowed: tuple[str, ...], tmp_path: Path
) -> None:
    store_states(
        tmp_path,
        40,
        state=lambda number: 1.15 if number // 10 % 2 else 1.0,
        own=lambda number, kernel: late(number - 13) ** 0.6 if kernel in slowed else 1.0,
    )
    slower, _, history = told(tmp_path)
    assert slower
    times = [step for step in history["steps"] if step["quantity"] == "time"]
    assert len(times) == 6 * len(slowed) and {step["since"]["commit"] for step in times} == {commit_id(25)}
    assert {step["name"].partition("/")[0] for step in times} == set(slowed)
    assert {step["quantity"] for step in history["steps"]} <= {"time", "crossover"}
    assert [step["since"]["commit"] for step in history["common_steps"]] == [
        commit_id(n) for n in (30, 20, 10)
    ]
    with undrawn():
        write_history(tmp_path, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "history.csv")
    calm = table[(table["quantity"] == "time") & table["name"].str.startswith("standard-c")]
    scatter = calm.groupby("name")[["value", "own"]].std()
    assert (scatter["own"] < scatter["value"] / 2).all()


@pytest.mark.parametrize("commits", [2, 3])
def test_of_too_few_revisions_a_history_says_that_nothing_can_be_told(commits: int, tmp_path: Path) -> None:
    """A kernel 76 % slower is neither slower, which nobody knows, nor unchanged."""
    store_states(tmp_path, commits, own=lambda number, _: 1.76 if number else 1.0, kernels=FIVE[1:3])
    slower, text, history = told(tmp_path)
    assert not slower
    assert f"Nothing can be told of times from {commits} revisions: even a doubling shows from 4 on" in text
    assert "`python -m benchmarks compare" in text
    verdicts = {(one["quantity"], one["verdict"]) for one in history["baseline"]["lines"]}
    assert {verdict for quantity, verdict in verdicts if quantity == "time"} == {"too few"}
    assert {verdict for quantity, verdict in verdicts if quantity == "flops"} == {"same"}
    (machine,) = history["machines"]
    assert (machine["smallest_step"], machine["enough"]) == (None, 4)


def test_a_history_names_the_smallest_step_that_it_could_have_shown(tmp_path: Path) -> None:
    """More revisions show smaller steps."""
    smallest = []
    for commits in (8, 30):
        _, text, history = told(store_states(tmp_path / str(commits), commits))
        smallest.append(history["machines"][0]["smallest_step"])
        assert "A typical time could have shown a step of" in text
    assert MARGIN <= smallest[1] < smallest[0] < 1
