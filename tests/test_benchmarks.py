"""The suite as its user runs it: a pytest in a process of its own, and the JSON it writes."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from attention import Case
from benchmarks.grid import PRESETS, Selection, build_cases, schedule, series_of
from benchmarks.ledger import Ledger

ROOT = Path(__file__).parent.parent
TINY = (
    "--device=cpu",
    "--kernel=*-explicit",
    "--mode=causal",
    "--seq-len=16,32",
    "--case-seconds=0.001",
    "--repetitions=2",
)


OPERATOR = ("benchmarks/test_attention.py",)


def command(*options: str, files: Sequence[str] = OPERATOR) -> list[str]:
    return [sys.executable, "-m", "pytest", *files, "-p", "no:cacheprovider", *options]


def run(*options: str, files: Sequence[str] = OPERATOR, exit_code: int = 0) -> str:
    done = subprocess.run(
        command(*options, files=files), cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    text = done.stdout + done.stderr
    assert done.returncode == exit_code, text
    return text


def rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [benchmark["extra_info"] for benchmark in document["benchmarks"]]


def assert_conditions(document: dict[str, Any]) -> None:
    """What was sensed around two repetitions."""
    run = document["run"]
    readings = run["conditions"]
    assert list(dict.fromkeys(reading["repetition"] for reading in readings)) == [0, 1, 2]
    assert readings[0]["others_cores"] is None
    for reading in readings[1:]:
        assert 0 < reading["interval_s"] < run["wall_seconds"]
        assert 0 <= reading["others_cores"] <= 2 * run["usable_cores"]
    everything = [run[name] for name in run if name != "conditions"]
    everything += [value for reading in readings for value in reading.values()]
    assert all(value is None or isinstance(value, str | int | float) for value in everything)
    assert run["threads"] >= 1 and run["usable_cores"] >= 1 and run["node"] == platform.node()


def test_a_run_writes_every_case_of_every_repetition_with_the_whole_record(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    text = run(*TINY, f"--benchmark-json={out}", "--shuffle-seed=7")
    document = json.loads(out.read_text())
    records = rows(document)
    assert Counter(record["repetition"] for record in records) == {1: 4, 2: 4}
    assert document["not_measured"] == []
    assert document["run"]["seed"] == 7 and 0 < document["run"]["timed_share"] < 1
    assert_conditions(document)
    names = (
        "schema key kernel family mode phase device device_name dtype batch heads seq_len head_dim "
        "repetition clock flops macs min_bytes peak_bytes peak_rss_bytes"
    )
    for record in records:
        assert set(names.split()) <= record.keys()
        assert all(value is None or isinstance(value, str | int) for value in record.values()), record
        assert record["flops"] == 2 * record["macs"] > 0
        assert record["peak_bytes"] > 0 and record["clock"] == "wall"
    assert "UNSERIALIZABLE" not in out.read_text()
    for benchmark in document["benchmarks"]:
        assert len(benchmark["stats"]["data"]) >= 3 and min(benchmark["stats"]["data"]) > 0
    assert "of it inside timed rounds; --shuffle-seed 7 repeats the order" in text
    # One table for each mode, phase and length: its kernels side by side.
    assert text.count("benchmark 'causal-forward-N16-B1-H8-D64-float32-cpu': 4 tests") == 1


@pytest.mark.slow
def test_the_layer_and_the_ceilings_are_ordinary_cases_of_the_same_file(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ("--device=cpu", "--seq-len=10", "--repetitions=1", "--case-seconds=0.01")
    files = ("benchmarks/test_self_attention.py", "benchmarks/test_ceilings.py")
    run(*options, f"--benchmark-json={out}", files=files)
    document = json.loads(out.read_text())
    records = rows(document)
    assert Counter((record["subject"], record["kernel"]) for record in records) == {
        ("layer", "standard-sdpa"): 1,
        ("layer", "linear-native"): 1,
        ("ceiling", "ceiling-copy"): 1,
        ("ceiling", "ceiling-matmul"): 1,
    }
    for benchmark, record in zip(document["benchmarks"], records, strict=True):
        if record["subject"] == "layer":
            assert record["key"].startswith("layer/") and record["embed_dim"] == 512
            assert record["flops"] == record["counted_flops"]
            assert benchmark["stats"]["rounds"] == 20


@pytest.mark.slow
def test_collect_only_and_k_choose_by_readable_ids_and_the_whole_grid_comes_before_its_repetition() -> None:
    text = run("--device=cpu", "--collect-only", "-q", "-k", "linear-native", files=("benchmarks",))
    ids = [line for line in text.splitlines() if "::" in line]
    chosen = [line for line in ids if "linear-native-causal" in line and "N4096" in line]
    assert chosen == [
        f"benchmarks/test_attention.py::test_attention[linear-native-causal-forward-N4096-B1-H8-D64-float32-cpu-r{r}]"
        for r in (1, 2, 3)
    ]
    assert any("test_self_attention[layer-linear-native-" in line for line in ids)
    repetitions = [line[-2] for line in ids]
    assert repetitions == sorted(repetitions)
    assert "not measured" not in text


def test_what_cannot_be_measured_is_in_the_file_with_its_reason_and_the_run_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = (
        "--device=cpu",
        "--mode=causal",
        "--case-seconds=0.001",
        "--repetitions=2",
        "--round-seconds=0.02",
    )
    text = run(
        *options,
        "--seq-len=64,2048,10000000",
        "--kernel=linear-explicit",
        "--kernel=standard-sdpa-cudnn",
        f"--benchmark-json={out}",
    )
    document = json.loads(out.read_text())
    left_out = {(row["kernel"], row["seq_len"]): row for row in document["not_measured"]}
    outcomes = {point: row["outcome"] for point, row in left_out.items()}
    assert outcomes == {
        ("linear-explicit", 2048): "over_time",
        ("linear-explicit", 10000000): "over_memory",
        ("standard-sdpa-cudnn", 64): "unsupported",
        ("standard-sdpa-cudnn", 2048): "unsupported",
        ("standard-sdpa-cudnn", 10000000): "unsupported",
    }
    assert "the limit is 0.02 s" in left_out["linear-explicit", 2048]["reason"]
    assert "GB are free" in left_out["linear-explicit", 10000000]["reason"]
    assert {record["seq_len"] for record in rows(document)} == {64}
    for row in left_out.values():
        assert row["reason"] in text


PLUGIN = """
import warnings

