"""Outcomes of cases not measured, by prediction, failure or interrupt, with reasons in the JSON file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from attention import Case
from benchmarks.ledger import Ledger
from tests.sessions import ROOT, command, rows, run


@pytest.mark.slow
def test_cases_left_out_by_prediction_are_in_the_file_with_reasons_and_the_run_goes_on(
    tmp_path: Path,
) -> None:
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
        assert row["reason"] in " ".join(text.split())


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
def test_wrong_failing_and_memory_hungry_kernels_are_outcomes_and_the_run_goes_on(
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
    # linear-amnesic is wrong from its 65th token on, which the check finds before 16 tokens are timed.
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
def test_a_run_without_a_measured_case_writes_the_reasons(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    run("--device=cpu", "--kernel=standard-sdpa-cudnn", "--seq-len=64", f"--benchmark-json={out}")
    document = json.loads(out.read_text())
    assert document["benchmarks"] == []
    assert [row["outcome"] for row in document["not_measured"]] == ["unsupported", "unsupported"]


@pytest.mark.slow
def test_an_interrupted_run_keeps_measured_cases_and_lists_the_rest_as_not_measured(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ("--device=cpu", "--kernel=linear-chunked", "--seq-len=16,32,64,128", "--case-seconds=1", "-v")
    process = subprocess.Popen(
        command(*options, f"--benchmark-json={out}"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # Background jobs of a shell ignore Ctrl-C, and their children inherit that.
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
