"""The command run: fresh processes, continued plans, and --until a crossover interval is narrow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import runs
from benchmarks.__main__ import main
from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.report.conclusions import PairCrossover, Quantity
from benchmarks.analysis.scaling.crossover import Crossover
from benchmarks.commands import SHORT_RUN
from benchmarks.runs import Plan, carry_out, widest_interval
from tests.concluded import NOISE, SETTING
from tests.synthetic import WHOLE, Law, Run

TINY = (
    "--device=cpu",
    "--kernel=standard-explicit",
    "--kernel=linear-explicit",
    "--mode=causal",
    "--seq-len=16,32,64",
    "--case-seconds=0.001",
)


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
        WHOLE.write(plan.file(number))


@pytest.mark.slow
def test_run_starts_a_fresh_process_for_each_file(tmp_path: Path) -> None:
    lines: list[str] = []
    plan = Plan(tmp_path, 2, pytest_options=(*TINY, "-k", "test_attention", "--repetitions=1"))
    assert carry_out(plan, lines.append) == [plan.file(1), plan.file(2)]
    assert lines[0] == "run 1 of 2" and lines[-1] == "2 runs are complete."
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


@pytest.mark.parametrize(
    ("options", "count", "first"),
    [((), 6, SHORT_RUN), (("--runs", "3"), 3, ()), (("--mode=causal",), 6, (*SHORT_RUN, "--mode=causal"))],
)
def test_run_measures_six_short_processes_unless_their_number_is_given(
    options: Sequence[str], count: int, first: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Plan] = []

    def refuse(plan: Plan, say: object) -> list[Path]:
        plans.append(plan)
        return []

    monkeypatch.setattr("benchmarks.commands.carry_out", refuse)
    assert main(["run", "-o", str(tmp_path), *options]) == 2
    assert plans[0].runs == count and tuple(plans[0].pytest_options) == tuple(first)


def test_later_runs_know_the_times_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Sequence[str]] = []

    def stand_in(file: Path, options: Sequence[str]) -> None:
        given.append(options)
        WHOLE.write(file)

    monkeypatch.setattr(runs, "measure", stand_in)
    plan = Plan(tmp_path, 3, pytest_options=TINY)
    carry_out(plan)
    known = f"--times-from={plan.file(1).resolve()}"
    assert given == [[*TINY], [*TINY, known], [*TINY, known]]


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
    refusal = r"run-001 ended with exit code 4 and was not measured to its end; .*run-001\.log"
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
    monkeypatch.setattr(runs, "resolution", lambda files: 0.01)
    carry_out(Plan(tmp_path, 2, until=0.02), lines.append)
    assert processes.measured == [1, 2, 3, 4, 5]
    assert lines[-1] == "The widest crossover interval is ±2.0% after 5 runs, as asked for."


def test_run_until_ends_at_the_time_limit_and_names_the_interval_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = Processes(monkeypatch)
    lines: list[str] = []
    monkeypatch.setattr(runs, "widest_interval", lambda files: 0.1)
    monkeypatch.setattr(runs, "resolution", lambda files: 0.01)
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr("benchmarks.runs.time.monotonic", lambda: float(next(clock)))
    carry_out(Plan(tmp_path, 2, until=0.02, time_limit_s=900.0), lines.append)
    assert 3 <= len(processes.measured) < 9
    assert "The time limit is reached" in lines[-1] and "not yet ±2.0%" in lines[-1]


def test_run_until_ends_where_no_number_of_runs_can_narrow_the_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lengths that double resolve a crossover to 5 %, and a goal of 2 % would never end."""
    laws = {("standard-sdpa", "causal"): Law(1e-9, 2), ("linear-chunked", "causal"): Law(1e-6, 1)}
    monkeypatch.setattr(
        runs, "_measure", lambda plan, number: Run(laws, noise=NOISE, seed=number).write(plan.file(number))
    )
    lines: list[str] = []
    carry_out(Plan(tmp_path, 3, until=0.02), lines.append)
    assert "no number of runs narrows it below ±4.9%" in lines[-1] and "--seq-len" in lines[-1]
    assert len(Plan(tmp_path, 3).finished()) == 3


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
        found = Crossover("inside", n, low, high, "contender", (2, 4000), within_noise=[4000])
        return PairCrossover("linear-a", "standard-b", SETTING, quantity, found, "firm")

    found = [crossover(100, 90, 130), crossover(1000, 990, 1010), crossover(10, 1, 100, "peak_bytes")]
    monkeypatch.setattr(runs, "load", lambda files: None)
    monkeypatch.setattr(runs, "summarise", lambda records: SimpleNamespace(crossovers=found))
    assert widest_interval([]) == pytest.approx(0.2)
    found.append(crossover(2100, 2000, 4000))
    assert widest_interval([]) == float("inf")