import torch
from attention import get_kernel, register_kernel

linear = get_kernel("linear-explicit")

def amnesic(q, k, v, *, causal=False, **options):
    'Forgets what came before, every 64 tokens.'
    parts = zip(*(x.split(64, dim=2) for x in (q, k, v)))
    return torch.cat([linear.function(*part, causal=causal) for part in parts], dim=2)

def broken(q, k, v, **options):
    raise RuntimeError("this kernel always fails")

def hungry(q, k, v, *, causal=False, **options):
    if q.shape[2] > 600:
        raise torch.OutOfMemoryError("tried to allocate too much. More words.")
    return linear.function(q, k, v, causal=causal, **options)

def outdated(q, k, v, *, causal=False, **options):
    warnings.warn("what this kernel calls is deprecated", DeprecationWarning)
    return linear.function(q, k, v, causal=causal, **options)

for function in (amnesic, broken, hungry, outdated):
    register_kernel(f"linear-{function.__name__}", function, costs=linear.costs)
"""


@pytest.mark.slow
def test_wrong_failing_and_hungry_kernels_are_outcomes_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    out = tmp_path / "out.json"
    options = ("-p", "plugin", "--device=cpu", "--mode=causal", "--seq-len=16,700", "--case-seconds=0.01")
    kernels = [f"--kernel=linear-{name}" for name in ("amnesic", "broken", "hungry", "outdated", "chunked")]
    text = run(*options, *kernels, "--repetitions=1", f"--benchmark-json={out}", exit_code=1)
    document = json.loads(out.read_text())
    found = {
        (row["kernel"], row["seq_len"]): (row["outcome"], row["reason"]) for row in document["not_measured"]
    }
    # Wrong from its 65th token on, and found out before its 16 tokens are timed.
    for length in (16, 700):
        outcome, reason = found["linear-amnesic", length]
        assert outcome == "failed" and "wrong result at N = 600: relative error" in reason
        assert found["linear-broken", length] == ("failed", "RuntimeError: this kernel always fails")
    assert found["linear-hungry", 700] == ("oom", "tried to allocate too much")
    measured = {(record["kernel"], record["seq_len"]) for record in rows(document)}
    served = [(name, length) for name in ("linear-outdated", "linear-chunked") for length in (16, 700)]
    assert measured == {("linear-hungry", 16), *served}
    assert "this kernel always fails" in text


@pytest.mark.slow
def test_a_skipped_session_keeps_an_earlier_file(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text("an earlier run")
    text = run(*TINY, "--benchmark-skip", f"--benchmark-json={out}")
    assert "not measured" not in text
    assert out.read_text() == "an earlier run"


@pytest.mark.slow
def test_a_run_that_measures_nothing_still_writes_why(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    run("--device=cpu", "--kernel=standard-sdpa-cudnn", "--seq-len=64", f"--benchmark-json={out}")
    document = json.loads(out.read_text())
    assert document["benchmarks"] == []
    assert [row["outcome"] for row in document["not_measured"]] == ["unsupported", "unsupported"]


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_was_measured_and_books_the_rest(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ("--device=cpu", "--kernel=linear-chunked", "--seq-len=16,32,64,128", "--case-seconds=1", "-v")
    process = subprocess.Popen(
        command(*options, f"--benchmark-json={out}"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A shell's background jobs ignore Ctrl-C, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "PASSED" in line:
            break
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 2, text
    document = json.loads(out.read_text())
    measured = {record["key"] for record in rows(document)}
    missing = {row["key"] for row in document["not_measured"]}
    assert measured and missing and not measured & missing
    assert len(measured | missing) == 8
    assert {row["reason"] for row in document["not_measured"]} == {
        "not reached before the run was interrupted"
    }


REFUSALS = {
    "--kernel=softmax": "--kernel 'softmax' matches no kernel; there are standard-explicit, ",
    "--mode=both": "--mode does not know 'both'; choose out of bidirectional, causal",
    "--phase=": "--phase got nothing; choose out of forward, forward_backward",
    "--dtype=int8": "--dtype does not know 'int8'; choose out of float64, float32, bfloat16, float16",
    "--device=tpu": "--device does not know 'tpu'; choose out of cpu, cuda",
    "--seq-len=256,many": "--seq-len takes lengths above 0 with commas, like 256,512; got '256,many'",
    "--seq-len=0": "--seq-len takes lengths above 0",
    "--shape=8x64": "--shape takes batch x heads x head dimension, like 1x8x64; got '8x64'",
    "--repetitions=0": "--repetitions must be above 0, got 0",
    "--case-seconds=-1": "--case-seconds must be above 0, got -1.0",
    "--round-seconds=nan": "--round-seconds must be above 0, got nan",
    "--grid=huge": "invalid choice: 'huge'",
}
# torch is imported once for all of them: each refusal in a process of its own takes seconds.
REFUSE_ALL = """
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
import pytest
for option in json.loads(sys.argv[1]):
    text = StringIO()
    with redirect_stdout(text), redirect_stderr(text):
        code = pytest.main(["benchmarks", "--collect-only", option])
    print(json.dumps([option, int(code), text.getvalue()]))
