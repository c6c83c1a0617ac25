"""What a case changes in its process is put back, and its record tells it."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.machine.process_state import FIELD, changes, put_back, read
from benchmarks.machine.state_parts import PARTS, Part, told
from tests.sessions import TINY, rows, run

torch.ones(1)  # so that the threads between operators are fixed


def sets_environment() -> None:
    os.environ["ATTENTION_PLANTED"] = "a secret"
    os.environ.pop("PATH", None)


LEAKS: dict[str, tuple[Callable[[], object], str]] = {
    "threads": (lambda: torch.set_num_threads(7), "torch threads"),
    "dtype": (lambda: torch.set_default_dtype(torch.float64), "default dtype torch.float32 -> torch.float64"),
    "device": (lambda: torch.set_default_device("meta"), "default device None -> meta"),
    "device cpu": (lambda: torch.set_default_device("cpu"), "default device None -> cpu"),
    "torch's seed": (lambda: torch.manual_seed(3), "torch's random state"),
    "torch's numbers": (lambda: torch.randn(3), "torch's random state"),
    "numpy's seed": (lambda: np.random.seed(3), "numpy's random state"),
    "Python's seed": (lambda: random.seed(3), "Python's random state"),
    "grad mode": (lambda: torch.set_grad_enabled(False), "grad mode True -> False"),
    "inference mode": (lambda: HELD.append(entered(torch.inference_mode())), "inference mode False -> True"),
    "autocast": (lambda: HELD.append(entered(torch.autocast("cpu"))), "autocast on cpu False -> True"),
    "anomaly": (lambda: torch.autograd.set_detect_anomaly(True), "anomaly detection False -> True"),
    "determinism": (lambda: torch.use_deterministic_algorithms(True, warn_only=True), "determinism 0 -> 1"),
    "precision": (lambda: torch.set_float32_matmul_precision("high"), "float32 precision highest -> high"),
    "newer precision": (
        lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
        "torch.backends.cuda.matmul.fp32_precision",
    ),
    "mkldnn": (
        lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),  # type: ignore[attr-defined]
        "torch.backends.mkldnn.matmul.fp32_precision",
    ),
    "cudnn": (lambda: setattr(torch.backends.cudnn, "benchmark", True), "torch.backends.cudnn.benchmark"),
    "sdpa": (lambda: torch.backends.cuda.enable_flash_sdp(False), "SDPA flash True -> False"),
    "denormals": (lambda: torch.set_flush_denormal(True), "flushing of denormals False -> True"),
    "errors": (lambda: np.seterr(over="ignore"), "numpy's error handling (over)"),
    "folder": (lambda: os.chdir("/"), "working folder"),
    "environment": (sets_environment, "environment (ATTENTION_PLANTED, PATH)"),
    "signal": (lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN), "signal handlers (SIGUSR1)"),
    "gc": (gc.disable, "garbage collector True -> False"),
    "thresholds": (lambda: gc.set_threshold(9), "garbage collector's thresholds"),
    "recursion": (lambda: sys.setrecursionlimit(5000), "recursion limit"),
}
HELD: list[Any] = []


def entered(manager: Any) -> Any:
    manager.__enter__()
    return manager


@pytest.mark.parametrize("leak", LEAKS)
def test_what_a_case_changes_is_put_back_and_told(leak: str) -> None:
    change, words = LEAKS[leak]
    before, record = read(), dict[str, Any]()
    with put_back(record):
        change()
    assert changes(before) == []
    assert words in str(record[FIELD])
    assert "secret" not in record[FIELD]


def test_a_case_that_changes_nothing_tells_nothing() -> None:
    record: dict[str, Any] = {}
    with put_back(record):
        torch.ones(3) @ torch.ones(3)
    assert record == {FIELD: None}


def test_what_a_failing_case_changed_is_put_back_as_well() -> None:
    record: dict[str, Any] = {}
    threads = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), put_back(record):
        torch.set_num_threads(threads + 5)
        _ = 1 / 0
    assert torch.get_num_threads() == threads
    assert record == {FIELD: f"torch threads {threads} -> {threads + 5}"}


def test_random_numbers_go_on_as_if_the_case_had_drawn_none() -> None:
    draw = (torch.rand(1).item, np.random.random, random.random)
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    expected = [torch.rand(1).item(), np.random.random(), random.random()]
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    with put_back({}):
        for one in draw:
            one()
        torch.rand(5)
    assert [torch.rand(1).item(), np.random.random(), random.random()] == expected


def test_a_folder_that_is_gone_is_left(tmp_path: Path) -> None:
    record: dict[str, Any] = {}
    home = os.getcwd()
    with put_back(record):
        (tmp_path / "gone").mkdir()
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
    assert os.getcwd() == home and record[FIELD] == "working folder"


def test_a_part_that_cannot_be_put_back_is_told_as_that() -> None:
    values = iter([2, 3])

    def refuses(value: object) -> None:
        raise RuntimeError("too late")

    before = read([Part("switch", lambda: next(values), refuses, told)])
    assert changes(before) == ["switch 2 -> 3 (could not be put back: RuntimeError)"]


def test_the_parts_of_the_state_have_names_of_their_own() -> None:
    assert len({part.name for part in PARTS}) == len(PARTS)


PLUGIN = """
import torch
from attention import get_kernel, register_kernel

explicit = get_kernel("linear-explicit")

def pushy(q, k, v, **options):
    torch.set_num_threads(7)
    torch.set_grad_enabled(False)
    return explicit.function(q, k, v, **options)

def after(q, k, v, **options):
    if torch.get_num_threads() == 7:
        raise RuntimeError("seven threads leaked into this case")
    return explicit.function(q, k, v, **options)

register_kernel("linear-pushy", pushy, costs=explicit.costs)
register_kernel("linear-after", after, costs=explicit.costs)
"""


@pytest.mark.slow
def test_a_kernel_that_sets_threads_is_told_of_in_its_record_and_no_other_case_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    out = tmp_path / "out.json"
    run(*TINY, "--kernel=linear-pushy", "--kernel=linear-after", "-p", "plugin", f"--benchmark-json={out}")
    records = rows(json.loads(out.read_text()))
    for record in records:
        found = str(record[FIELD])
        assert ("torch threads" in found and "-> 7" in found) == (record["kernel"] == "linear-pushy"), record
    assert len(records) == 2 * 2 * 4
