"""A case that hangs, crashes or leaves costs that case: the run goes on, and its file says what happened."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.outcomes import outcome_of
from benchmarks.survival.children import how_ended
from benchmarks.survival.endings import Stop, TimedOut, time_limit
from tests.sessions import rows, run

OPTIONS = ("-p", "tests.misbehaving", "--device=cpu", "--mode=causal", "--case-seconds=0.001")


def measure(names: Sequence[str], out: Path, *options: str, exit_code: int) -> tuple[dict[str, Any], str]:
    """The document and the console of a run of these kernels, beside one that is sound."""
    kernels = [f"--kernel=linear-{name}" for name in (*names, "explicit")]
    more = ("--seq-len=32,64,128", "--repetitions=2", f"--benchmark-json={out}", *options)
    text = run(*OPTIONS, *kernels, *more, exit_code=exit_code)
    return json.loads(out.read_text()), text


def failures(document: dict[str, Any]) -> dict[tuple[str, int], tuple[str, str]]:
    left_out = document["not_measured"]
    return {(row["kernel"], row["seq_len"]): (row["outcome"], row["reason"]) for row in left_out}


@pytest.mark.slow
def test_whatever_a_kernel_raises_is_booked_as_what_it_is_and_the_run_goes_on(tmp_path: Path) -> None:
    names = ("leaves", "mute", "interrupts", "skips", "stops", "starves")
    document, _ = measure(names, tmp_path / "out.json", exit_code=1)
    assert failures(document) == {
        ("linear-leaves", 64): ("failed", "SystemExit: 3"),
        ("linear-mute", 64): ("failed", "MuteError: its text cannot be made (ValueError)"),
        ("linear-interrupts", 64): ("failed", "KeyboardInterrupt"),
        ("linear-skips", 64): ("failed", "Skipped: kernels skip nothing"),
        ("linear-stops", 64): ("failed", "Exit: kernels end nothing"),
        ("linear-starves", 64): ("oom", "MemoryError"),
    }
    # The two other lengths of each, and three of the sound one, in two repetitions.
    assert len(rows(document)) == 2 * (2 * len(names) + 3)


@pytest.mark.slow
def test_a_case_that_never_ends_is_stopped_and_the_run_goes_on(tmp_path: Path) -> None:
    document, text = measure(["sleeps"], tmp_path / "out.json", "--case-timeout=5", exit_code=1)
    found = failures(document)
    assert found["linear-sleeps", 64] == ("failed", "no end within 5 s, the limit of --case-timeout")
    assert len(found) == 1
    assert "no end within 5 s" in text


@pytest.mark.slow
def test_isolated_a_crash_costs_its_case_and_the_times_are_taken_as_ever(tmp_path: Path) -> None:
    names = ("segfaults", "vanishes", "hangs")
    document, text = measure(names, tmp_path / "out.json", "--isolate", "--case-timeout=5", exit_code=1)
    found = failures(document)
    assert {key: reason for key, (_, reason) in found.items()} == {
        ("linear-segfaults", 64): "the process that measured it ended with SIGSEGV",
        ("linear-vanishes", 64): "the process that measured it ended with exit code 0",
        ("linear-hangs", 64): "no end within 5 s, nor when asked to end",
        # What is longer would take longer still.
        ("linear-hangs", 128): "predicted to take 10.0 s a round, the limit is 2 s",
    }
    measured = rows(document)
    assert len(measured) == 2 * (2 * len(names) + 2)
    assert all(len(one["stats"]["data"]) == one["stats"]["rounds"] for one in document["benchmarks"])
    assert document["run"]["ended"] == "finished" and len(document["run"]["conditions"]) > 2
    assert "ended with SIGSEGV" in text


def test_a_time_limit_ends_a_call_and_leaves_no_timer() -> None:
    with pytest.raises(TimedOut), time_limit(0.05):
        while True:
            pass
    with time_limit(0.05):
        pass
    with time_limit(30):  # the timer of the first one would end this
        for _ in range(10**6):
            pass


def test_a_second_signal_disturbs_only_a_call_that_may_go_on() -> None:
    stop = Stop()
    with pytest.raises(KeyboardInterrupt):
        stop(signal.SIGINT, None)
    stop(signal.SIGINT, None)
    stop.insistent = True
    with pytest.raises(KeyboardInterrupt):
        stop(signal.SIGTERM, None)


@pytest.mark.parametrize(("code", "how"), [(4, "exit code 4"), (-9, "SIGKILL"), (-40, "signal 40")])
def test_the_end_of_a_process_is_told_by_its_signal_or_its_code(code: int, how: str) -> None:
    assert how_ended(code) == how


def test_a_call_that_goes_on_after_every_exception_ends_at_its_time_limit() -> None:
    def stubborn() -> None:
        while True:
            try:
                while True:
                    pass
            except Exception:
                continue

    with pytest.raises(TimedOut), time_limit(0.05):
        stubborn()


class MuteError(Exception):
    def __str__(self) -> str:
        raise ValueError("none")


def test_reasons_are_one_line_of_bounded_length() -> None:
    assert outcome_of(ValueError("first\nsecond"), 1) == ("failed", "ValueError: first")
    assert outcome_of(ValueError(), 1) == ("failed", "ValueError")
    assert outcome_of(MuteError(), 1)[1] == "MuteError: its text cannot be made (ValueError)"
    assert len(outcome_of(ValueError("x" * 10**6), 1)[1]) < 600
