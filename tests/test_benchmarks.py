"""Sessions of the suite: the cases they choose, the JSON file they write and the text they print."""

from __future__ import annotations

import json
import platform
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.sessions import TINY, rows, run


def assert_conditions(document: dict[str, Any]) -> None:
    """Assert that conditions were recorded before the first case and after each of two repetitions."""
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
        assert all(value is None or isinstance(value, str | int | float) for value in record.values()), record
        assert record["flops"] == 2 * record["macs"] > 0
        assert record["peak_bytes"] > 0 and record["clock"] == "wall"
    assert "UNSERIALIZABLE" not in out.read_text()
    for benchmark in document["benchmarks"]:
        assert len(benchmark["stats"]["data"]) >= 3 and min(benchmark["stats"]["data"]) > 0
    assert "of it inside timed rounds; --shuffle-seed 7 repeats the order" in " ".join(text.split())
    # The answer of this run in the place of pytest-benchmark's table, and the command for the rest.
    lines = text.splitlines()
    first = lines.index("Linear attention against standard-explicit, the fastest standard kernel")
    assert re.match(r"causal forward  linear-explicit (wins|loses) at N=16", lines[first + 1])
    assert f"report: python -m benchmarks report {out}" in lines[first + 1 :] and "Legend:" not in text
    (surer,) = (line for line in lines if line.startswith("surer: "))
    assert shlex.split(document["run"]["options"])[:2] == ["--device=cpu", "--kernel=standard-explicit"]
    assert surer.startswith("surer: python -m benchmarks run -o runs/ --device=cpu")


@pytest.mark.slow
def test_the_table_of_pytest_benchmark_stands_above_the_answer_where_it_is_asked_for() -> None:
    text = run(*TINY, "--benchmark-sort=mean")
    # One table for each mode, phase and length shows its kernels side by side.
    assert text.count("benchmark 'causal-forward-N16-B1-H8-D64-float32-cpu': 4 tests") == 1
    assert text.index("Legend:") < text.index("Linear attention against")


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
        ("ceiling", "ceiling-matmul"): 2,
    }
    for benchmark, record in zip(document["benchmarks"], records, strict=True):
        if record["subject"] == "layer":
            assert record["key"].startswith("layer/") and record["embed_dim"] == 512
            assert record["flops"] == record["counted_flops"]
            assert benchmark["stats"]["rounds"] == 20


@pytest.mark.slow
def test_collect_only_and_k_choose_cases_by_ids_and_the_grid_comes_before_its_repetition() -> None:
    text = run("--device=cpu", "--collect-only", "-q", "-k", "linear-native", files=("benchmarks",))
    ids = [line for line in text.splitlines() if "::" in line]
    chosen = [line for line in ids if "linear-native-causal" in line and "N4096" in line]
    assert chosen == [
        f"benchmarks/test_attention.py::test_attention[linear-native-causal-forward-N4096-B1-H8-D64-float32-cpu-r{r}]"
        for r in range(1, 7)
    ]
    assert any("test_self_attention[layer-linear-native-" in line for line in ids)
    repetitions = [line[-2] for line in ids]
    assert repetitions == sorted(repetitions)
    assert "not measured" not in text


@pytest.mark.slow
def test_a_session_with_benchmark_skip_keeps_an_earlier_json_file(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text("an earlier run")
    text = run(*TINY, "--benchmark-skip", f"--benchmark-json={out}")
    assert "not measured" not in text
    assert out.read_text() == "an earlier run"
