"""Verdicts of the floor: what is impossible, what is at its floor, and how often either is wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.analysis.document import as_text
from benchmarks.analysis.plots.style import AT_FLOOR, IMPOSSIBLE
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.report.cases import case_table
from benchmarks.analysis.report.floors import ASSUMED, AT, EXPECTED_RANGE, judge, reach
from benchmarks.analysis.report.pictures.layers import layer_views
from benchmarks.analysis.report.pictures.profiling import profiling_picture
from benchmarks.analysis.report.pictures.roofline import roofline_picture
from benchmarks.analysis.report.pictures.scaling import scaling_picture
from benchmarks.analysis.report.pictures.speedup import speedup_picture
from benchmarks.analysis.report.pictures.theory import theory_picture
from benchmarks.analysis.report.pictures.views import views
from benchmarks.analysis.report.summary import summarise
from benchmarks.analysis.report.text import sections
from tests.noise import NOISES, Floats, Unrest, draw_files, draw_tables
from tests.synthetic import Law, Machine, Run, ceilings

BANDWIDTH, RATE = 2e10, 241e9
FASTEST = 288 / 241
"""The fastest unit of a ceiling over its median: 194 to 288 GFLOP/s around 241, as two shared cores read."""
RESTLESS = (1 / FASTEST, 1.0, 241 / 194)
KERNELS = ("standard-sdpa", "linear-chunked")
LENGTHS = (64, 512, 4096)


def run(
    units: Mapping[str, Sequence[float]],
    spread: Sequence[float] = RESTLESS,
    machine: Machine = Machine(),  # noqa: B008
    subject: str = "operator",
) -> dict[str, Any]:
    """Content of a run by the share of the floor that each repetition of a kernel has; others have half."""
    laws = {(kernel, "causal"): Law(1e-3, 0) for kernel in KERNELS}
    content = Run(laws, LENGTHS, machine=machine, subject=subject, theory=True).content()
    for one in content["benchmarks"]:
        record = one["extra_info"]
        floor = max(record["min_bytes"] / BANDWIDTH, record["flops"] / RATE)
        shares = units.get(record["kernel"], [0.5] * 3)
        one["stats"]["data"] = [floor / shares[record["repetition"] - 1]] * 5
    content["benchmarks"] += ceilings(machine, BANDWIDTH, RATE, spread)
    return content


def save(folder: Path, *contents: Mapping[str, Any]) -> list[Path]:
    paths = [folder / f"run-{index}.json" for index in range(len(contents))]
    for index, (path, content) in enumerate(zip(paths, contents, strict=True)):
        # No two runs are the same to the last byte, and the report refuses such files.
        path.write_text(json.dumps({**content, "run": {**content["run"], "seed": index}}))
    return paths


def verdicts(paths: Sequence[Path], kernel: str = "linear-chunked") -> list[str | None]:
    (series,) = [one for one in summarise(load(paths)).series if one.kernel == kernel]
    return list(series.floor_verdict)


def console(paths: Sequence[Path]) -> str:
    records = load(paths)
    return as_text(sections(summarise(records), case_table(records)))


def test_a_case_above_the_median_of_a_restless_ceiling_is_at_its_floor_and_not_impossible(
    tmp_path: Path,
) -> None:
    paths = save(tmp_path, run({"linear-chunked": [1.1, 1.1, 1.1]}))
    assert verdicts(paths) == [AT] * 3 and verdicts(paths, "standard-sdpa") == ["above"] * 3
    text = " ".join(console(paths).split())
    assert "110 % ~" in text and "at the floor within the noise" in text
    assert "241 GFLOP/s (194 to 288)" in text.partition("at the floor")[2]
    assert "Impossible" not in text and " !" not in text


@pytest.mark.parametrize(
    ("beyond", "expected"), [(1.04, AT), (1.049, AT), (1.051, "impossible"), (1.3, "impossible")]
)
def test_only_what_beats_the_fastest_unit_of_the_ceiling_by_5_percent_is_impossible(
    beyond: float, expected: str, tmp_path: Path
) -> None:
    share = FASTEST * beyond
    assert verdicts(save(tmp_path, run({"linear-chunked": [share] * 3}))) == [expected] * 3


def test_a_case_left_out_changes_no_verdict(tmp_path: Path) -> None:
    content = run({"linear-chunked": [1.1] * 3})
    gone = [("standard-sdpa", "causal", 2**20, "over_memory", "too large")]
    content["not_measured"] = Run({}, not_measured=gone).content()["not_measured"]
    assert verdicts(save(tmp_path, content)) == [AT] * 3


def test_a_single_unit_within_the_ceilings_makes_a_case_possible(tmp_path: Path) -> None:
    far = 2 * FASTEST
    assert verdicts(save(tmp_path, run({"linear-chunked": [far, far, 1.0]}))) == [AT] * 3
    assert verdicts(save(tmp_path, run({"linear-chunked": [far, far, far]}))) == ["impossible"] * 3


def test_runs_are_the_units_where_several_files_are_pooled(tmp_path: Path) -> None:
    """One fast repetition of the ceilings is within its run; one fast run is a unit of its own."""
    wrong, slow = {"linear-chunked": [1.2] * 3}, [1.0, 1.0, 1.0]
    slowly, fast = run(wrong, slow), run(wrong, [0.7, 0.7, 0.7])
    stray = run(wrong, [0.7, 1.0, 1.0])
    assert verdicts(save(tmp_path, slowly, slowly, stray)) == ["impossible"] * 3
    assert verdicts(save(tmp_path, slowly, slowly, fast)) == [AT] * 3
    assert verdicts(save(tmp_path, stray)) == [AT] * 3


def test_ceilings_of_one_file_judge_the_cases_of_all(tmp_path: Path) -> None:
    """The ceilings' units are then repetitions, and the cases' are runs."""
    first, second = run({"linear-chunked": [1.4] * 3}), run({"linear-chunked": [1.4] * 3})
    second["benchmarks"] = [one for one in second["benchmarks"] if one["extra_info"]["family"] != "ceiling"]
    assert verdicts(save(tmp_path, first, second)) == ["impossible"] * 3
    for one in second["benchmarks"]:
        one["stats"]["data"] = [1.3 * second for second in one["stats"]["data"]]
    assert verdicts(save(tmp_path, first, second)) == [AT] * 3


@pytest.mark.parametrize(("beyond", "expected"), [(1.2, AT), (1.6, AT), (1.7, "impossible")])
def test_a_single_unit_is_taken_to_be_as_noisy_as_on_a_shared_machine(
    beyond: float, expected: str, tmp_path: Path
) -> None:
    """The ends of six units that scatter by 18 % lie a factor of 1.58 nearer, and 5 % are the margin."""
    content = run({"linear-chunked": [beyond] * 3}, [1.0])
    rows = content["benchmarks"]
    content["benchmarks"] = [one for one in rows if one["extra_info"]["repetition"] == 1]
    assert verdicts(save(tmp_path, content)) == [expected] * 3


def test_the_noise_of_other_cases_widens_the_ends_of_few_units(tmp_path: Path) -> None:
    """Three units of a steady case may be steady by chance."""
    wrong, steady = {"linear-chunked": [1.15] * 3}, [1.0] * 3
    assert verdicts(save(tmp_path, run(wrong, steady))) == ["impossible"] * 3
    restless = run({**wrong, "standard-sdpa": [0.4, 0.5, 0.6]}, steady)
    assert verdicts(save(tmp_path, restless)) == [AT] * 3


def test_the_fastest_unit_of_any_size_of_a_ceiling_counts(tmp_path: Path) -> None:
    content = run({"linear-chunked": [1.2] * 3}, [1.0] * 3)
    assert verdicts(save(tmp_path, content)) == ["impossible"] * 3
    other = ceilings(Machine(), BANDWIDTH, RATE, [1 / 1.3, 2.0, 2.0])
    for one in other:
        one["extra_info"]["key"] += "-small"
    content["benchmarks"] += other
    assert verdicts(save(tmp_path, content)) == [AT] * 3


@pytest.mark.parametrize(
    ("share", "cross", "ring", "where"),
    [(0.9, 0, 0, "cpu"), (1.1, 0, 1, "cpu"), (1.1, 0, 1, "cuda"), (1.6, 1, 0, "cuda")],
)
def test_pictures_mark_cases_by_the_same_verdict(
    share: float, cross: int, ring: int, where: str, tmp_path: Path
) -> None:
    machine = Machine(where, clock="device" if where == "cuda" else "wall")
    units = {"linear-chunked": [share] * 3}
    cases = case_table(load(save(tmp_path, run(units, machine=machine, subject="layer"))))
    ((_, layer),) = layer_views(cases)
    records = load(save(tmp_path, run(units, machine=machine)))
    ((_, view),) = views(summarise(records), case_table(records))
    figures = [draw(view) for draw in (scaling_picture, theory_picture, speedup_picture, roofline_picture)]
    for figure in (*figures, profiling_picture(layer)):
        assert figure is not None
        lines = [line for axes in figure.axes for line in axes.lines]
        for style, count in ((IMPOSSIBLE, cross), (AT_FLOOR, ring)):
            same = [
                line
                for line in lines
                if (line.get_marker(), line.get_markersize()) == (style["marker"], style["markersize"])
            ]
            assert bool(same) == bool(count)
        entries = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
        words = " ".join(text.get_text() for one in entries if one for text in one.get_texts())
        assert ("impossible" in words) == bool(cross) and ("within the noise" in words) == bool(ring)


def test_the_roofline_shades_what_lies_above_the_fastest_units(tmp_path: Path) -> None:
    records = load(save(tmp_path, run({"linear-chunked": [1.1] * 3})))
    ((_, view),) = views(summarise(records), case_table(records))
    figure = roofline_picture(view)
    assert figure is not None
    for axes in figure.axes:
        (shade,) = axes.collections
        (path,) = shade.get_paths()
        roof, vertices = axes.lines[0], np.asarray(path.vertices)
        right = vertices[vertices[:, 0] == vertices[:, 0].max()]
        assert right[:, 1].min() == pytest.approx(RATE * FASTEST)
        assert np.max(np.asarray(roof.get_ydata(), dtype=float)) == pytest.approx(RATE)


@pytest.mark.usefixtures("without_pictures")
def test_summary_and_csv_hold_the_verdict_and_the_range_of_the_floor(tmp_path: Path) -> None:
    paths = save(tmp_path, run({"linear-chunked": [1.1] * 3}))
    assert main(["report", str(paths[0]), "-o", str(tmp_path / "report")]) == 0
    with (tmp_path / "report/complexity_analysis.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kernel"] == "linear-chunked"]
    summary = json.loads((tmp_path / "report/summary.json").read_text())
    (series,) = [one for one in summary["series"] if one["kernel"] == "linear-chunked"]
    for name in ("floor_low_s", "floor_high_s", "floor_share"):
        assert [float(row[name]) for row in rows] == pytest.approx(series[name])
    assert [row["floor_verdict"] for row in rows] == series["floor_verdict"] == [AT] * 3
    for row in rows:
        floor, low, high = (float(row[name]) for name in ("floor_s", "floor_low_s", "floor_high_s"))
        assert (low, high) == pytest.approx((floor / FASTEST, floor * 241 / 194))
    assert "at the floor within the noise" in (tmp_path / "report/summary.md").read_text()


# How often a verdict is right

CASES = 64
AT_THE_FLOOR = np.geomspace(0.05, 1, CASES)
"""Shares of the floor that the cases of a report truly have: two of them above 0.95."""
SINGLE = "1 repetition"
SHAPES = {
    SINGLE: (1, 1),
    "3 repetitions": (1, 3),
    "6 repetitions": (1, 6),
    "3 runs": (3, 3),
    "6 runs of one repetition": (6, 1),
}
RESTLESS_NOISES = (
    "slices 18 % apart, rounds 10 %",
    "clock states 15 % apart, for 12 s",
    "clock states 15 % apart, for a run",
)


def flags(noise: Unrest, units: int, repetitions: int, *, speed: float, draws: int) -> tuple[Floats, Floats]:
    """The shares of reports with a flag, by the medians alone and by the verdict.

    The first two cases are the ceilings, measured among the others and in states of their own.
    """
    truth = 0.01 * np.concatenate([[1, 1], 1 / AT_THE_FLOOR / speed])[:, None]
    size: dict[str, Any] = {"draws": draws, "repetitions": repetitions, "seed": 7}
    table = draw_files(truth, noise, **size) if units == 1 else draw_tables(truth, noise, units=units, **size)
    seconds = table[..., 0]
    ceiling, cases = seconds[:2][np.arange(CASES) % 2], seconds[2:]
    floor, median = np.median(ceiling, axis=-1), np.median(cases, axis=-1)
    count = seconds.shape[-1]
    ranges = np.median(np.log(cases.max(axis=-1) / cases.min(axis=-1)), axis=0)
    deviation = ranges / EXPECTED_RANGE[count] if count > 1 else np.full(draws, ASSUMED)
    few = 2 * reach(count) * deviation
    found = judge(floor, ceiling.min(axis=-1), median, cases.max(axis=-1), few)
    return (median < floor).any(axis=0).mean(), (found == "impossible").any(axis=0).mean()


def rates(noise: str, draws: int) -> dict[str, tuple[float, float, float]]:
    """False flags by medians, false flags, and flags of a clock twice too fast, by the shape of a report."""
    found = {}
    for shape, (units, repetitions) in SHAPES.items():
        old, false = flags(NOISES[noise], units, repetitions, speed=1, draws=draws)
        _, caught = flags(NOISES[noise], units, repetitions, speed=2, draws=draws)
        found[shape] = float(old), float(false), float(caught)
    cells = " | ".join(f"{old:.1%}, {false:.1%}, {caught:.1%}" for old, false, caught in found.values())
    print(f"\n| {noise} | {cells} |")
    return found


def _most(shape: str, noise: str, draws: int) -> float:
    """The promise, and chance: a single unit cannot show that its machine is as restless as shared ones."""
    promise = 0.1 if (shape, noise) == (SINGLE, RESTLESS_NOISES[0]) else 0.01
    return float(promise + 3 * np.sqrt(promise * (1 - promise) / draws))


@pytest.mark.parametrize("noise", RESTLESS_NOISES)
def test_a_report_of_a_restless_machine_is_rarely_called_impossible_and_a_fast_clock_nearly_always(
    noise: str,
) -> None:
    for shape, (old, false, caught) in rates(noise, draws=400).items():
        assert old > 0.37, shape
        assert false <= _most(shape, noise, 400), shape
        assert caught >= 0.95, shape


@pytest.mark.table
@pytest.mark.parametrize("noise", NOISES)
def test_a_false_flag_is_rarer_than_1_percent_of_reports_in_every_noise(noise: str) -> None:
    for shape, (_, false, caught) in rates(noise, draws=3000).items():
        assert false <= _most(shape, noise, 3000), shape
        assert caught >= 0.95, shape
