"""From which context on a decode is cheaper: the table of a shape, its sentence and its picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from benchmarks.analysis.document import as_text
from benchmarks.analysis.plots.saving import own_style
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.report.cases import case_table
from benchmarks.analysis.report.conclusions import Summary
from benchmarks.analysis.report.pictures.decode import decode_picture, decode_views
from benchmarks.analysis.report.pictures.views import views
from benchmarks.analysis.report.summary import summarise
from benchmarks.analysis.report.text import sections
from benchmarks.analysis.report.writing import write_report
from benchmarks.analysis.serialization import json_value
from tests.concluded import conclude, console, find
from tests.synthetic import Law, Machine, Noise, Run, ceilings, write_together

CARD = Machine("cuda", "A card", "bfloat16", "device", 1, 32, 128)
KV = 8
NOISE = Noise(0.01, 0.01, 0.02)
CONTEXTS = tuple(256 * 2**power for power in range(8))
FLAT = {1: 20e-6, 8: 22e-6}
"""Seconds of a step of linear attention by the batch."""
A_TOKEN, OVERHEAD = 2e-9, 5e-6


def decode(batch: int, seed: int = 0, query_len: int | None = None) -> Run:
    laws = {
        ("standard-sdpa", "causal"): Law(A_TOKEN * batch, 1, OVERHEAD),
        ("linear-triton", "causal"): Law(0, 0, FLAT[batch]),
    }
    run = Run(laws, CONTEXTS, noise=NOISE, machine=replace(CARD, batch=batch), seed=seed + batch)
    return replace(run, phase="decode", kv_heads=KV, subject="operator", query_len=query_len)


def whole(phase: str, crossing: int, seed: int = 0) -> Run:
    laws = {("standard-sdpa", "causal"): Law(1e-11, 2), ("linear-triton", "causal"): Law(1e-11 * crossing, 1)}
    run = Run(laws, CONTEXTS, noise=NOISE, machine=CARD, phase=phase, seed=seed + crossing)
    return replace(run, kv_heads=KV, subject="operator")


def write(folder: Path, count: int = 3, batches: Sequence[int] = (1, 8)) -> list[Path]:
    return [
        write_together(
            folder / f"run-{i}.json",
            [*(decode(batch, 100 * i) for batch in batches), whole("prefill", 700, 100 * i),
             whole("forward_backward", 1400, 100 * i)],
        )
        for i in range(count)
    ]  # fmt: skip


class Concluded(NamedTuple):
    """What is concluded from files: as objects, as summary.json has it, and as the console says it."""

    summary: Summary
    cases: pd.DataFrame
    content: dict[str, Any]
    text: str


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write(tmp_path_factory.mktemp("contexts"))


@pytest.fixture(scope="module")
def concluded(files: list[Path]) -> Concluded:
    records = load(files)
    cases = case_table(records)
    summary = summarise(records, cases=cases)
    return Concluded(summary, cases, json_value(summary), as_text(sections(summary, cases)))


@pytest.mark.parametrize("batch", FLAT)
def test_time_that_does_not_grow_is_constant_and_that_of_the_cache_is_linear(
    batch: int, concluded: Concluded
) -> None:
    series = concluded.content["series"]
    flat = find(series, kernel="linear-triton", phase="decode", batch=batch)
    assert flat["exponent"]["verdict"] == "constant"
    assert -0.02 < flat["exponent"]["low"] < flat["exponent"]["high"] < 0.02
    assert (flat["flops_exponent"], flat["cache_bytes_exponent"], flat["min_bytes_exponent"]) == (0, 0, 0)
    grown = find(series, kernel="standard-sdpa", phase="decode", batch=batch)
    assert grown["exponent"]["verdict"] in ("linear", "like linear")
    for name in ("flops_exponent", "cache_bytes_exponent", "min_bytes_exponent"):
        assert grown[name] == pytest.approx(1, abs=1e-12)
    assert "linear-triton does not grow (constant), p = " in " ".join(concluded.text.split())


def test_a_sentence_says_from_which_context_on_each_phase_is_cheaper(concluded: Concluded) -> None:
    (contexts,) = concluded.content["contexts"]
    found = {(one["phase"], one["batch"]): one for one in contexts["phases"]}
    assert list(found) == [("forward_backward", 1), ("prefill", 1), ("decode", 1), ("decode", 8)]
    truths = {
        ("forward_backward", 1): 1400,
        ("prefill", 1): 700,
        **{("decode", batch): (FLAT[batch] - OVERHEAD) / A_TOKEN / batch for batch in FLAT},
    }
    for place, truth in truths.items():
        time = found[place]["time"]
        assert time["kind"] == "inside" and time["low"] <= truth <= time["high"]
    # What is kept follows from the shape: 8 heads, 128 x 129 numbers of 4 bytes, or 2 x 128 of 2 a token.
    state, token = KV * 128 * 129 * 4, KV * 2 * 128 * 2
    assert (contexts["state_bytes"], contexts["token_bytes"]) == (state, token)
    assert contexts["even_n"] == state / token == 129
    text = concluded.text
    at = {place: f"from N = {one['time']['n']:.0f} on" for place, one in found.items()}
    words = (
        f"Linear attention is cheaper in time {at['forward_backward', 1]} in training at batch 1, "
        f"{at['prefill', 1]} in prefill at batch 1, {at['decode', 1]} in decode at batch 1, "
        f"{at['decode', 8]} in decode at batch 8; the state is 528 kB a sequence and layer, where the "
        "cache is as large at N = 129 and 134 MB at 32768."
    )
    assert words in " ".join(text.split())
    table = (
        text.partition("cheaper in time          ")[0].splitlines()[-1] + text.partition("causal    batch")[2]
    )
    assert all(len(line) <= 80 for line in table.split("linear-triton against")[0].splitlines())


def test_phases_of_which_the_same_is_said_stand_together(tmp_path: Path) -> None:
    never = {
        ("standard-sdpa", "causal"): Law(0, 0, 1e-6),
        ("linear-triton", "causal"): Law(0, 0, 2e-6),
    }
    runs = [replace(decode(batch), laws=never) for batch in FLAT]
    text = " ".join(console(write_together(tmp_path / "out.json", runs)).split())
    assert "is cheaper in time at no N up to 32768 in decode at batch 1 and 8;" in text


def test_without_a_decode_there_is_no_such_table(tmp_path: Path) -> None:
    text = console(write_together(tmp_path / "out.json", [whole("prefill", 700), whole("forward", 700)]))
    assert "From which context" not in text
    assert "No bidirectional case was measured, prefill" not in text
    assert "No bidirectional case was measured, forward on" in " ".join(text.split())


def test_only_decodes_have_bytes_that_are_kept(concluded: Concluded) -> None:
    cases = concluded.cases
    assert set(cases["kv_heads"]) == {8}
    assert (cases["cache_bytes"].notna() == (cases["phase"] == "decode")).all()


@pytest.mark.slow
def test_a_report_of_decodes_has_their_picture_and_columns(files: list[Path], tmp_path: Path) -> None:
    write_report(files, tmp_path)
    assert (tmp_path / "decode_scaling.png").is_file()
    cases = list(csv.DictReader(io.StringIO((tmp_path / "complexity_analysis.csv").read_text())))
    for one in cases:
        assert one["kv_heads"] == "8"
        assert one["query_len"] == ("1" if one["phase"] == "decode" else one["seq_len"])
        assert bool(one["cache_bytes"]) is (one["phase"] == "decode")
    assert "From which context on it is cheaper" in (tmp_path / "summary.md").read_text()
    assert json.loads((tmp_path / "summary.json").read_text())["contexts"]


def test_the_picture_has_a_panel_a_batch_and_one_of_the_bytes_kept(concluded: Concluded) -> None:
    ((suffix, several),) = decode_views([view for _, view in views(concluded.summary, concluded.cases)])
    assert suffix == "" and [view.setting.batch for view in several] == [1, 8]
    with own_style():
        figure = decode_picture(several)
        figure.draw_without_rendering()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["batch 1", "batch 8", "bytes kept of one sequence, a layer"]
    kept = [np.asarray(line.get_ydata(), dtype=float) for line in figure.axes[-1].get_lines()]
    grown, flat = sorted(kept, key=lambda y: y[-1] / y[0], reverse=True)
    assert grown[-1] / grown[0] == CONTEXTS[-1] / CONTEXTS[0] and set(flat) == {KV * 128 * 129 * 4}
    assert all("context N" in axes.get_xlabel() for axes in figure.axes)
    with own_style():
        alone = decode_picture(several[1:])
    of_one = [line.get_ydata() for line in alone.axes[-1].get_lines()]
    np.testing.assert_allclose(np.stack(of_one), np.stack(kept))  # of a sequence, whatever the batch


def test_decodes_of_several_tokens_have_pictures_of_their_own(tmp_path: Path) -> None:
    file = write_together(tmp_path / "out.json", [decode(1), decode(1, query_len=4)])
    records = load([file])
    summary, cases = summarise(records), case_table(records)
    found = decode_views([view for _, view in views(summary, cases)])
    assert [suffix for suffix, _ in found] in (["", "-Q4"], ["", "-Q1"])
    assert "decode of 4 tokens" in as_text(sections(summary, cases))


def test_records_of_before_have_as_many_heads_and_lengths_of_keys_as_of_queries(tmp_path: Path) -> None:
    plain = Run({("linear-chunked", "causal"): Law(1e-6, 1)}, lengths=(64, 128, 256))
    content = plain.content()
    for benchmark in content["benchmarks"]:
        if benchmark["extra_info"]["repetition"] > 1:
            info = benchmark["extra_info"]
            info |= {"kv_heads": info["heads"], "query_len": info["seq_len"], "cache_bytes": None}
    file = tmp_path / "out.json"
    file.write_text(json.dumps(content))
    records = load([file])
    assert set(records.rows["kv_heads"]) == {8} and records.rows["query_len"].isna().all()
    (series,) = conclude(file)["series"]
    assert series["seq_lens"] == [64, 128, 256] and series["exponent"]["units"] == 3
    assert (series["kv_heads"], series["query_len"], series["cache_bytes"]) == (8, None, [])


def test_queries_of_a_number_of_their_own_make_a_setting_of_its_own() -> None:
    row = {
        "subject": "operator", "mode": "causal", "phase": "forward", "device": "cpu", "device_name": "",
        "machine": "", "dtype": "float32", "clock": "wall", "batch": 1, "heads": 8, "head_dim": 64,
        "value_dim": 64, "kv_heads": 2, "query_len": pd.NA, "ranks": pd.NA,
    }  # fmt: skip
    one, other = Setting.of(row), Setting.of({**row, "query_len": 16})
    assert one != other and (one.query_len, other.query_len) == (None, 16)


def test_a_decode_that_stays_in_the_caches_of_a_cpu_is_not_called_impossible(tmp_path: Path) -> None:
    machine = replace(CARD, device="cpu", device_name="A CPU", clock="wall")
    fast = {("standard-sdpa", "causal"): Law(1e-12, 1, 1e-7), ("linear-native", "causal"): Law(0, 0, 1e-7)}
    rows = ceilings(machine, 1e10, 1e18)
    for phase, impossible in (("decode", False), ("prefill", True)):
        run = replace(decode(1), laws=fast, machine=machine, phase=phase)
        file = write_together(tmp_path / f"{phase}.json", [run], rows)
        assert ("Impossible, faster than the ceilings allow" in console(file)) is impossible


def test_the_times_of_a_step_of_several_tokens_are_drawn_by_the_token(tmp_path: Path) -> None:
    drawn = []
    for queries in (1, 4):
        path = decode(1, query_len=queries).write(tmp_path / f"{queries}.json")
        cases = case_table(load([path]))
        summary = summarise(load([path]), cases=cases)
        ((_, several),) = decode_views([view for _, view in views(summary, cases)])
        axes: Any = decode_picture(several).axes[0]
        drawn.append(np.sort(np.concatenate([bars.lines[0].get_ydata() for bars in axes.containers])))
        assert ("in steps of 4" in axes.get_ylabel()) is (queries == 4)
    assert np.allclose(drawn[0], 4 * drawn[1])
