"""From JSON files to the written report, by the command line and by its parts."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.analysis.cases import case_table
from benchmarks.analysis.document import WIDTH, Section, Table, as_markdown, as_text
from benchmarks.analysis.plots.views import views
from benchmarks.analysis.records import load
from benchmarks.analysis.summary import best_linear, summarise
from benchmarks.analysis.tables import sections
from tests.synthetic import DOUBLINGS, Law, Machine, Noise, Run, benchmark
from tests.test_pictures import crowded

ROOT = Path(__file__).parents[1]
MODES = ("bidirectional", "causal")
NOISE = Noise(0.01, 0.01, 0.02)
PLAIN_FILES = {
    "complexity_scaling.png", "speedup_analysis.png", "theoretical_vs_empirical.png", "memory_scaling.png",
    "complexity_analysis.csv", "summary.json", "summary.md",
}  # fmt: skip

LAWS = {
    **{("standard-explicit", mode): Law(4e-8, 2) for mode in MODES},
    **{("standard-sdpa", mode): Law(1.2e-8, 2) for mode in MODES},
    **{("linear-explicit", mode): Law(4e-4 if mode == "causal" else 1e-5, 1) for mode in MODES},
    **{("linear-chunked", mode): Law(1.6e-5, 1) for mode in MODES},
}
LEFT_OUT = [("standard-explicit", mode, 8192, "over_time", "predicted 5.2 s a round") for mode in MODES]
FULL = Run(LAWS, noise=NOISE, not_measured=LEFT_OUT)


def conclude(*paths: Path) -> dict[str, Any]:
    return summarise(load(paths))


def console(*paths: Path) -> str:
    records = load(paths)
    return as_text(sections(summarise(records), case_table(records)))


def find(items: Sequence[Mapping[str, Any]], **fields: Any) -> Mapping[str, Any]:
    (found,) = [one for one in items if all(one[name] == value for name, value in fields.items())]
    return found


def run_cli(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder and the process of one whole report."""
    folder = tmp_path_factory.mktemp("report")
    path = FULL.write(folder / "out.json")
    return folder / "report", run_cli("report", path, "-o", folder / "report")


# The command line


def test_the_command_writes_every_file_and_exits_with_0(report: Any) -> None:
    folder, process = report
    assert (process.returncode, process.stderr) == (0, "")
    assert {path.name for path in folder.iterdir()} == PLAIN_FILES


def test_the_console_leads_with_who_wins_from_where(report: Any) -> None:
    _, process = report
    sentence = "linear-chunked beats standard-explicit from N = "
    crossover = find(
        json.loads((report[0] / "summary.json").read_text())["crossovers"],
        linear="linear-chunked", standard="standard-explicit", mode="causal", quantity="time",
    )  # fmt: skip
    expected = f"{sentence}{crossover['n']:.0f} [{crossover['low']:.0f}, {crossover['high']:.0f}]"
    text = " ".join(process.stdout.split())
    assert expected in text and text.index(expected) < text.index("Median time")


def test_the_console_keeps_within_120_columns_and_loses_no_cell(tmp_path: Path) -> None:
    records = load([crowded().write(tmp_path / "out.json")])
    parts = sections(summarise(records), case_table(records))
    text = as_text(parts)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert all(cell in text for part in parts if part.table for row in part.table.rows for cell in row)


