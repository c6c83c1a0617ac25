"""Histories of stored runs: reading folders, lines over commits, steps and the command history."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Annotation

from benchmarks.__main__ import main
from benchmarks.analysis.history.conclusions import BaselineLine, Difference, History, Step
from benchmarks.analysis.history.derived import log_crossings
from benchmarks.analysis.history.lines import timelines
from benchmarks.analysis.history.names import case_names
from benchmarks.analysis.history.picture import PANELS, history_picture
from benchmarks.analysis.history.storage import read_storage
from benchmarks.analysis.history.traced import Traced
from benchmarks.analysis.history.traces import MARGIN, trace
from benchmarks.analysis.history.writing import conclude
from benchmarks.analysis.plots.looks import look
from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.reading.setting import SETTING, Case, Setting
from tests.histories import EPOCH, KERNELS, MODES, OF_RUNS, SMALL, commit_id, slower, store
from tests.synthetic import SILENT, Law, Machine


def test_log_crossings_lie_at_the_change_of_sign_or_at_an_end_of_the_lengths() -> None:
    x = np.log([256.0, 512.0, 1024.0])
    rows = np.array([[1.0, 0.5, -0.5], [1, 1, 1], [-1, -1, -1], [1, -1, 1]])
    places, inside = log_crossings(x, rows)
    assert inside.tolist() == [True, False, False, False]
    assert math.exp(places[0]) == pytest.approx(512 * math.sqrt(2))
    assert (places[1], places[2]) == (x[2], x[0]) and math.isnan(places[3])


def test_the_name_of_a_case_in_a_history_is_its_key_and_knows_series_and_length(tmp_path: Path) -> None:
    for number in range(2):
        for subject in ("operator", "layer"):
            store(tmp_path / subject, number, KERNELS, **{**SMALL, "subject": subject})
    runs, _ = read_storage(tmp_path)
    keys = {key for run in runs for key, _, _ in run.cases}
    for line in (line for timeline in timelines(runs) for line in timeline.lines):
        name = line.name
        layer = name.startswith("layer/")
        assert name.head == ("layer, " if layer else "") + " against ".join(name.kernels)
        assert name.endswith(
            f"{'/'.join(name.kernels) if len(name.kernels) == 1 else name.kernels[1]}/{name.tail}"
        )
        if name.seq_len is None:
            assert line.quantity in ("exponent", "crossover")
        else:
            assert name in keys
            assert name == name.series.replace("-D64", f"-N{name.seq_len}-D64")


def test_a_case_with_a_foreign_key_keeps_that_key_as_its_name_in_a_history() -> None:
    setting = Setting.of({**dict.fromkeys(SETTING), "subject": "operator", "machine": ""})
    (name,) = case_names([("window/a key", "wall", "a CPU")], [Case("window-x", "window", setting, 512)])
    assert (name, name.series, name.seq_len, name.head) == ("window/a key", "window/a key", None, "window-x")


def holds(change: Difference, size: float) -> bool:
    """Whether the interval of a change holds a size."""
    assert change.low is not None and change.high is not None
    return change.low <= size <= change.high


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of 30 commits without 17 to 19: linear-chunked slows by 12 % at 20, its memory grows at 25."""
    folder = tmp_path_factory.mktemp("storage")
    for number in (*range(17), *range(20, 30)):
        laws = slower(1.12) if number >= 20 else KERNELS
        store(folder, number, laws, peaks={"linear-chunked": 1.5 if number >= 25 else 1}, **SMALL)
    return folder


Of = TypeVar("Of", Step, BaselineLine)


def history_of(folder: Path, baseline: str | None = None) -> History:
    runs, left_out = read_storage(folder)
    machines = timelines(runs)
    return conclude(machines, [trace(one) for one in machines], left_out, baseline, MARGIN)


def of(lines: Sequence[Of], quantity: str) -> list[Of]:
    return [one for one in lines if one.quantity == quantity]


