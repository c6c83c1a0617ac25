"""Ceilings of a device, the floors of its cases, and the pictures of both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from benchmarks.__main__ import main
from benchmarks.analysis import wording
from benchmarks.analysis.plots.style import IMPOSSIBLE, THEORY
from benchmarks.analysis.report.ceilings import Ceiling
from benchmarks.analysis.report.pictures.memory import memory_picture
from benchmarks.analysis.report.pictures.roofline import roofline_picture
from benchmarks.analysis.report.pictures.scaling import scaling_picture
from benchmarks.analysis.report.pictures.speedup import speedup_picture
from benchmarks.analysis.report.pictures.theory import theory_picture
from benchmarks.analysis.report.pictures.views import View, views
from tests.concluded import concluded, console
from tests.synthetic import Law, Machine, Run, ceilings

MODES = ("bidirectional", "causal")
BANDWIDTH, RATE = 2e10, 1.5e11
CPU = Machine()
LAWS = {
    (kernel, mode): Law(1e-3, 0)
    for mode in MODES
    for kernel in ("standard-explicit", "standard-sdpa", "linear-chunked")
}
LENGTHS = (16, 256, 4096)


def at_share(path: Path, share: float, machine: Machine = CPU, **shares: float) -> Path:
    """Write a run with ceilings whose cases take floor / share, where some kernels have another share."""
    content = Run(LAWS, LENGTHS, machine=machine, theory=True).content()
    for one in content["benchmarks"]:
        record = one["extra_info"]
        floor = max(record["min_bytes"] / BANDWIDTH, record["flops"] / RATE)
        own = shares.get(record["kernel"].replace("-", "_"), share)
        one["stats"]["data"] = [floor / own] * 5
    content["benchmarks"] += ceilings(CPU, BANDWIDTH, RATE)
    path.write_text(json.dumps(content))
    return path


def only_view(path: Path) -> View:
    ((_, view),) = views(*concluded(path))
    return view


def marked(axes: Axes, style: dict[str, Any]) -> list[tuple[float, float]]:
    """Points drawn with a marker."""
    return [
        (float(x), float(y))
        for line in axes.lines
        if line.get_marker() == style["marker"] and line.get_linestyle() == "None"
        for x, y in np.column_stack([line.get_xdata(), line.get_ydata()])
    ]


def test_a_case_of_twice_its_roofline_floor_has_a_share_of_one_half(tmp_path: Path) -> None:
    path = at_share(tmp_path / "out.json", 0.5)
    summary, cases = concluded(path)
    for series in summary.series:
        assert series.floor_share == pytest.approx([0.5] * len(LENGTHS))
    cases = cases.query("subject == 'operator'")
    assert cases["floor_share"].to_numpy() == pytest.approx(0.5)
    assert cases["floor_s"].to_numpy() == pytest.approx(cases["median_s"].to_numpy(dtype=float) / 2)
    text = console(path)
    assert "50 %" in text and "Impossible" not in text


def test_bytes_set_the_floor_of_short_cases_and_flops_that_of_long_cases(tmp_path: Path) -> None:
    path = at_share(tmp_path / "out.json", 0.5)
    cases = concluded(path)[1].query("subject == 'operator'")
    intensity = cases["flops"].astype(float) / cases["min_bytes"].astype(float)
    expected = np.where(intensity < RATE / BANDWIDTH, "bytes", "flops")
    assert set(expected) == {"bytes", "flops"}
    assert cases["floor_bound"].tolist() == expected.tolist()
    assert "bytes to 16, then FLOPs" in console(path)


def test_a_case_at_its_floor_is_possible_and_a_faster_case_is_flagged_with_checks(tmp_path: Path) -> None:
    path = at_share(tmp_path / "out.json", 0.999, linear_chunked=1.25)
    warnings = concluded(path)[0].warnings
    (flag,) = [one for one in warnings if one.startswith("Impossible") and "causal" in one]
    assert "linear-chunked at N = 16, 256, 4096 (125 % of the floor)" in flag and "standard" not in flag
    (advice,) = [one for one in warnings if one.startswith("What to check")]
    for check in ("the clock", "cache", "asynchronous", "FLOP formula"):
        assert check in advice
    assert "125 % !" in console(path)


def test_an_impossible_case_is_crossed_out_in_every_picture(tmp_path: Path) -> None:
    for share, count in ((0.5, 0), (1.25, len(LENGTHS))):
        view = only_view(at_share(tmp_path / "out.json", 0.5, linear_chunked=share))
        for draw in (scaling_picture, theory_picture, speedup_picture, roofline_picture):
            figure = draw(view)
            assert figure is not None
            for axes in figure.axes:
                crosses = marked(axes, IMPOSSIBLE)
                assert len(crosses) >= count if count else not crosses
            entries = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
            words = " ".join(text.get_text() for one in entries if one for text in one.get_texts())
            assert ("impossible" in words) == bool(count)


@pytest.mark.parametrize(
    "other", [{"device": "cuda"}, {"device_name": "Other CPU"}, {"clock": "device"}, {"dtype": "float64"}]
)
def test_no_ceiling_of_another_device_clock_or_dtype_is_used(other: dict[str, str], tmp_path: Path) -> None:
    machine = replace(CPU, **other)  # type: ignore[arg-type]
    summary, cases = concluded(at_share(tmp_path / "out.json", 0.5, machine))
    assert all(share is None for series in summary.series for share in series.floor_share)
    assert cases["floor_s"].isna().all()
    (warning,) = [one for one in summary.warnings if "ceilings" in one]
    assert f"No ceilings of {machine.device} {machine.dtype}, {machine.clock} clock" in warning
    ((_, view),) = views(summary, cases)
    assert view.roof is None and roofline_picture(view) is None


def test_a_ceiling_is_the_median_over_units_of_the_fastest_size(tmp_path: Path) -> None:
    content = Run(LAWS, LENGTHS).content()
    content["benchmarks"] += ceilings(CPU, BANDWIDTH, RATE, spread=(1, 2, 4))
    slower = ceilings(CPU, BANDWIDTH / 3, RATE / 3)
    for one in slower:
        one["extra_info"]["key"] += "-small"
    content["benchmarks"] += slower
    path = tmp_path / "out.json"
    path.write_text(json.dumps(content))
    (ceiling,) = concluded(path)[0].ceilings
    assert replace(ceiling, bytes_per_s=None, flops_per_s=None) == Ceiling(
        device="cpu", device_name="Synthetic CPU", machine="", clock="wall", dtype="float32",
        bytes_per_s=None, flops_per_s=None,
    )  # fmt: skip
    for rate, most in ((ceiling.bytes_per_s, BANDWIDTH), (ceiling.flops_per_s, RATE)):
        assert rate is not None
        assert vars(rate) == pytest.approx({"value": most / 2, "low": most / 4, "high": most, "units": 3})
    assert "10.0 GB/s (5.00 to 20.0)" in console(path)


@pytest.mark.parametrize(("storage", "own", "expected"), [
    ("bfloat16", RATE / 8, RATE), ("float16", 4 * RATE, 4 * RATE), ("float64", RATE / 2, RATE / 2),
])  # fmt: skip
def test_the_matrix_ceiling_of_narrow_inputs_is_that_of_float32_where_faster(
    storage: str, own: float, expected: float, tmp_path: Path
) -> None:
    content = Run(LAWS, LENGTHS).content()
    content["benchmarks"] += ceilings(replace(CPU, dtype=storage), BANDWIDTH, own)
    content["benchmarks"] += ceilings(CPU, BANDWIDTH, RATE)
    path = tmp_path / "out.json"
    path.write_text(json.dumps(content))
    rates = {one.dtype: one.flops_per_s and one.flops_per_s.value for one in concluded(path)[0].ceilings}
    assert rates == pytest.approx({storage: expected, "float32": RATE})


def test_a_case_without_a_matrix_rate_has_no_floor_and_the_console_says_so(tmp_path: Path) -> None:
    content = Run(LAWS, LENGTHS).content()
    rows = ceilings(CPU, BANDWIDTH, RATE)
    content["benchmarks"] += [row for row in rows if row["extra_info"]["kernel"] == "ceiling-copy"]
    path = tmp_path / "out.json"
    path.write_text(json.dumps(content))
    summary = concluded(path)[0]
    assert summary.ceilings[0].flops_per_s is None
    assert all(share is None for series in summary.series for share in series.floor_share)
    assert "not measured" in console(path) and "No ceilings of cpu float32" in console(path)


def test_the_warning_of_missing_ceilings_says_how_to_measure_them(tmp_path: Path) -> None:
    path = Run(LAWS, LENGTHS).write(tmp_path / "out.json")
    (warning,) = [one for one in concluded(path)[0].warnings if "ceilings" in one]
    assert "roofline.png" in warning and "test_ceilings" in warning
    assert roofline_picture(only_view(path)) is None and "Share of the floor" not in console(path)


def test_ceilings_beside_the_kernels_change_no_other_conclusion(tmp_path: Path) -> None:
    alone, beside = Run(LAWS, LENGTHS).content(), Run(LAWS, LENGTHS).content()
    beside["benchmarks"] += ceilings(CPU, BANDWIDTH, RATE)
    summaries = []
    for name, content in (("alone", alone), ("beside", beside)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        summaries.append(concluded(path)[0])
    without, measured = (
        [
            replace(series, floor_share=[], floor_low_s=[], floor_high_s=[], floor_verdict=[])
            for series in summary.series
        ]
        for summary in summaries
    )
    assert without == measured
    assert summaries[0].crossovers == summaries[1].crossovers


def test_ceilings_alone_give_a_report_of_ceilings_without_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = Run({}).content()
    content["benchmarks"] = ceilings(CPU, BANDWIDTH, RATE)
    path = tmp_path / "out.json"
    path.write_text(json.dumps(content))
    assert main(["report", str(path), "-o", str(tmp_path / "report")]) == 0
    text = capsys.readouterr().out
    assert text.startswith("What the devices can do") and "Warnings\n--------\nNone." in text
    assert "20.0 GB/s" in text and "150 GFLOP/s" in text
    assert not list((tmp_path / "report").glob("*.png"))


def test_a_ceiling_that_was_left_out_is_named_without_a_length(tmp_path: Path) -> None:
    content = Run(LAWS, LENGTHS, not_measured=[("linear-chunked", "causal", 8192, "oom", "full")]).content()
    gone = {**content["not_measured"][0], "kernel": "ceiling-copy", "subject": "ceiling", "reason": "too big"}
    content["not_measured"].append(gone)
    path = tmp_path / "out.json"
    path.write_text(json.dumps(content))
    text = console(path)
    assert "ceiling-copy, Synthetic CPU (cpu), float32 (OOM): too big." in text
    assert "linear-chunked, causal forward, N = 8192 (OOM): full.\n" in text


def test_a_point_of_the_roofline_lies_below_the_roof_by_its_share(tmp_path: Path) -> None:
    figure = roofline_picture(only_view(at_share(tmp_path / "out.json", 0.5)))
    assert figure is not None
    for axes in figure.axes:
        assert axes.get_xscale() == axes.get_yscale() == "log"
        roof, *kernels = axes.lines
        assert max(np.asarray(roof.get_ydata(), dtype=float)) == pytest.approx(RATE)
        points = [
            np.asarray(data, dtype=float)
            for line in kernels
            if line.get_marker() != IMPOSSIBLE["marker"]
            for data in [line.get_xydata()]
        ]
        assert len(points) == 3
        for x, y in np.vstack(points):
            assert y == pytest.approx(0.5 * min(BANDWIDTH * x, RATE))
        names = {text.get_text() for text in axes.texts}
        assert {"16", "4k"} <= names and any("GB/s" in name for name in names)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_no_length_label_of_the_roofline_stands_above_the_roof(share: float, tmp_path: Path) -> None:
    figure = roofline_picture(only_view(at_share(tmp_path / "out.json", share)))
    assert figure is not None
    figure.canvas.draw()
    named = {wording.length(length) for length in LENGTHS}
    for axes in figure.axes:
        names = [text for text in axes.texts if text.get_text() in named]
        assert names
        for text in names:
            box = text.get_window_extent()
            x, y = axes.transData.inverted().transform([box.x0, box.y1])
            assert y < min(BANDWIDTH * x, RATE)


def test_the_memory_picture_marks_predicted_peaks_and_keeps_equal_curves_visible(tmp_path: Path) -> None:
    path = at_share(tmp_path / "out.json", 0.5)
    content = json.loads(path.read_text())
    for one in content["benchmarks"]:
        if one["extra_info"]["kernel"] == "standard-explicit":
            one["extra_info"]["predicted_peak_bytes"] *= 2
    path.write_text(json.dumps(content))
    figure = memory_picture(only_view(path))
    assert figure is not None
    for axes in figure.axes:
        lines = [line for line in axes.lines if line.get_linestyle() != "None"]
        curves = [line for line in lines if np.size(line.get_xdata()) == len(LENGTHS)]
        explicit, sdpa, chunked = (np.asarray(line.get_ydata(), dtype=float) for line in curves)
        assert set(marked(axes, THEORY)) >= set(zip(LENGTHS, 2 * explicit, strict=True))
        assert sdpa == pytest.approx(chunked)
        assert curves[1].get_linewidth() > curves[2].get_linewidth() == curves[0].get_linewidth()


def test_a_run_without_peak_memory_has_no_memory_picture(tmp_path: Path) -> None:
    content = Run(LAWS, LENGTHS).content()
    for one in content["benchmarks"]:
        one["extra_info"]["peak_bytes"] = None
    path = tmp_path / "out.json"
    path.write_text(json.dumps(content))
    assert memory_picture(only_view(path)) is None
