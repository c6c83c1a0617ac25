"""The report of a whole self-attention layer: its table, its picture and its raw data."""

from __future__ import annotations

import csv
import json
import math
import statistics
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

from benchmarks.__main__ import main
from benchmarks.analysis import wording
from benchmarks.analysis.document import as_text
from benchmarks.analysis.layout import MOST_WIDTH, Screen
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.report.cases import case_table
from benchmarks.analysis.report.pictures.layers import layer_views
from benchmarks.analysis.report.pictures.profiling import profiling_picture
from benchmarks.analysis.report.pictures.views import views
from benchmarks.analysis.report.raw import save_raw
from benchmarks.analysis.report.summary import summarise
from benchmarks.analysis.report.text import sections
from tests.synthetic import Law, Machine, Noise, Run, ceilings, write_together

LENGTHS = (10, 100, 1000, 10000)
LAWS = {
    ("standard-sdpa", "bidirectional"): Law(1.4e-8, 2, 2e-4),
    ("linear-chunked", "bidirectional"): Law(2e-5, 1, 2e-4),
}
GONE = ("standard-sdpa", "bidirectional", 10000, "over_memory", "predicted to need 6.4 GB")
LAYER = Run(LAWS, LENGTHS, rounds=7, noise=Noise(), subject="layer", theory=True)
GPU = replace(LAYER, machine=Machine("cuda", "Synthetic GPU", "bfloat16", "device", 4), seed=1)
OPERATOR = Run(
    {**LAWS, **{(kernel, "causal"): law for (kernel, _), law in LAWS.items()}}, noise=Noise(), theory=True
)


