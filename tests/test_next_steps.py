"""The commands by which a report says how it would become surer."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.analysis.comparison.noise_floor import NoiseFloor
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.report.next_steps import USUAL, next_steps
from benchmarks.analysis.report.summary import summarise
from benchmarks.analysis.scaling.run_effect import RUN_EFFECT
from benchmarks.noise_store import known_run_effect, store_floor
from benchmarks.selection import DEFAULT_BATCH, DEFAULT_DTYPE, HEAD_DIM, HEADS
from tests.concluded import FULL, MODES, NOISE, console
from tests.synthetic import Law, Machine, Run

CROSSING = {("standard-sdpa", "causal"): Law(1e-9, 2), ("linear-chunked", "causal"): Law(1e-6, 1)}
RUN_SHORT_RUNS = "python -m benchmarks run -o runs/"


def commands(*paths: Path) -> list[str]:
    return [str(command) for section in next_steps(summarise(load(paths))) for command in section.commands]


def unfolded(text: str) -> str:
    """A text with the lines of its commands together."""
    return " ".join(text.replace("\\\n", " ").split())


def test_a_single_file_names_the_short_runs_that_would_make_it_firm(tmp_path: Path) -> None:
    paths = [Run(CROSSING, noise=NOISE, seed=seed).write(tmp_path / f"{seed}.json") for seed in range(3)]
    assert RUN_SHORT_RUNS in commands(paths[0]) and RUN_SHORT_RUNS in console(paths[0])
    assert RUN_SHORT_RUNS not in commands(*paths)


def test_a_crossover_between_lengths_that_double_has_the_command_of_those_between(tmp_path: Path) -> None:
    machine = Machine(device="cuda", dtype="float16", clock="wall", batch=2)
    path = Run(CROSSING, noise=NOISE, machine=machine, phase="forward_backward").write(tmp_path / "a.json")
    (command,) = [one for one in commands(path) if one != RUN_SHORT_RUNS]
    for words in (
        "-k test_attention", "--device cuda", "--dtype float16", "--shape 2x8x64", "--mode causal",
        "--phase forward_backward", "--clock wall", "--kernel linear-chunked", "--kernel standard-sdpa",
        "--seq-len 512,640,768,896,1024,1280,1536,1792,2048",
    ):  # fmt: skip
        assert words in command
    assert all(len(line) < 110 for line in command.splitlines())
    assert unfolded(command) in unfolded(console(path))


def test_lengths_that_lie_close_have_no_lengths_between_them_to_measure(tmp_path: Path) -> None:
    path = Run(CROSSING, lengths=(512, 640, 800, 1000, 1250), noise=NOISE).write(tmp_path / "a.json")
    assert commands(path) == [RUN_SHORT_RUNS]


def test_the_command_of_the_lengths_between_is_one_of_this_suite(tmp_path: Path) -> None:
    """Every option it names is known to the suite, and chooses a case."""
    path = Run(CROSSING, noise=NOISE).write(tmp_path / "a.json")
    (command,) = [one for one in commands(path) if one != RUN_SHORT_RUNS]
    assert set(re.findall(r"(?<= )--?[a-z-]+", command)) == {
        "-m", "-k", "-o", "--device", "--mode", "--kernel", "--seq-len",
    }  # fmt: skip


def test_a_command_leaves_out_what_a_session_takes_anyway() -> None:
    for device, (dtype, shape) in USUAL.items():
        batch, heads, head_dim = shape.split("x")
        assert dtype == DEFAULT_DTYPE[device] and int(batch) == DEFAULT_BATCH[device]
        assert (int(heads), int(head_dim)) == (HEADS, HEAD_DIM)


@pytest.mark.usefixtures("without_pictures")
def test_the_known_noise_of_a_machine_takes_the_place_of_the_assumed_effect_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = Run(CROSSING, noise=NOISE).write(tmp_path / "a.json")
    records = load([path])

    def width() -> float:
        (pair,) = [
            pair for pair in summarise(records, known_run_effect).crossovers if pair.quantity == "time"
        ]
        assert pair.found.low and pair.found.high
        return math.log(pair.found.high / pair.found.low)

    assert summarise(records, known_run_effect).runs.run_effect == RUN_EFFECT
    assumed = width()
    # 19 of 20 cases within 30 %, by two pairs: the mean of two differences varies as one run does.
    store_floor(records.runs[0].machine, NoiseFloor(0.3, 60, 2, "2026-01-31"))
    effect = math.log(1.3) / 1.96
    assert summarise(records, known_run_effect).runs.run_effect == pytest.approx(effect)
    assert width() > 2 * assumed
    assert main(["report", str(path), "-o", str(tmp_path / "report")]) == 0
    assert "a standard deviation of 13 % of each time is taken" in " ".join(capsys.readouterr().out.split())
    store_floor(records.runs[0].machine, NoiseFloor(0.01, 60, 6, "2026-01-31"))
    assert width() == assumed


def test_several_runs_assume_no_effect_of_a_run(tmp_path: Path) -> None:
    paths = [Run(CROSSING, noise=NOISE, seed=seed).write(tmp_path / f"{seed}.json") for seed in range(3)]
    assert summarise(load(paths)).runs.run_effect is None
    assert "is taken for it" not in console(*paths)


def test_growth_by_exclusion_is_said_in_the_headline_and_in_the_table(tmp_path: Path) -> None:
    noisy = Run({(kernel, mode): law for (kernel, _), law in CROSSING.items() for mode in MODES})
    noise = NOISE.__class__(0.0, 0.15, 0.02)
    text = " ".join(console(Run(noisy.laws, repetitions=6, noise=noise).write(tmp_path / "a.json")).split())
    assert "standard-sdpa grows like N² (N is ruled out), p = " in text
    assert "like quadratic (tentative)" in text and "linear-chunked grows like N (N² is ruled out)" in text
    assert "quadratic, p = " in " ".join(console(FULL.write(tmp_path / "full.json")).split())