@pytest.mark.parametrize("arguments", [[], ["report"], ["conclude", "out.json"]])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2 and "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", [None, "", "{", '{"benchmarks": []}', '{"benchmarks": [{"name": "test_sort"}]}']
)
def test_bad_input_is_one_sentence_and_exit_2(
    text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out.json"
    if text is not None:
        path.write_text(text)
    assert main(["report", str(path), "-o", str(tmp_path / "report")]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith(f"error: {path}") and printed.err.count("\n") == 1
    assert "pytest benchmarks --benchmark-json" in printed.err  # what to do
    assert not (tmp_path / "report").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = FULL.write(tmp_path / "out.json")
    assert main(["report", str(path), "-o", str(path)]) == 2
    assert "name another folder with -o" in capsys.readouterr().err


def test_a_terminal_without_the_signs_still_gets_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Run({}, not_measured=LEFT_OUT).content()
    nothing["not_measured"][0]["reason"] = "over 3 µs"
    path = tmp_path / "out.json"
    path.write_text(json.dumps(nothing))
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    main(["report", str(path), "-o", str(tmp_path / "report")])
    sys.stdout.flush()
    assert b"over 3 ?s" in raw.getvalue()


# summary.json and the CSV file


def test_the_summary_is_strict_json_with_the_promised_fields(report: Any) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    summary = json.loads((report[0] / "summary.json").read_text(), parse_constant=refuse)
    promised = {"schema", "runs", "series", "crossovers", "ceilings", "warnings", "quality", "not_measured"}
    assert set(summary) == promised and summary["ceilings"] == []
    identity = {"mode", "phase", "device", "device_name", "dtype", "clock", "batch", "heads", "head_dim"}
    conclusions = {
        "kernel", "family", "seq_lens", "median_s", "exponent", "local_slopes", "overhead_s",
        "flops_exponent", "peak_bytes_exponent", "laws", "best_law",
    }  # fmt: skip
    for series in summary["series"]:
        assert identity | conclusions <= set(series)
        exponent = {"value", "low", "high", "verdict", "window", "units", "firmness", "overhead_s"}
        assert exponent <= set(series["exponent"])
        assert len(series["seq_lens"]) == len(series["median_s"]) == len(series["local_slopes"]) + 1
        assert series["subject"] == "operator" and series["floor_share"] == [None] * len(series["seq_lens"])
    for crossover in summary["crossovers"]:
        assert identity | {"linear", "standard", "quantity", "kind", "n", "low", "high"} <= set(crossover)
        assert crossover["firmness"] == ("tentative" if crossover["quantity"] == "time" else "firm")
        assert len(crossover["seq_lens"]) == len(crossover["ratios"]) >= 5
    assert len(summary["series"]) == len(LAWS)
    assert len(summary["crossovers"]) == 2 * 2 * 2 * 2  # linear x standard x mode x quantity
    assert summary["runs"]["unit"] == "repetition" and summary["runs"]["units"] == 3


def test_what_only_some_cases_know_is_null_for_the_others(tmp_path: Path) -> None:
    content = Run(LAWS, noise=NOISE, not_measured=LEFT_OUT).content()
    content["not_measured"][0]["predicted_s"] = 5.2
    path = tmp_path / "out.json"
    path.write_text(json.dumps(content))
    left_out = json.loads(json.dumps(conclude(path), allow_nan=False))["not_measured"]
    assert [one["predicted_s"] for one in left_out] == [5.2, None]


def test_known_laws_come_back_out_of_the_files(tmp_path: Path) -> None:
    summary = conclude(Run(LAWS, not_measured=LEFT_OUT).write(tmp_path / "out.json"))
    for series in summary["series"]:
        law = LAWS[series["kernel"], series["mode"]]
        assert series["median_s"] == pytest.approx([law(n) for n in series["seq_lens"]], rel=1e-9)
        assert series["exponent"]["value"] == pytest.approx(law.power, abs=1e-9)
        assert series["exponent"]["verdict"] == {1: "linear", 2: "quadratic"}[int(law.power)]
        assert series["flops_exponent"] == pytest.approx(law.power)
        fit = series["laws"][series["exponent"]["verdict"]]
        coefficient = fit["a_s_per_token2" if law.power == 2 else "a_s_per_token"]
        assert coefficient == pytest.approx(law.coefficient, rel=1e-4) and fit["tenable"]
    crossover = find(
        summary["crossovers"],
        linear="linear-chunked", standard="standard-sdpa", mode="causal", quantity="time",
    )  # fmt: skip
    assert crossover["n"] == pytest.approx(1.6e-5 / 1.2e-8, rel=1e-9)


def test_peak_memory_crosses_exactly(tmp_path: Path) -> None:
    content = Run({**LAWS}, lengths=(4, 8, 64), repetitions=1).content()
    for one in content["benchmarks"]:
        if one["extra_info"]["family"] == "linear":
            one["extra_info"]["peak_bytes"] *= 2
    path = tmp_path / "out.json"
    path.write_text(json.dumps(content))
    # In bytes: linear 2 (4 H N D); explicit 4 H N D + 8 H N^2; equal at N = D / 2.
    crossover = find(
        conclude(path)["crossovers"],
        linear="linear-chunked", standard="standard-explicit", mode="causal", quantity="peak_bytes",
    )  # fmt: skip
    assert crossover["kind"] == "inside" and 8 < crossover["n"] < 64
    assert crossover["low"] == crossover["high"] == crossover["n"]


def test_every_case_is_one_row_of_the_csv_measured_or_not(report: Any) -> None:
    with (report[0] / "complexity_analysis.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(LAWS) * len(DOUBLINGS)
    assert len({(row["kernel"], row["mode"], row["seq_len"]) for row in rows}) == len(rows)
    for row in rows:
        if row["outcome"] == "measured":
            low, q25, median, q75, high = (
                float(row[name]) for name in ("min_s", "q25_s", "median_s", "q75_s", "max_s")
            )
            assert 0 < low <= q25 <= q75 <= high and low <= median <= high
            assert float(row["stderr_s"]) > 0 and row["rounds"] == "15" and row["repetitions"] == "3"
            assert row["flops"].isdigit() and row["key"]
        else:
            assert (row["outcome"], row["reason"]) == ("over_time", "predicted 5.2 s a round")
            assert row["median_s"] == "" and row["kernel"] == "standard-explicit" and row["seq_len"] == "8192"


def test_left_out_and_oom_cells_say_so_and_why(tmp_path: Path) -> None:
    oom = ("standard-sdpa", "causal", 8192, "oom", "CUDA out of memory")
    text = console(Run(LAWS, not_measured=[*LEFT_OUT, oom]).write(tmp_path / "out.json"))
    causal = text.split("Median time")[2].splitlines()
    cells = {line.split()[0]: line for line in reversed(causal) if line.startswith("standard")}
    assert cells["standard-explicit"].endswith("left out: time") and cells["standard-sdpa"].endswith(" OOM")
    assert "predicted 5.2 s a round" in text and "CUDA out of memory" in text


def test_the_markdown_holds_the_same_as_the_console_in_tables_of_even_width(tmp_path: Path) -> None:
    records = load([FULL.write(tmp_path / "out.json")])
    parts = sections(summarise(records), case_table(records))
    markdown = as_markdown(parts)
    for part in parts:
        assert part.title in markdown
        for row in part.table.rows if part.table else []:
            assert f"| {' | '.join(row)} |" in markdown
    for block in markdown.split("\n\n"):
        if block.startswith("| "):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def test_a_bar_in_a_cell_does_not_split_it() -> None:
    table = as_markdown([Section("t", table=Table(["a", "b"], [["x|y", "z"]]))])
    assert "| x\\|y | z |" in table


# Relations


def test_the_order_of_the_files_changes_nothing(tmp_path: Path) -> None:
    paths = [Run(LAWS, noise=NOISE, seed=seed).write(tmp_path / f"{seed}.json") for seed in range(3)]
    forward, backward = conclude(*paths), conclude(*paths[::-1])
    assert forward["runs"]["unit"] == "run" and forward["runs"]["units"] == 3
    for name in ("series", "crossovers"):
        for one, other in zip(forward[name], backward[name], strict=True):
            assert json.dumps(rounded(one)) == json.dumps(rounded(other))


def rounded(value: Any) -> Any:
    """Sums in another order differ in the last digits."""
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
    for one, other in zip(conclude(fast)["crossovers"], conclude(slow)["crossovers"], strict=True):
        assert rounded(one) == rounded(other)
    for one, other in zip(conclude(fast)["series"], conclude(slow)["series"], strict=True):
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
    assert case_table(load([first, second_run]))["median_s"].tolist() == [3]


def test_rows_of_different_clocks_are_never_compared(tmp_path: Path) -> None:
    standard = Run({("standard-sdpa", "causal"): Law(1e-8, 2)}, machine=Machine(clock="wall"))
    linear = Run({("linear-chunked", "causal"): Law(1e-6, 1)}, machine=Machine(clock="device"))
    summary = conclude(standard.write(tmp_path / "a.json"), linear.write(tmp_path / "b.json"))
    assert summary["crossovers"] == [] and len(summary["series"]) == 2


def test_kernels_of_a_third_family_disturb_nothing(tmp_path: Path) -> None:
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
    assert {"copy", "product"} <= set(case_table(load([beside]))["kernel"])
    ((_, view),) = views(summary, case_table(load([beside])))
    assert "product" not in view.looks


def test_the_headline_kernel_is_the_fastest_at_the_longest_length(tmp_path: Path) -> None:
    summary = conclude(FULL.write(tmp_path / "out.json"))
    by_mode = {mode: [one for one in summary["series"] if one["mode"] == mode] for mode in MODES}
    assert {mode: best_linear(series) for mode, series in by_mode.items()} == {
        "bidirectional": "linear-explicit",
        "causal": "linear-chunked",
    }
    early = [{**one, "seq_lens": one["seq_lens"][:2], "median_s": one["median_s"][:2]}
             if one["kernel"] == "linear-explicit" else one for one in by_mode["bidirectional"]]  # fmt: skip
    assert best_linear(early) == "linear-chunked"
    assert best_linear([]) is None


# What is missing is named


def test_nothing_measured_is_reported_with_its_reasons_and_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Run({}, not_measured=LEFT_OUT).write(tmp_path / "out.json")
    assert main(["report", str(path), "-o", str(tmp_path / "report")]) == 1
    text = capsys.readouterr().out
    assert "Nothing was measured" in text and "predicted 5.2 s a round" in text
    written = {path.name for path in (tmp_path / "report").iterdir()}
    assert written == {name for name in PLAIN_FILES if not name.endswith(".png")}


def test_a_mode_and_a_family_that_are_missing_are_named(tmp_path: Path) -> None:
    laws = {("linear-chunked", "causal"): Law(1e-6, 1)}
    warnings = " ".join(conclude(Run(laws).write(tmp_path / "out.json"))["warnings"])
    assert "No bidirectional case" in warnings and "No standard kernel" in warnings
    assert "No causal case" not in warnings and "No linear kernel" not in warnings


def test_one_length_and_one_repetition_are_reported_as_far_as_they_go(tmp_path: Path) -> None:
    path = Run(LAWS, lengths=(1024,), repetitions=1, noise=NOISE).write(tmp_path / "out.json")
    summary = conclude(path)
    warnings = " ".join(summary["warnings"])
    assert "Only N = 1024" in warnings and "A single repetition" in warnings
    for series in summary["series"]:
        assert series["exponent"]["value"] is None and series["overhead_s"] is None
        assert set(series["laws"].values()) == {None} and series["local_slopes"] == []
    assert main(["report", str(path), "-o", str(tmp_path / "report")]) == 0
    assert {one.name for one in (tmp_path / "report").iterdir()} == PLAIN_FILES


def test_pooled_files_of_different_commits_are_named(tmp_path: Path) -> None:
    paths = []
    for seed in range(2):
        content = Run(LAWS, seed=seed, noise=NOISE).content()
        content["commit_info"]["id"] = str(seed) * 40
        paths.append(tmp_path / f"{seed}.json")
        paths[-1].write_text(json.dumps(content))
    summary = conclude(*paths)
    assert "different commits" in " ".join(summary["warnings"])
    assert [one["machine"] for one in summary["runs"]["files"]] == [0, 0]
