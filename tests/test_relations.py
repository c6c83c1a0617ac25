"""Relations between reports: changes of a run that may not change a conclusion, and missing cases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.analysis.reading.roles import USUAL
from benchmarks.analysis.report.conclusions import headline_kernel
from benchmarks.analysis.report.pictures.views import views
from tests.concluded import FULL, LAWS, LEFT_OUT, MODES, NOISE, PLAIN_FILES, conclude, concluded, console
from tests.synthetic import Law, Machine, Run, benchmark

# Relations


def test_the_order_of_files_does_not_change_the_conclusions(tmp_path: Path) -> None:
    paths = [Run(LAWS, noise=NOISE, seed=seed).write(tmp_path / f"{seed}.json") for seed in range(3)]
    forward, backward = conclude(*paths), conclude(*paths[::-1])
    assert forward["runs"]["unit"] == "run" and forward["runs"]["units"] == 3
    for name in ("series", "crossovers"):
        for one, other in zip(forward[name], backward[name], strict=True):
            assert json.dumps(rounded(one)) == json.dumps(rounded(other))


def rounded(value: Any) -> Any:
    """A value with numbers rounded to 6 digits, because sums in another order differ in the last ones."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def test_a_machine_of_half_the_speed_has_the_same_exponents_and_crossovers(tmp_path: Path) -> None:
    content = FULL.content()
    fast = tmp_path / "fast.json"
    fast.write_text(json.dumps(content))
    for one in content["benchmarks"]:
        one["stats"]["data"] = [2 * second for second in one["stats"]["data"]]
    slow = tmp_path / "slow.json"
    slow.write_text(json.dumps(content))
    quick, late = conclude(fast), conclude(slow)
    for one, other in zip(quick["crossovers"], late["crossovers"], strict=True):
        assert rounded(one) == rounded(other)
    for one, other in zip(quick["series"], late["series"], strict=True):
        for name, value in one["exponent"].items():
            factor = 2 if name == "overhead_s" and value is not None else 1
            assert rounded(factor * value if factor > 1 else value) == rounded(other["exponent"][name])
        assert [2 * time for time in one["median_s"]] == pytest.approx(other["median_s"])


def test_the_value_of_a_run_is_the_median_of_its_repetitions(tmp_path: Path) -> None:
    content = Run({("linear-chunked", "causal"): Law(1e-6, 1)}, lengths=(256,), repetitions=3).content()
    for one, second in zip(content["benchmarks"], (1.0, 2.0, 90.0), strict=True):
        one["stats"]["data"] = [second] * 5
    first = tmp_path / "a.json"
    first.write_text(json.dumps(content))
    second_run = Run({("linear-chunked", "causal"): {256: 4.0}}).write(tmp_path / "b.json")
    assert conclude(first)["series"][0]["median_s"] == [2]
    assert conclude(first, second_run)["series"][0]["median_s"] == [3]
    assert concluded(first, second_run)[1]["median_s"].tolist() == [3]


def test_rows_of_different_clocks_are_never_compared(tmp_path: Path) -> None:
    standard = Run({("standard-sdpa", "causal"): Law(1e-8, 2)}, machine=Machine(clock="wall"))
    linear = Run({("linear-chunked", "causal"): Law(1e-6, 1)}, machine=Machine(clock="device"))
    summary = conclude(standard.write(tmp_path / "a.json"), linear.write(tmp_path / "b.json"))
    assert summary["crossovers"] == [] and len(summary["series"]) == 2