def test_a_step_is_named_with_its_commits_size_and_consequences(storage: Path) -> None:
    steps = history_of(storage).steps
    times = of(steps, "time")
    assert {step.name.partition("/")[0] for step in times} == {"linear-chunked"} and len(times) == 6
    for step in times:
        assert step.change.verdict == "slower" and holds(step.change, 0.12)
        assert (step.after.commit, step.since.commit) == (commit_id(16), commit_id(20))
    crossovers = of(steps, "crossover")
    assert {crossover.change.verdict for crossover in crossovers} == {"later"} and len(crossovers) == 2
    assert all(holds(crossover.change, 0.12) for crossover in crossovers)
    assert not of(steps, "exponent") and not of(steps, "flops")
    memory = of(steps, "peak_bytes")
    assert {step.since.commit for step in memory} == {commit_id(25)}
    assert all(step.change.verdict == "larger" and step.change.size == pytest.approx(0.5) for step in memory)
    assert steps[: len(memory)] == memory, "newest first"


def test_the_baseline_of_a_history_is_chosen_or_the_level_before_the_last_step(storage: Path) -> None:
    def verdict(baseline: str | None) -> set[str]:
        lines = history_of(storage, baseline).baseline.lines
        return {one.change.verdict for one in of(lines, "time") if "linear" in one.name}

    assert verdict(None) == verdict(commit_id(3)) == {"slower"}
    assert verdict(commit_id(22)) == {"same"}
    with pytest.raises(InputError, match="no commit of the history does"):
        history_of(storage, "feed")
    with pytest.raises(InputError, match="27 of the history's commits do"):
        history_of(storage, "0")


def test_clocks_and_the_layer_have_lines_of_their_own_in_a_history(tmp_path: Path) -> None:
    for number in range(2):
        for clock in ("device", "wall"):
            gpu = Machine("cuda", "H200", clock=clock)
            store(tmp_path / clock, number, KERNELS, machine=gpu, **SMALL)
        store(tmp_path / "layer", number, KERNELS, subject="layer", **SMALL)
    lines = [line for timeline in timelines(read_storage(tmp_path)[0]) for line in timeline.lines]
    names = [(line.quantity, line.name) for line in lines]
    assert len(set(names)) == len(names)
    for quantity, kernel in (
        ("exponent", "standard-sdpa"),
        ("crossover", "linear-chunked against standard-sdpa"),
    ):
        ours = {name for kind, name in names if kind == quantity and f"{kernel}/causal" in name}
        assert sum(name.startswith(f"layer/{kernel}/causal/forward/cpu") for name in ours) == 1
        assert sum("(H200, wall clock)" in name for name in ours) == 1 and len(ours) == 3


def test_machines_have_histories_of_their_own_and_a_change_of_machine_is_no_step(tmp_path: Path) -> None:
    """A machine of half the speed from the ninth run on would be a step if histories were joined."""
    for number in range(16):
        other = number >= 8
        machine = {"cpu": {"brand_raw": "Other", "count": 64}} if other else {}
        store(tmp_path, number, slower(2) if other else KERNELS, machine_info=machine, **SMALL)
    history = history_of(tmp_path)
    assert [machine.runs for machine in history.machines] == [8, 8]
    assert history.steps == []


def test_a_case_that_fails_since_a_commit_is_lost_in_a_history(tmp_path: Path) -> None:
    for number in range(4):
        path = store(tmp_path, number, KERNELS, **SMALL)
        if number >= 2:
            content = json.loads(path.read_text())
            gone = [
                row["extra_info"] for row in content["benchmarks"] if row["extra_info"]["seq_len"] == 2048
            ]
            content["benchmarks"] = [row for row in content["benchmarks"] if row["extra_info"] not in gone]
            content["not_measured"] = [{**row, "outcome": "oom", "reason": "too much"} for row in gone]
            path.write_text(json.dumps(content))
    lost = history_of(tmp_path).lost
    assert {(one.outcome, one.since.commit) for one in lost} == {("oom", commit_id(2))}
    assert len(lost) == len(KERNELS)