def console(*paths: Path) -> str:
    records = load(paths)
    return as_text(sections(summarise(records), case_table(records)), Screen(MOST_WIDTH))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Folder of the report of a layer on two devices, and the content of its run."""
    folder = tmp_path_factory.mktemp("layer")
    run = replace(LAYER, not_measured=[GONE])
    path = write_together(folder / "out.json", [run, GPU], ceilings(run.machine, 2e10, 1.5e12))
    assert main(["report", str(path), "-o", str(folder / "report")]) == 0
    return folder / "report", json.loads(path.read_text())


def test_the_report_of_a_layer_alone_has_one_picture_raw_data_and_no_warnings(report: Any) -> None:
    folder, _ = report
    assert {path.name for path in folder.iterdir()} == {
        "report.html", "self_attention_profiling.png", "profiling_results.npz",
        "complexity_analysis.csv", "summary.json", "summary.md",
    }  # fmt: skip
    assert json.loads((folder / "summary.json").read_text())["warnings"] == []


def test_raw_data_of_the_layer_are_the_rounds_of_the_file_and_need_no_pickle(report: Any) -> None:
    folder, content = report
    layers = [one for one in content["benchmarks"] if one["extra_info"]["subject"] == "layer"]
    rounds = [(one["extra_info"], index, second) for one in layers
              for index, second in enumerate(one["stats"]["data"])]  # fmt: skip
    with np.load(folder / "profiling_results.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    assert arrays["seconds"].tolist() == [second for _, _, second in rounds]
    assert arrays["round"].tolist() == [index for _, index, _ in rounds]
    for name in (
        "kernel", "mode", "phase", "device", "device_name", "dtype", "clock", "batch", "heads", "head_dim",
        "seq_len", "embed_dim", "repetition", "flops", "macs", "min_bytes", "peak_bytes", "counted_flops",
        "predicted_peak_bytes",
    ):  # fmt: skip
        assert arrays[name].tolist() == [record[name] for record, _, _ in rounds], name
    assert np.isnan(arrays["peak_rss_bytes"][arrays["device"] == "cuda"]).all()  # null in the records
    assert arrays["ceiling_seconds"].size == 2 * 3 * 5 and set(arrays["ceiling_device"]) == {"cpu"}
    left_out = [arrays[f"left_out_{name}"].tolist() for name in ("kernel", "seq_len", "outcome", "reason")]
    assert left_out == [[GONE[0]], [GONE[2]], [GONE[3]], [GONE[4]]]
    assert {array.dtype.kind for array in arrays.values()} == {"U", "i", "f"}


def test_raw_data_of_the_layer_have_the_same_arrays_without_ceilings_or_optional_fields(
    report: Any, tmp_path: Path
) -> None:
    records = load([replace(LAYER, theory=False).write(tmp_path / "out.json")])
    path = save_raw(records, tmp_path / "raw.npz")
    assert path is not None
    with (
        np.load(path, allow_pickle=False) as few,
        np.load(report[0] / "profiling_results.npz", allow_pickle=False) as all_of_them,
    ):
        assert set(few) == set(all_of_them)
        assert np.isnan(few["counted_flops"]).all() and few["ceiling_seconds"].shape == (0,)
    assert save_raw(load([OPERATOR.write(tmp_path / "operator.json")]), tmp_path / "none.npz") is None
    assert not (tmp_path / "none.npz").exists()


def test_mean_and_standard_error_of_a_layer_case_are_those_of_all_rounds(tmp_path: Path) -> None:
    content = replace(LAYER, lengths=(100,), repetitions=2, rounds=3).content()
    times = {"standard-sdpa": [[1, 2, 3], [4, 6, 8]], "linear-chunked": [[5, 5, 5], [5, 5, 5]]}
    for one in content["benchmarks"]:
        record = one["extra_info"]
        one["stats"]["data"] = [1e-3 * time for time in times[record["kernel"]][record["repetition"] - 1]]
    path = tmp_path / "out.json"
    path.write_text(json.dumps(content))
    cases = case_table(load([path])).set_index("kernel")
    error = 1e-3 * statistics.stdev([1, 2, 3, 4, 6, 8]) / math.sqrt(6)
    assert cases.loc["standard-sdpa", "rounds_mean_s"] == pytest.approx(4e-3)
    assert cases.loc["standard-sdpa", "rounds_stderr_s"] == pytest.approx(error)
    text = console(path)
    assert cases.loc["standard-sdpa", "rounds_std_s"] == pytest.approx(error * math.sqrt(6))
    lines = {" ".join(line.split()[2:9]) for line in text.splitlines()}
    assert {"4.00 ± 1.1 ms 2.61 ms 6", "5.00 ± 0 ms 0 s 6"} <= lines
    assert "not independent" in " ".join(text.split())


def test_a_layer_case_without_rounds_has_no_standard_error_and_says_so(tmp_path: Path) -> None:
    content = LAYER.content()
    for one in content["benchmarks"]:
        del one["stats"]["data"]
    path = tmp_path / "out.json"
    path.write_text(json.dumps(content))
    assert "rounds not kept" in console(path)
    assert layer_views(case_table(load([path]))) == []


def test_the_layer_table_holds_measured_and_predicted_costs_with_their_ratio(tmp_path: Path) -> None:
    content = replace(LAYER, lengths=(100,)).content()
    for one in content["benchmarks"]:
        if one["extra_info"]["kernel"] == "linear-chunked":
            one["extra_info"]["counted_flops"] = 1.25 * one["extra_info"]["flops"]
            one["extra_info"]["predicted_peak_bytes"] = None
    path = tmp_path / "out.json"
    path.write_text(json.dumps(content))
    records = load([path])
    parts = {part.title.partition(",")[0]: part for part in sections(summarise(records), case_table(records))}
    tables = [parts[name].table for name in ("Time and FLOPs", "Peak memory")]
    times, peaks = ({row[0].split()[0]: row for row in table.rows} for table in tables if table)
    flops, counted, ratio = times["linear-chunked"][4:]
    assert float(counted.split()[0]) / float(flops.split()[0]) == pytest.approx(1.25, rel=0.01)
    assert ratio == "1.250" and times["standard-sdpa"][-1] == "1.000"
    assert peaks["linear-chunked"][1::2] == ["-", "-"] and peaks["standard-sdpa"][3] == "1.000"
    assert peaks["linear-chunked"][-1] == wording.amount(3 * 4 * 8 * 100 * 64, "B")  # of the process
    text = " ".join(console(path).split())
    assert "linear-chunked: counted / closed-form FLOPs is 1.250 at N = 100." in text


def test_a_length_left_out_of_the_layer_table_says_so_in_its_row_and_why_below(tmp_path: Path) -> None:
    text = console(replace(LAYER, not_measured=[GONE]).write(tmp_path / "out.json"))
    row, peaks = (line for line in text.splitlines() if line.startswith("standard-sdpa N=10000"))
    assert row.split()[2:] == ["left", "out:", "memory", *"-----"] and peaks.split()[2:] == [*"----"]
    assert "of the layer, N = 10000 (left out: memory): predicted to need 6.4 GB." in text
    assert max(map(len, text.splitlines())) <= MOST_WIDTH


def test_a_layer_is_never_compared_with_an_operator(tmp_path: Path) -> None:
    alone = OPERATOR.write(tmp_path / "alone.json")
    beside = write_together(tmp_path / "beside.json", [OPERATOR, LAYER])
    expected, found = summarise(load([alone])), summarise(load([beside]))
    operators = [one for one in found.series if one.setting.subject == "operator"]
    assert operators == expected.series and len(found.series) == len(operators) + 2
    pairs = [pair for pair in found.crossovers if pair.setting.subject == "operator"]
    assert pairs == expected.crossovers and found.warnings == expected.warnings
    assert {pair.setting.subject for pair in found.crossovers} == {"operator", "layer"}
    cases = [case_table(load([path])) for path in (alone, beside)]
    shown = [[(suffix, len(view.cases)) for suffix, view in views(summary, table)]
             for summary, table in zip((expected, found), cases, strict=True)]  # fmt: skip
    assert shown[0] == shown[1] == [("", 2 * 2 * 6)]
    assert [len(layer_views(table)) for table in cases] == [0, 1]
    with_layer, without = console(beside), console(alone)
    assert "of the layer" not in without and with_layer.index("of the layer") > with_layer.index("Causal")


def test_the_layer_picture_shows_every_kernel_on_every_device_with_error_bars(tmp_path: Path) -> None:
    path = write_together(tmp_path / "out.json", [LAYER, GPU])
    ((suffix, view),) = layer_views(cases := case_table(load([path])))
    assert suffix == "" and [one.device for one in view.environments] == ["cpu", "cuda"]
    figure = profiling_picture(view)
    time, memory, flops, rate = figure.axes
    assert all(axes.get_xscale() == axes.get_yscale() == "log" for axes in figure.axes)
    labels = [axes.get_xlabel() + axes.get_ylabel() for axes in figure.axes]
    for label, word in zip(labels, ("standard error", "memory", "FLOPs", "FLOPs"), strict=True):
        assert word in label
    for axes, x, y in (
        (time, "seq_len", "rounds_mean_s"), (memory, "seq_len", "peak_bytes"),
        (flops, "seq_len", "flops"), (rate, "flops", "rounds_mean_s"),
    ):  # fmt: skip
        bars = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
        assert len(bars) == 4 and [one.has_yerr for one in bars] == [y == "rounds_mean_s"] * 4
        drawn = sorted(map(tuple, np.vstack([np.asarray(one.lines[0].get_xydata()) for one in bars])))
        expected = sorted(map(tuple, cases[[x, y]].to_numpy(dtype=float)))
        assert np.array(drawn) == pytest.approx(np.array(expected))
        assert {mpl.colors.to_hex(one.lines[0].get_color()) for one in bars} == {"#000000", "#0072b2"}
    names = " ".join(text.get_text() for text in figure.legends[0].get_texts())
    for word in ("standard-sdpa", "linear-chunked", "Synthetic CPU", "Synthetic GPU"):
        assert word in names


@pytest.mark.parametrize("lengths", [(10, 100), (10, 100, 1000, 10000, 100000)])
def test_no_two_ticks_of_the_layer_picture_overlap(lengths: tuple[int, ...], tmp_path: Path) -> None:
    path = replace(LAYER, lengths=lengths).write(tmp_path / "out.json")
    ((_, view),) = layer_views(case_table(load([path])))
    figure = profiling_picture(view)
    figure.canvas.draw()
    for axes in figure.axes:
        (left, right), ticks = axes.get_xlim(), axes.get_xticklabels()
        shown = [tick.get_window_extent() for tick in ticks if left <= tick.get_position()[0] <= right]
        assert len(shown) > 1
        assert all(one.x1 < other.x0 for one, other in pairwise(shown))


def test_layers_of_different_width_have_pictures_of_their_own(tmp_path: Path) -> None:
    narrow = replace(LAYER, machine=Machine(heads=4), lengths=LENGTHS[:3])
    path = write_together(tmp_path / "out.json", [narrow, LAYER])
    found = layer_views(case_table(load([path])))
    assert [(suffix, view.environments[0].heads) for suffix, view in found] == [("", 8), ("-H4", 4)]


def test_the_csv_file_holds_the_columns_of_the_layer_and_of_the_floor(report: Any) -> None:
    with (report[0] / "complexity_analysis.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    layers = [row for row in rows if row["subject"] == "layer" and row["outcome"] == "measured"]
    assert len(layers) == 2 * 8 - 1
    for row in layers:
        assert float(row["rounds_stderr_s"]) > 0 and row["counted_flops"].isdigit()
        assert (row["floor_share"] != "") == (row["device"] == "cpu")
    assert all(row["floor_s"] == "" for row in rows if row["subject"] == "ceiling")


def test_a_line_of_the_layer_picture_that_ends_early_says_why(tmp_path: Path) -> None:
    path = replace(LAYER, not_measured=[GONE]).write(tmp_path / "out.json")
    ((_, view),) = layer_views(case_table(load([path])))
    time, *others = profiling_picture(view).axes
    assert "memory limit" in {text.get_text() for text in time.texts}
    assert not any("limit" in text.get_text() for axes in others for text in axes.texts)
