"""The look of a kernel (colour, marker, line), which follows from its name in every picture."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from benchmarks.analysis.history.picture import MOVED_INK
from benchmarks.analysis.plots.looks import ALSO_CHOSEN, CHOSEN, OTHERS, OWN, PALETTES, look, looks
from benchmarks.analysis.plots.style import (
    ALIKE_INK,
    BETTER_INK,
    INK,
    MUTED,
    UNDECIDED_INK,
    WORSE_INK,
    legend_below,
    legend_handle,
)
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.report.cases import case_table
from benchmarks.analysis.report.pictures.layers import layer_views
from benchmarks.analysis.report.pictures.memory import memory_picture
from benchmarks.analysis.report.pictures.profiling import profiling_picture
from benchmarks.analysis.report.pictures.roofline import roofline_picture
from benchmarks.analysis.report.pictures.scaling import scaling_picture
from benchmarks.analysis.report.pictures.speedup import speedup_picture
from benchmarks.analysis.report.pictures.theory import theory_picture
from benchmarks.analysis.report.pictures.views import views
from benchmarks.analysis.report.summary import summarise
from tests.synthetic import Law, Machine, Run, ceilings, write_together

UNKNOWN = [
    f"{family}-{name}"
    for family in ("standard", "linear")
    for name in (
        "native", "flex", "xformers", "tilelang", "ring", "paged", "decode", "cutlass", "jit", "compiled",
        "gluon", "metal", "cublas", "blocked", "sliding", "sparse", "fp8", "mine", "mine-2", "new", "rff",
        "recurrent", "cumsum", "decay", "gated",
    )
]  # fmt: skip
"""Fifty plausible names without a chosen look."""
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
EYES = {
    "normal": np.eye(3),
    "protanopic": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopic": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
}  # fmt: skip
"""Linear RGB as colour-blind eyes see it: Machado, Oliveira and Fernandes 2009, severity 1."""


def lab(color: str, eyes: str) -> np.ndarray:
    """The CIELAB coordinates of a colour as seen by these eyes."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(EYES[eyes]) @ linear, 0, 1)
    x, y, z = np.cbrt(np.maximum(TO_XYZ @ seen / [0.9505, 1, 1.089], 1e-6))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_no_two_chosen_looks_share_a_colour_or_a_marker() -> None:
    for first, second in combinations(CHOSEN.values(), 2):
        assert first.color != second.color and first.marker != second.marker


@pytest.mark.parametrize("eyes", EYES)
def test_chosen_colours_are_told_apart_by_colour_blind_readers(eyes: str) -> None:
    seen = [lab(one.color, eyes) for one in CHOSEN.values()]
    assert min(float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2)) > 13


def test_no_hashed_look_has_the_colour_of_a_chosen_one_another_family_or_a_verdict() -> None:
    colors = [color for palette in (*PALETTES.values(), OTHERS) for color in palette.colors]
    colors += [one.color for one in CHOSEN.values()]
    colors += [WORSE_INK, BETTER_INK, UNDECIDED_INK, ALIKE_INK, MOVED_INK, INK, MUTED]
    assert len(set(map(str.lower, colors))) == len(colors)


def test_few_of_fifty_unknown_kernels_share_a_look() -> None:
    pairs = list(combinations(map(look, UNKNOWN), 2))
    assert sum(first == second for first, second in pairs) <= 2
    assert (
        sum(first.drawn | {"linestyle": ""} == second.drawn | {"linestyle": ""} for first, second in pairs)
        <= 6
    )


def test_kernels_of_a_family_share_a_palette_and_its_line_styles() -> None:
    for family, palette in PALETTES.items():
        for kernel in (*CHOSEN, *UNKNOWN):
            if kernel.startswith(family):
                assert look(kernel).line in palette.lines
    assert not set(PALETTES["standard"].lines) & {*PALETTES["linear"].lines, *OTHERS.lines}
    assert look("mine").color in OTHERS.colors


@pytest.mark.parametrize("eyes", EYES)
def test_colours_of_the_other_kernels_and_of_a_user_s_own_are_told_apart_from_all_chosen_ones(
    eyes: str,
) -> None:
    every = [*CHOSEN.values(), *ALSO_CHOSEN.values(), *OWN]
    seen = [lab(one.color, eyes) for one in every]
    assert min(float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2)) > 12


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_look_of_an_unknown_kernel_is_the_same_in_every_process(seed: str) -> None:
    command = "from benchmarks.analysis.plots.looks import look; print(look('linear-new'))"
    process = subprocess.run(
        [sys.executable, "-c", command], env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert process.stdout.strip() == str(look("linear-new"))


def test_the_look_of_a_kernel_does_not_depend_on_other_kernels() -> None:
    together = looks([*CHOSEN, *UNKNOWN])
    assert set(together) == {*CHOSEN, *UNKNOWN}
    for kernel, one in together.items():
        assert looks([kernel]) == {kernel: one} and look(kernel) == one


def legends(figure: Figure) -> dict[str, tuple[str, str]]:
    """Colour and marker of each entry of the legends, by the kernel that it names."""
    found = {}
    for legend in [*figure.legends, *(axes.get_legend() for axes in figure.axes)]:
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True) if legend else ():
            kernel = text.get_text().removeprefix("over ").partition(":")[0]
            color, marker = getattr(handle, "get_color", None), getattr(handle, "get_marker", None)
            if color and marker and kernel.startswith(("standard-", "linear-")):
                found[kernel] = (to_hex(color()).upper(), str(marker()))
    return found


def test_the_look_of_a_kernel_is_the_same_in_every_picture_of_a_report(tmp_path: Path) -> None:
    """Looks agree between pictures though the layer was measured with fewer kernels than the operator."""
    laws = {
        (kernel, "causal"): Law(1e-11, 2) if kernel.startswith("standard") else Law(1e-9, 1)
        for kernel in (
            "standard-explicit",
            "standard-a",
            "standard-b",
            "linear-a",
            "linear-b",
            "linear-native",
        )
    }
    fewer = {key: law for key, law in laws.items() if key[0] in ("standard-explicit", "linear-b")}
    run = Run(laws, (256, 1024, 4096, 16384), theory=True)
    layer = Run(fewer, (256, 1024), subject="layer", theory=True)
    path = write_together(tmp_path / "out.json", [run, layer], ceilings(Machine(), 2e10, 1.5e11))
    records = load([path])
    cases = case_table(records)
    ((_, view),) = views(summarise(records), cases)
    ((_, layers),) = layer_views(cases)
    draw: list[Any] = [scaling_picture, theory_picture, speedup_picture, memory_picture, roofline_picture]
    for figure in [*(one(view) for one in draw), profiling_picture(layers)]:
        shown = legends(figure)
        assert len(shown) >= 2
        assert shown == {kernel: (look(kernel).color.upper(), look(kernel).marker) for kernel in shown}


@pytest.mark.parametrize("letters", [5, 40, 70])
def test_a_legend_of_long_names_is_no_wider_than_its_figure(letters: int) -> None:
    figure = Figure(figsize=(12, 6), layout="constrained")
    figure.subplots()
    names = {f"{index} {'x' * letters}": legend_handle(look("linear-chunked")) for index in range(5)}
    legend_below(figure, names)
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert [text.get_text() for text in legend.get_texts()] == list(names)
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y0 >= figure.bbox.y0
