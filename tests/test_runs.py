"""The command run: fresh processes, continued plans, and --until a crossover interval is narrow."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import runs
from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.report.conclusions import PairCrossover, Quantity
from benchmarks.analysis.scaling.crossover import Crossover
from benchmarks.runs import Plan, carry_out, widest_interval
from tests.concluded import SETTING

TINY = ("--device=cpu", "--kernel=*-explicit", "--mode=causal", "--seq-len=16,32,64", "--case-seconds=0.001")


class Processes:
    """A stand-in for the processes of a plan, which writes the file of each run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> None:
        self.measured: list[int] = []
        self.stop_after = stop_after
        monkeypatch.setattr(runs, "_measure", self)

    def __call__(self, plan: Plan, number: int) -> None:
        if self.stop_after is not None and len(self.measured) >= self.stop_after:
            raise KeyboardInterrupt
        self.measured.append(number)
        plan.file(number).write_text("{}")


@pytest.mark.slow
def test_run_starts_a_fresh_process_for_each_file(tmp_path: Path) -> None:
    lines: list[str] = []
    plan = Plan(tmp_path, 2, pytest_options=(*TINY, "-k", "test_attention", "--repetitions=1"))
    plan.file(1).write_text("{}")
    assert carry_out(plan, lines.append) == [plan.file(1), plan.file(2)]
    assert lines == ["run 2 of 2", "2 runs are complete."]
    document = json.loads(plan.file(2).read_text())
    assert {row["extra_info"]["seq_len"] for row in document["benchmarks"]} == {16, 32, 64}


def test_the_progress_of_run_estimates_the_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Processes(monkeypatch)
    clock = iter(range(0, 10_000, 60))
    monkeypatch.setattr("benchmarks.runs.time.monotonic", lambda: float(next(clock)))
    lines: list[str] = []
    carry_out(Plan(tmp_path, 3), lines.append)
    assert lines[0] == "run 1 of 3"
    assert "about" in lines[1] and lines[1].endswith("min left")


def test_run_continues_a_killed_plan_with_the_missing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(tmp_path, 5, pytest_options=TINY)
    first = Processes(monkeypatch, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        carry_out(plan)
    second = Processes(monkeypatch)
    assert len(carry_out(plan)) == 5
    assert (first.measured, second.measured) == ([1, 2], [3, 4, 5])
    third = Processes(monkeypatch)
    carry_out(plan)
    assert third.measured == []


def test_a_run_that_failed_leaves_no_finished_file(tmp_path: Path) -> None:
    refusal = r"run-001 ended with exit code 4 and no measurements; .*run-001\.log"
    with pytest.raises(InputError, match=refusal):
        carry_out(Plan(tmp_path, 1, pytest_options=("--kernel=softmax",)))
    assert Plan(tmp_path, 1).finished() == []


def test_run_refuses_a_folder_with_runs_of_other_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Processes(monkeypatch)
    carry_out(Plan(tmp_path, 1, pytest_options=("--mode=causal",)))
    with pytest.raises(InputError, match=r"holds runs measured with the options .*--mode=causal"):
        carry_out(Plan(tmp_path, 2, pytest_options=("--mode=bidirectional",)))


def test_run_until_goes_on_until_the_widest_crossover_interval_is_narrow_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = Processes(monkeypatch)
    lines: list[str] = []
    monkeypatch.setattr(runs, "widest_interval", lambda files: 0.1 / len(files))
    carry_out(Plan(tmp_path, 2, until=0.02), lines.append)
    assert processes.measured == [1, 2, 3, 4, 5]
    assert lines[-1] == "The widest crossover interval is ±2.0% after 5 runs, as asked for."


def test_run_until_ends_at_the_time_limit_and_names_the_interval_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = Processes(monkeypatch)
    lines: list[str] = []
    monkeypatch.setattr(runs, "widest_interval", lambda files: 0.1)
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr("benchmarks.runs.time.monotonic", lambda: float(next(clock)))
    carry_out(Plan(tmp_path, 2, until=0.02, time_limit_s=900.0), lines.append)
    assert 3 <= len(processes.measured) < 9
    assert "The time limit is reached" in lines[-1] and "not yet ±2.0%" in lines[-1]


def test_run_until_without_a_crossover_ends_after_the_planned_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = Processes(monkeypatch)
    lines: list[str] = []
    monkeypatch.setattr(runs, "widest_interval", lambda files: None)
    carry_out(Plan(tmp_path, 3, until=0.02), lines.append)
    assert len(processes.measured) == 3
    assert "nothing to narrow" in lines[-1]


def test_the_widest_crossover_interval_is_relative_to_its_crossover(monkeypatch: pytest.MonkeyPatch) -> None:
    def crossover(n: float, low: float, high: float, quantity: Quantity = "time") -> PairCrossover:
        found = Crossover("inside", n, low, high, "linear", (2, 4000))
        return PairCrossover("linear-a", "standard-b", SETTING, quantity, found, "firm")

    found = [crossover(100, 90, 130), crossover(1000, 990, 1010), crossover(10, 1, 100, "peak_bytes")]
    monkeypatch.setattr(runs, "load", lambda files: None)
    monkeypatch.setattr(runs, "summarise", lambda records: SimpleNamespace(crossovers=found))
    assert widest_interval([]) == pytest.approx(0.2)
    found.append(crossover(2100, 2000, 4000))
    assert widest_interval([]) == float("inf")
