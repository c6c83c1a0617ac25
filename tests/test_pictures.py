"""Pictures of a report: labels, ticks, titles, file names and error bars."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from scipy import stats

from benchmarks.analysis.plots.looks import CHOSEN
from benchmarks.analysis.plots.style import length_axis
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.report.cases import case_table
from benchmarks.analysis.report.pictures.memory import memory_picture
from benchmarks.analysis.report.pictures.roofline import roofline_picture
from benchmarks.analysis.report.pictures.scaling import scaling_picture
from benchmarks.analysis.report.pictures.speedup import speedup_picture
from benchmarks.analysis.report.pictures.theory import theory_picture
from benchmarks.analysis.report.pictures.views import View, views
from benchmarks.analysis.report.summary import summarise
from benchmarks.analysis.scaling.units import unit_table
from tests.synthetic import Law, Machine, Noise, Run, ceilings, write_together

MODES = ("bidirectional", "causal")
NOISE = Noise(0.01, 0.01, 0.02)


KERNELS = tuple(CHOSEN)
LONG = tuple(2**power for power in range(8, 18))


def crowded() -> Run:
    """Kernels with a chosen look over ten lengths, some close to each other, with lines that end early."""
    laws: dict[tuple[str, str], Law] = {}
    not_measured = []
    for mode in MODES:
        for index, kernel in enumerate(KERNELS):
            standard = kernel.startswith("standard")
            law = Law(1.2e-11 * 1.3**index, 2, 2e-5) if standard else Law(1e-9 * 1.5**index, 1, 2e-4)
            laws[kernel, mode] = law
            if standard:
                outcome = "oom" if index % 2 else "over_time"
                not_measured += [
                    (kernel, mode, length, outcome, "too much") for length in LONG[-2 - index // 3 :]
                ]
    machine = Machine("cuda", "NVIDIA H200", "bfloat16", "device", 4)
    return Run(laws, LONG, noise=NOISE, machine=machine, not_measured=not_measured)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    """The one view of the crowded run."""
    run = crowded()
    path = tmp_path_factory.mktemp("crowded") / "out.json"
    records = load([write_together(path, [run], ceilings(run.machine, 4.27e12, 7.4e14))])
    ((suffix, view),) = views(summarise(records), case_table(records))
    assert suffix == ""
    return view


@pytest.mark.parametrize(
    "draw", [scaling_picture, speedup_picture, theory_picture, memory_picture, roofline_picture]
)
def test_no_two_labels_of_a_crowded_report_picture_overlap(draw: Any, view: View) -> None:
    figure = draw(view)
    figure.canvas.draw()
    assert len(figure.axes) == 2
    for axes in figure.axes:
        labels = [text for text in axes.texts if isinstance(text, Annotation) and text.get_text()]
        assert len(labels) >= 1
        boxes = [label.get_window_extent() for label in labels]
        for index, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[index + 1 :])
        ticks = [tick.get_window_extent() for tick in axes.get_xticklabels() if tick.get_text()]
        assert all(left.x1 < right.x0 for left, right in pairwise(ticks))


def test_a_picture_of_many_lengths_has_fewer_ticks_and_keeps_the_longest() -> None:
    axes = Figure(figsize=(6, 4)).subplots()
    length_axis(axes, range(256, 8192 + 1, 256))
    ticks = list(axes.get_xticks())
    assert ticks[-1] == 8192 and 5 <= len(ticks) <= 12
    assert min(right / left for left, right in pairwise(ticks)) >= 2 ** (5 / 11)


def test_picture_titles_name_device_and_dtype_and_axes_name_units(view: View) -> None:
    figure = scaling_picture(view)
    titles = " ".join(text.get_text() for text in figure.texts)
    assert "NVIDIA H200" in titles and "bfloat16" in titles
    assert "tokens" in figure.axes[0].get_xlabel() and "time" in figure.axes[0].get_ylabel()
    figure.canvas.draw()
    assert any(tick.get_text().endswith(" ms") for tick in figure.axes[0].get_yticklabels())


def test_pictures_of_the_most_measured_forward_setting_have_file_names_without_a_suffix(
    tmp_path: Path,
) -> None:
    laws = {("standard-sdpa", "causal"): Law(1e-8, 2), ("linear-chunked", "causal"): Law(1e-6, 1)}
    cuda = Machine("cuda", "GPU", "bfloat16", "device", 4)
    runs = [
        Run(laws, LONG, machine=cuda, phase="forward_backward"),
        Run(laws, LONG[:4], machine=cuda),
        Run(laws, LONG[:3]),
    ]
    records = load([run.write(tmp_path / f"{index}.json") for index, run in enumerate(runs)])
    found = [(suffix, view.setting.device, view.setting.phase)
             for suffix, view in views(summarise(records), case_table(records))]  # fmt: skip
    assert found == [
        ("", "cuda", "forward"),
        ("-cpu", "cpu", "forward"),
        ("-cuda-forward_backward", "cuda", "forward_backward"),
    ]


@pytest.mark.parametrize("units", [1, 3])
def test_error_bars_of_a_picture_are_the_interval_over_units_and_the_axis_says_so(
    units: int, tmp_path: Path
) -> None:
    """Error bars are never the spread of the rounds of a unit, which are not independent."""
    laws = {("standard-sdpa", "causal"): Law(1e-8, 2)}
    records = load([Run(laws, LONG[:3], units, noise=NOISE).write(tmp_path / "out.json")])
    ((_, view),) = views(summarise(records), case_table(records))
    axes = scaling_picture(view).axes[0]
    words = "bars: 95 % interval over 3 repetitions" if units > 1 else "no bars: a single repetition"
    assert words in axes.get_ylabel()
    (bars,) = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
    segments = [segment for segment in bars.lines[2][0].get_segments() if np.size(segment)]
    if units == 1:
        assert not segments
        return
    drawn = np.array([segment[:, 1] for segment in segments])
    logs = np.log(unit_table(records.rows).to_numpy())
    intervals = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    assert drawn == pytest.approx(np.exp(np.column_stack([intervals.low, intervals.high])), rel=1e-9)