def test_history_writes_its_files_and_exits_with_1_on_a_step(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "history"
    assert main(["history", str(storage), "-o", str(output)]) == 1
    text = capsys.readouterr().out
    since = f"{commit_id(16)[:7]} .. {commit_id(20)[:7]} (2025-01-21)"
    assert since in text and "slower: linear-chunked/causal" in text and "N = 512 to 2048" in text
    assert text.index(commit_id(25)[:7]) < text.index(since)
    assert {path.name for path in output.iterdir()} == {
        "report.html",
        "history.png",
        "history.csv",
        "history.json",
    }
    table = pd.read_csv(output / "history.csv")
    times = table[(table["quantity"] == "time") & table["name"].str.startswith("linear")]
    assert len(times) == 27 * 6 and (times["low"] < times["value"]).all() and set(times["segment"]) == {0, 1}
    assert json.loads((output / "history.json").read_text())["schema"] == 1


def test_history_without_a_step_exits_with_0_and_wrong_usage_of_history_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        store(tmp_path / "runs", number, KERNELS, **SMALL)
    output = ["-o", str(tmp_path / "out")]
    assert main(["history", str(tmp_path / "runs"), *output]) == 0
    (tmp_path / "empty").mkdir()
    for folder, reason in (("empty", "it is empty"), ("absent", "is no folder")):
        assert main(["history", str(tmp_path / folder), *output]) == 2
        error = capsys.readouterr().err
        assert reason in error and error.count("\n") == 1


def test_history_of_runs_without_a_measured_case_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        path = store(tmp_path / "runs", number, KERNELS, **SMALL)
        content = json.loads(path.read_text())
        rows = [row["extra_info"] for row in content["benchmarks"]]
        content["not_measured"] = [{**row, "outcome": "oom", "reason": "too much"} for row in rows]
        path.write_text(json.dumps({**content, "benchmarks": []}))
    assert main(["history", str(tmp_path / "runs"), "-o", str(tmp_path / "out")]) == 0
    assert "2 runs of 2 revisions" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "out" / "history.csv").empty
    store(tmp_path / "runs", 2, KERNELS, machine_info={"cpu": {"brand_raw": "Other"}}, **SMALL)
    assert main(["history", str(tmp_path / "runs"), "-o", str(tmp_path / "out")]) == 0
    assert not pd.read_csv(tmp_path / "out" / "history.csv").empty


def traced(folder: Path) -> list[Traced]:
    runs, _ = read_storage(folder)
    return trace(timelines(runs)[0])


def test_the_picture_of_a_history_shows_steps_first_and_names_them_where_there_is_room(storage: Path) -> None:
    lines = traced(storage)
    figure = history_picture(lines)
    figure.canvas.draw()
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert 4 <= len(panels) <= PANELS
    assert "peak memory: linear-chunked" in panels[0].get_title(loc="left")
    titles = " ".join(axes.get_title(loc="left") for axes in panels)
    assert "crossover" in titles and "exponent" in titles
    for axes in panels:
        labels = [text.get_window_extent() for text in axes.texts if isinstance(text, Annotation)]
        assert not any(one.overlaps(other) for one in labels for other in labels if one is not other)
    assert any("+50.0 %" in text.get_text() for text in panels[0].texts)


def test_every_panel_of_a_history_has_the_markers_of_the_kernels_in_its_title(storage: Path) -> None:
    for axes in history_picture(traced(storage)).axes:
        title = axes.get_title(loc="left").partition("\n")[0]
        drawn = {(line.get_marker(), line.get_color()) for line in axes.lines}
        for kernel in ("linear-chunked", "standard-sdpa"):
            assert ((look(kernel).marker, look(kernel).color) in drawn) == (kernel in title)


