"""The two experiments that the field teaches with, `--grid seed`, and what a report of them adds."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation

from attention import Case
from attention.modules import self_attention_costs
from attention.profiler.clock import warm_up
from benchmarks.analysis import wording
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.report.cases import case_table
from benchmarks.analysis.report.pictures.layers import layer_views
from benchmarks.analysis.report.pictures.profiling import profiling_picture
from benchmarks.analysis.report.pictures.speedup import speedup_picture
from benchmarks.analysis.report.pictures.theory import theory_picture
from benchmarks.analysis.report.pictures.views import View, views
from benchmarks.analysis.report.summary import summarise
from benchmarks.analysis.report.wide import wide_tables
from benchmarks.grid import build_cases, build_layer_cases
from benchmarks.ledger import Ledger
from benchmarks.measure import Measurer
from benchmarks.options import fixed_rounds
from benchmarks.selection import PRESETS, Selection, doublings
from tests.sessions import rows, run
from tests.synthetic import Law, Machine, Noise, Run, write_together

SEED, MODES = PRESETS["seed"], ("bidirectional", "causal")
LAWS = {
    **{("standard-explicit", mode): Law(4e-8, 2) for mode in MODES},
    ("linear-explicit", "bidirectional"): Law(2e-5, 1, 1e-2),
    ("linear-explicit", "causal"): Law(6e-4, 1),
}
GONE = ("standard-explicit", "causal", 8192, "over_time", "predicted to take 5.2 s a round")
LAYER = Run({("standard-explicit", "bidirectional"): Law(6e-8, 2)}, (10, 100, 1000), subject="layer")
LONGEST = Case("standard-explicit", "bidirectional", 10000, subject="layer")


def points_of(axes: Axes) -> list[list[list[float]]]:
    """The points of each line that has any."""
    found = [np.asarray(line.get_xydata(), dtype=float).tolist() for line in axes.lines]
    return [points for points in found if points]


# The grid and its rounds


@pytest.mark.parametrize(("where", "longest"), [("cpu", 8192), ("cuda", 32768)])
def test_the_grid_seed_holds_both_experiments_and_nothing_else(where: str, longest: int) -> None:
    selection = Selection(SEED, [where])
    assert set(build_cases(selection)) == {
        Case(f"{family}-explicit", mode, n, device=where, dtype="float32", batch=4, heads=8, head_dim=64)
        for family in ("standard", "linear")
        for mode in MODES
        for n in doublings(256, longest)
    }
    assert build_layer_cases(selection) == [
        replace(LONGEST, seq_len=n, device=where, dtype="float32", batch=1, heads=8, head_dim=64)
        for n in (10, 100, 1000, 10000)
    ]


@pytest.mark.parametrize(
    ("given", "rounds"),
    [({}, 10), ({"rounds": 7}, 7), ({"case_seconds": 1.0}, None), ({"rounds": 7, "case_seconds": 1.0}, 7)],
)
def test_given_rounds_come_before_given_seconds_and_these_before_the_grid(
    given: dict[str, Any], rounds: int | None
) -> None:
    options = {"layer_rounds": 20, **given}
    config: Any = SimpleNamespace(getoption=options.get)
    assert fixed_rounds(config, SEED, SEED.repetitions).get("operator") == rounds
    assert fixed_rounds(config, PRESETS["default"], 6).get("operator") == given.get("rounds")


@pytest.mark.parametrize(("repetitions", "asked"), [(1, 10), (3, 10), (3, 20), (6, 7)])
def test_given_rounds_are_spread_over_the_repetitions_without_a_rest(repetitions: int, asked: int) -> None:
    ledger = Ledger([])
    measurer = Measurer(ledger, "wall", repetitions, {"operator": asked}, None, 0.3, 2.0)
    case = Case("linear-explicit", "causal", 64)
    spread = [measurer.planned_rounds(case, 9.0, repetition + 1) for repetition in range(repetitions)]
    assert sum(spread) == asked and max(spread) - min(spread) <= 1


@pytest.mark.parametrize("asked", [1, 3, 5])
def test_a_call_is_warmed_up_as_often_as_asked(asked: int) -> None:
    calls: list[None] = []
    warm_up(lambda: calls.append(None), "cpu", "wall", asked)
    assert len(calls) == asked


@pytest.mark.slow
def test_a_session_of_the_grid_seed_counts_10_rounds_of_the_operator_and_20_of_the_layer(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out.json"
    options = ("--grid=seed", "--device=cpu", "--seq-len=8,16", f"--benchmark-json={out}")
    run(*options, files=("benchmarks/test_attention.py", "benchmarks/test_self_attention.py"))
    document = json.loads(out.read_text())
    counted: Counter[tuple[str, str]] = Counter()
    for record, benchmark in zip(rows(document), document["benchmarks"], strict=True):
        counted[record["subject"], record["key"]] += len(benchmark["stats"]["data"])
    assert len(counted) == 2 * 2 * 2 + 2 and document["not_measured"] == []
    assert all(found == {"operator": 10, "layer": 20}[subject] for (subject, _), found in counted.items())
    assert (document["run"]["rounds"], document["run"]["warmup"]) == (10, 3)


# What theory knows of what was left out


def test_a_case_left_out_keeps_its_flops_and_bytes_in_theory() -> None:
    ledger = Ledger([LONGEST, replace(LONGEST, seq_len=1000)])
    ledger.learn_seconds(replace(LONGEST, seq_len=1000), 1.0)
    assert ledger.refuse(LONGEST, round_seconds=1e-3)
    (row,) = ledger.not_measured()
    costs = self_attention_costs(LONGEST)
    assert row["outcome"] in ("over_time", "over_memory") and row["flops"] == costs.flops
    assert (row["min_bytes"], row["predicted_peak_bytes"]) == (costs.min_bytes, costs.peak_bytes)


def layer_with_theory(tmp_path: Path, **changes: Any) -> Path:
    """A layer whose longest length was left out on the CPU, and measured on a synthetic GPU."""
    costs = self_attention_costs(LONGEST)
    gpu = replace(LAYER, lengths=(10, 100, 1000, 10000), machine=Machine("cuda", "A GPU", clock="device"))
    gone = ("standard-explicit", "bidirectional", 10000, "over_time", "predicted to take 7.0 s a round")
    path = write_together(
        tmp_path / "out.json", [replace(LAYER, lengths=(10, 100, 1000, 10000), not_measured=[gone]), gpu]
    )
    content = json.loads(path.read_text())
    content["not_measured"][0] |= {"flops": costs.flops, "predicted_peak_bytes": costs.peak_bytes, **changes}
    path.write_text(json.dumps(content))
    return path


def test_the_panels_of_flops_and_memory_reach_the_length_that_was_left_out(tmp_path: Path) -> None:
    costs, path = self_attention_costs(LONGEST), layer_with_theory(tmp_path)
    ((_, view),) = layer_views(case_table(load([path])))
    _, memory, flops, _ = profiling_picture(view).axes
    for axes, amount in ((memory, costs.peak_bytes), (flops, costs.flops)):
        ends = [line[-1] for line in points_of(axes)]
        assert [10000, amount] in ends
    ((_, view),) = layer_views(case_table(load([layer_with_theory(tmp_path, flops=None)])))
    assert not any(len(curve.in_theory) for curve in view.curves)


def test_the_memory_panel_holds_that_of_the_process_and_each_panel_both_devices(tmp_path: Path) -> None:
    cases = case_table(load([layer_with_theory(tmp_path)]))
    ((_, view),) = layer_views(cases)
    assert [one.device for one in view.environments] == ["cpu", "cuda"]
    _, memory, _, _ = profiling_picture(view).axes
    cpu = cases[(cases["device"] == "cpu") & (cases["outcome"] == "measured")]
    assert cpu[["seq_len", "peak_rss_bytes"]].to_numpy(dtype=float).tolist() in points_of(memory)


# The wide table and the bars


class Found(NamedTuple):
    """The first experiment: its view, its cases, and its wide tables by their files."""

    view: View
    cases: pd.DataFrame
    wide: dict[str, pd.DataFrame]


def find(path: Path) -> Found:
    records = load([path])
    cases, summary = case_table(records), summarise(records)
    ((_, view),) = views(summary, cases)
    return Found(view, cases, wide_tables(summary, cases))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    path = tmp_path_factory.mktemp("teaching") / "out.json"
    return find(Run(LAWS, noise=Noise(), not_measured=[GONE], machine=Machine(batch=4)).write(path))


def test_the_wide_table_holds_the_numbers_of_the_tidy_one(found: Found) -> None:
    ((name, wide),) = found.wide.items()
    times = [f"{family}_{mode}" for family in ("standard", "linear") for mode in MODES]
    columns = [f"{name}_{amount}_ms" for name in times for amount in ("mean", "std")]
    assert name == "complexity_analysis_wide.csv"
    assert list(wide) == ["seq_len", *columns, *(f"speedup_{mode}" for mode in MODES)]
    assert list(wide["seq_len"]) == list(doublings(256, 8192)) and len(found.cases) == 4 * len(wide)
    for _, case in found.cases.iterrows():
        for amount in ("mean", "std"):
            cells = wide.set_index("seq_len")[f"{case['family']}_{case['mode']}_{amount}_ms"]
            expected = 1e3 * case[f"rounds_{amount}_s"]
            assert cells[case["seq_len"]] == pytest.approx(expected, rel=1e-12, nan_ok=True)
            assert np.isnan(expected) == (case["outcome"] != "measured")


def test_every_bar_carries_the_speedup_of_the_wide_table(found: Found) -> None:
    (wide,) = found.wide.values()
    figure = speedup_picture(found.view)
    assert figure is not None
    for axes, mode in zip(figure.axes, MODES, strict=True):
        known = wide.set_index("seq_len")[f"speedup_{mode}"].dropna().to_dict()
        bars = [one for one in axes.patches if isinstance(one, Rectangle) and one.get_y() == 1]
        assert len(known) == 6 - (mode == "causal")
        assert [1 + one.get_height() for one in bars] == pytest.approx(list(known.values()))
        labels = {text.xy[0]: text.get_text() for text in axes.texts if isinstance(text, Annotation)}
        words = labels.pop(0.99)
        assert words == "break-even"
        assert labels == {length: wording.times(ratio) for length, ratio in known.items()}


def test_speedups_of_several_pairs_are_lines_and_columns_with_their_names(tmp_path: Path) -> None:
    laws = {**LAWS, **{("standard-sdpa", mode): Law(1.2e-8, 2) for mode in MODES}}
    several = find(Run(laws).write(tmp_path / "out.json"))
    (wide,) = several.wide.values()
    assert {"linear_causal_mean_ms", "standard-sdpa_causal_std_ms"} < set(wide)
    assert "speedup_linear-explicit_over_standard-sdpa_causal" in wide
    assert not {"standard_causal_mean_ms", "speedup_causal"} & set(wide)
    figure = speedup_picture(several.view)
    assert figure and all(len(axes.lines) >= 2 for axes in figure.axes)
    assert not any(isinstance(one, Rectangle) and one.get_y() == 1 for one in figure.axes[0].patches)
    assert find(Run({("standard-sdpa", "causal"): Law(1e-8, 2)}).write(tmp_path / "alone.json")).wide == {}


def test_fits_go_on_to_1_2_times_the_longest_length_and_say_that_they_do(found: Found) -> None:
    for axes, mode in zip(theory_picture(found.view).axes, MODES, strict=True):
        ends = {round(line[-1][0], 6) for line in points_of(axes) if len(line) == 200}
        longest = {8192.0} if mode == "bidirectional" else {4096.0, 8192.0}
        assert ends == longest | {round(1.2 * length, 6) for length in longest}
        legend = axes.get_legend()
        assert legend and "extrapolated, to 1.2 times the longest N" in {
            text.get_text() for text in legend.get_texts()
        }