def test_kernels_of_a_third_family_do_not_change_the_conclusions(tmp_path: Path) -> None:
    content = FULL.content()
    alone = tmp_path / "alone.json"
    alone.write_text(json.dumps(content))
    record = content["benchmarks"][0]["extra_info"]
    nothing = dict.fromkeys(("mode", "phase", "seq_len", "batch", "heads", "head_dim", "flops"))
    copy = {
        **record,
        **nothing,
        "kernel": "copy",
        "family": "ceiling",
        "key": "copy/cpu",
        "bytes_per_s": 2e10,
    }
    matrix = {**record, "kernel": "product", "family": "ceiling", "key": "product/cpu"}
    content["benchmarks"] += [benchmark(copy, [0.1, 0.1]), benchmark(matrix, [0.2, 0.2])]
    beside = tmp_path / "beside.json"
    beside.write_text(json.dumps(content))
    summary, expected = conclude(beside), conclude(alone)
    assert [one for one in summary["series"] if one["family"] != "ceiling"] == expected["series"]
    assert summary["crossovers"] == expected["crossovers"] and summary["warnings"] == expected["warnings"]
    assert "copy" not in console(beside)
    assert {"copy", "product"} <= set(concluded(beside)[1]["kernel"])
    ((_, view),) = views(*concluded(beside))
    assert "product" not in view.looks


def test_the_headline_kernel_is_the_fastest_at_the_longest_length(tmp_path: Path) -> None:
    series = concluded(FULL.write(tmp_path / "out.json"))[0].series
    by_mode = {mode: [one for one in series if one.setting.mode == mode] for mode in MODES}
    assert {mode: headline_kernel(series, USUAL) for mode, series in by_mode.items()} == {
        "bidirectional": "linear-explicit",
        "causal": "linear-chunked",
    }
    early = [
        replace(one, seq_lens=one.seq_lens[:2], median_s=one.median_s[:2])
        if one.kernel == "linear-explicit"
        else one
        for one in by_mode["bidirectional"]
    ]
    assert headline_kernel(early, USUAL) == "linear-chunked"
    assert headline_kernel([], USUAL) is None


# Missing cases


def test_report_of_a_run_without_a_measured_case_gives_the_reasons_and_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Run({}, not_measured=LEFT_OUT).write(tmp_path / "out.json")
    assert main(["report", str(path), "-o", str(tmp_path / "report")]) == 1
    text = capsys.readouterr().out
    assert "Nothing was measured" in text and "predicted 5.2 s a round" in " ".join(text.split())
    written = {path.name for path in (tmp_path / "report").iterdir()}
    assert written == {name for name in PLAIN_FILES if not name.endswith((".png", "_wide.csv"))}


def test_the_report_names_a_missing_mode_and_a_missing_family(tmp_path: Path) -> None:
    laws = {("linear-chunked", "causal"): Law(1e-6, 1)}
    warnings = " ".join(conclude(Run(laws).write(tmp_path / "out.json"))["warnings"])
    assert "No bidirectional case" in warnings and "No standard kernel" in warnings
    assert "No causal case" not in warnings and "No linear kernel" not in warnings


def test_report_of_one_length_and_one_repetition_has_null_exponents_and_warnings(tmp_path: Path) -> None:
    path = Run(LAWS, lengths=(1024,), repetitions=1, noise=NOISE).write(tmp_path / "out.json")
    summary = conclude(path)
    warnings = " ".join(summary["warnings"])
    assert "Only N = 1024" in warnings and "A single repetition" in warnings
    for series in summary["series"]:
        assert series["exponent"]["value"] is None and series["overhead_s"] is None
        assert set(series["laws"].values()) == {None} and series["local_slopes"] == []
    assert main(["report", str(path), "-o", str(tmp_path / "report")]) == 0
    assert {one.name for one in (tmp_path / "report").iterdir()} == PLAIN_FILES


def test_the_report_names_pooled_files_of_different_commits(tmp_path: Path) -> None:
    paths = []
    for seed in range(2):
        content = Run(LAWS, seed=seed, noise=NOISE).content()
        content["commit_info"]["id"] = str(seed) * 40
        paths.append(tmp_path / f"{seed}.json")
        paths[-1].write_text(json.dumps(content))
    summary = conclude(*paths)
    assert "different commits" in " ".join(summary["warnings"])
    assert [one["machine"] for one in summary["runs"]["files"]] == [0, 0]