@pytest.mark.slow
def test_a_history_of_250_runs_of_100_cases_takes_at_most_fifteen_times_what_their_parser_takes(
    tmp_path: Path,
) -> None:
    """CPU time is counted beside that of the parser alone, because other processes may use the machine."""
    laws = {
        (kernel, mode): Law(1e-9, 2) if kernel.startswith("standard") else Law(1e-6, 1)
        for kernel in (*(f"standard-{n}" for n in range(5)), *(f"linear-{n}" for n in range(5)))
        for mode in ("bidirectional", "causal")
    }
    first = store(tmp_path / "first", 0, laws, rounds=50, noise=OF_RUNS).read_text()
    (tmp_path / "storage").mkdir()
    for number in range(250):
        day = f"{EPOCH.replace(year=2025 + number // 336, month=1 + number // 28 % 12, day=1 + number % 28)}"
        text = first.replace(commit_id(0), commit_id(number)).replace("2025-01-01T00", f"{day[:10]}T00")
        (tmp_path / "storage" / f"{number:04d}.json").write_text(text)
    before = os.times()
    for _ in range(20):
        json.loads(first)
    parsing = 12.5 * (os.times().user - before.user)
    before = os.times()
    assert main(["history", str(tmp_path / "storage"), "-o", str(tmp_path / "out")]) == 0
    after = os.times()
    own = after.user + after.system - before.user - before.system
    readers = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"\n{own:.0f} s in this process, {readers:.0f} s in those that read, {parsing:.0f} s of a parser")
    assert own + readers < 15 * parsing
    assert len(pd.read_csv(tmp_path / "out" / "history.csv")["commit"].unique()) == 250


def test_a_history_without_noise_shows_the_step_and_no_other(tmp_path: Path) -> None:
    for number in range(12):
        store(
            tmp_path, number, slower(1.1 if number >= 6 else 1 + 1e-4 * (number % 2)), noise=SILENT, **SMALL
        )
    times = of(history_of(tmp_path).steps, "time")
    assert len(times) == 6 and {step.since.commit for step in times} == {commit_id(6)}
    assert all(step.change.size == pytest.approx(0.1, abs=1e-3) for step in times)


def test_peak_memory_of_a_commit_in_a_history_is_the_least_of_its_runs(tmp_path: Path) -> None:
    for number, factor in enumerate((1.5, 1, 1.5)):
        store(tmp_path, number, KERNELS, commit=1, peaks={"linear-chunked": factor}, **SMALL)
    store(tmp_path, 3, KERNELS, commit=2, **SMALL)
    peaks = [one.line.values for one in traced(tmp_path) if one.line.quantity == "peak_bytes"]
    assert peaks and all(first == second for first, second in peaks)


def test_kernels_that_share_too_few_lengths_have_no_crossover_in_a_history(tmp_path: Path) -> None:
    """A kernel that shares a single length with the standard kernels has no crossover."""
    only = dict.fromkeys((256, 512), 0.001)
    laws: dict[tuple[str, str], Any] = {**KERNELS, ("linear-new", "causal"): only}
    for number in range(2):
        store(tmp_path, number, laws, **SMALL)
    names = {one.line.name for one in traced(tmp_path) if one.line.quantity == "crossover"}
    assert names and not any("linear-new" in name for name in names)


def test_peak_memory_within_a_block_of_the_cuda_allocator_is_no_step(tmp_path: Path) -> None:
    """Half a MB more or less is no step, five MB are a step."""
    gpu, short = Machine("cuda", "H200", batch=4), {**SMALL, "lengths": (2048,)}
    size = 4 * 4 * 8 * 2048 * 64
    for number in range(12):
        more = 500_000 * (number % 2) + (5_000_000 if number >= 7 else 0)
        store(tmp_path, number, KERNELS, machine=gpu, peaks={"linear-chunked": 1 + more / size}, **short)
    memory = of(history_of(tmp_path).steps, "peak_bytes")
    assert [step.since.commit for step in memory] == [commit_id(7)] * len(MODES)
    assert all(step.change.new - step.change.old == 5_000_000 for step in memory)