"""


@pytest.fixture(scope="module")
def refusals() -> dict[str, tuple[int, str]]:
    done = subprocess.run(
        [sys.executable, "-c", REFUSE_ALL, json.dumps(list(REFUSALS))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return {option: (code, text) for option, code, text in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("option", REFUSALS)
def test_wrong_options_are_refused_in_one_sentence(option: str, refusals: dict[str, tuple[int, str]]) -> None:
    code, text = refusals[option]
    assert code == pytest.ExitCode.USAGE_ERROR
    assert REFUSALS[option] in text
    assert "Traceback" not in text


def test_the_first_repetition_ascends_and_later_ones_are_shuffled_anew() -> None:
    cases = build_cases(Selection(PRESETS["default"], ["cpu"]))
    order = schedule(cases, 3, seed=1)
    repetitions = [[case for case, repetition in order if repetition == r] for r in (1, 2, 3)]
    for repetition in repetitions:
        assert Counter(repetition) == Counter(cases)
    for series in map(series_of, cases):
        lengths = [case.seq_len for case in repetitions[0] if series_of(case) == series]
        assert lengths == sorted(lengths)
    assert repetitions[0] != cases and repetitions[1] != repetitions[2]
    assert schedule(cases, 3, seed=1) == order != schedule(cases, 3, seed=2)


def test_the_default_grid_holds_six_lengths_of_both_families_in_both_modes() -> None:
    cases = build_cases(Selection(PRESETS["default"], ["cpu"]))
    for kernel in ("standard-explicit", "standard-sdpa", "linear-explicit", "linear-chunked"):
        for mode in ("bidirectional", "causal"):
            lengths = [case.seq_len for case in cases if (case.kernel, case.mode) == (kernel, mode)]
            assert lengths == [256, 512, 1024, 2048, 4096, 8192]


def test_time_is_predicted_from_the_longest_shorter_length_and_the_flops() -> None:
    case = Case("standard-explicit", "causal", 4096)
    ledger = Ledger([case])
    assert ledger.predict_seconds(case) is None
    ledger.learn_seconds(Case("standard-explicit", "causal", 512), 1.0)
    ledger.learn_seconds(Case("standard-explicit", "causal", 1024), 5.0)
    ledger.learn_seconds(Case("standard-explicit", "causal", 8192), 1.0)
    ledger.learn_seconds(Case("standard-explicit", "bidirectional", 4096), 1.0)
    assert ledger.predict_seconds(case) == pytest.approx(5.0 * 16)
    assert ledger.refuse(case, round_seconds=100.0) is None
    assert "predicted to take 80.0 s a round" in str(ledger.refuse(case, round_seconds=79.0))
    longer = Case("standard-explicit", "causal", 8191)
    assert ledger.predict_seconds(longer) == pytest.approx(80.0 * 4, rel=1e-3)
