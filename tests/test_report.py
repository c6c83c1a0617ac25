"""The command report: its files, console, summary, tables and errors."""

from __future__ import annotations

import csv
import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks.__main__ import main
from benchmarks.analysis.document import Section, Table, as_markdown
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.report.cases import case_table
from benchmarks.analysis.report.summary import summarise
from benchmarks.analysis.report.text import sections
from tests.concluded import FULL, LAWS, LEFT_OUT, NOISE, PLAIN_FILES, conclude, console, find
from tests.synthetic import DOUBLINGS, Run


class Finished(NamedTuple):
    """A command that has ended: its exit code and what it printed."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """Folder and end of one complete report; test_door.py starts the same in a process of its own."""
    folder, out, err = tmp_path_factory.mktemp("report"), io.StringIO(), io.StringIO()
    path = FULL.write(folder / "out.json")
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["report", str(path), "-o", str(folder / "report")])
    return folder / "report", Finished(code, out.getvalue(), err.getvalue())


# The command line


def test_report_writes_every_file_and_exits_with_0(report: Any) -> None:
    folder, process = report
    assert (process.code, process.stderr) == (0, "")
    assert {path.name for path in folder.iterdir()} == PLAIN_FILES


def test_the_console_of_report_leads_with_the_crossover(report: Any) -> None:
    _, process = report
    sentence = "linear-chunked beats standard-explicit from N = "
    crossover = find(
        json.loads((report[0] / "summary.json").read_text())["crossovers"],
        linear="linear-chunked", standard="standard-explicit", mode="causal", quantity="time",
    )  # fmt: skip
    expected = f"{sentence}{crossover['n']:.0f} [{crossover['low']:.0f}, {crossover['high']:.0f}]"
    text = " ".join(process.stdout.split())
    assert expected in text and text.index(expected) < text.index("Median time")


@pytest.mark.parametrize("arguments", [[], ["report"], ["conclude", "out.json"]])
def test_wrong_usage_of_report_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2 and "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", [None, "", "{", '{"benchmarks": []}', '{"benchmarks": [{"name": "test_sort"}]}']
)
def test_bad_input_of_report_is_one_sentence_and_exit_2(
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


def test_a_folder_that_report_cannot_write_is_one_sentence_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = FULL.write(tmp_path / "out.json")
    assert main(["report", str(path), "-o", str(path)]) == 2
    assert "name another folder with -o" in capsys.readouterr().err


def test_a_terminal_without_unicode_gets_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    lists = {
        "series",
        "crossovers",
        "contexts",
        "over_ranks",
        "ceilings",
        "warnings",
        "quality",
        "not_measured",
    }
    assert set(summary) == {"schema", "runs"} | lists
    assert summary["ceilings"] == summary["contexts"] == summary["over_ranks"] == []
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


def test_a_field_of_some_cases_is_null_in_the_summary_for_all_other_cases(tmp_path: Path) -> None:
    content = Run(LAWS, noise=NOISE, not_measured=LEFT_OUT).content()
    content["not_measured"][0]["predicted_s"] = 5.2
    path = tmp_path / "out.json"
    path.write_text(json.dumps(content))
    left_out = json.loads(json.dumps(conclude(path), allow_nan=False))["not_measured"]
    assert [one["predicted_s"] for one in left_out] == [5.2, None]


def test_the_summary_finds_the_exponents_and_crossover_of_known_laws(tmp_path: Path) -> None:
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


def test_the_crossover_of_peak_memory_needs_no_repetition(tmp_path: Path) -> None:
    content = Run({**LAWS}, lengths=(4, 8, 64), repetitions=1).content()
    for one in content["benchmarks"]:
        if one["extra_info"]["family"] == "linear":
            one["extra_info"]["peak_bytes"] *= 2
    path = tmp_path / "out.json"
    path.write_text(json.dumps(content))
    # Bytes: linear 2 (4 H N D); explicit 4 H N D + 8 H N^2; equal at N = D / 2.
    crossover = find(
        conclude(path)["crossovers"],
        linear="linear-chunked", standard="standard-explicit", mode="causal", quantity="peak_bytes",
    )  # fmt: skip
    assert crossover["kind"] == "inside" and 8 < crossover["n"] < 64
    assert crossover["low"] < 32 < crossover["high"] and crossover["firmness"] == "firm"


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


def test_cells_of_cases_left_out_or_out_of_memory_say_so_with_reasons_below(tmp_path: Path) -> None:
    oom = ("standard-sdpa", "causal", 8192, "oom", "CUDA out of memory")
    text = console(Run(LAWS, not_measured=[*LEFT_OUT, oom]).write(tmp_path / "out.json"), width=120)
    causal = text.split("Median time")[2].splitlines()
    cells = {line.split()[0]: line for line in reversed(causal) if line.startswith("standard")}
    assert cells["standard-explicit"].endswith("left out: time") and cells["standard-sdpa"].endswith(" OOM")
    assert "predicted 5.2 s a round" in text and "CUDA out of memory" in text


def test_the_markdown_report_holds_the_cells_of_the_console_in_tables_of_even_width(tmp_path: Path) -> None:
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


def test_a_bar_in_a_cell_of_a_markdown_table_is_escaped() -> None:
    table = as_markdown([Section("t", table=Table(["a", "b"], [["x|y", "z"]]))])
    assert "| x\\|y | z |" in table
