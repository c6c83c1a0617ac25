"""Sentences on the quality of measurements, and the separation of different machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.analysis.conditions.quality import name_quality
from benchmarks.analysis.document import as_text
from benchmarks.analysis.reading.machines import Machine as RunMachine
from benchmarks.analysis.reading.machines import differences
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.report.cases import case_table
from benchmarks.analysis.report.pictures.layers import layer_views
from benchmarks.analysis.report.pictures.views import views
from benchmarks.analysis.report.summary import summarise
from benchmarks.analysis.report.text import sections
from tests.synthetic import Law, Machine, Noise, Run, ceilings

Content = dict[str, Any]
LAWS = {
    (kernel, mode): Law(1e-8, 2) if kernel == "standard-sdpa" else Law(1e-6, 1)
    for kernel in ("standard-sdpa", "linear-chunked")
    for mode in ("bidirectional", "causal")
}
GPU = Machine("cuda", "Synthetic GPU", "bfloat16", "device", 4)
STEADY = {
    "interval_s": 20.0, "others_cores": 0.03, "cpu_mhz": 3000.0, "gpu_sm_clock_mhz": 1980,
    "gpu_temperature_c": 60, "gpu_throttle_reasons": 0, "gpu_utilization_percent": 99,
    "gpu_memory_used_bytes": 3 * 2**30, "gpu_own_bytes": 2 * 2**30,
}  # fmt: skip
BEFORE = {**STEADY, "interval_s": 0.0, "others_cores": None, "gpu_sm_clock_mhz": 345,
          "gpu_utilization_percent": 0, "gpu_memory_used_bytes": 2**29, "gpu_own_bytes": 0}  # fmt: skip
FACTS = {
    "torch": "2.12.0", "threads": 8, "driver": "580.00.1", "node": "synthetic", "python": "3.12.3",
    "numpy": "2.1.0", "usable_cores": 16, "quota_cores": None, "governor": "performance", "on_battery": None,
}  # fmt: skip


def steady(seed: int = 0, **changes: Any) -> Content:
    """Content of a run on a GPU under steady conditions."""
    run = {"laws": LAWS, "noise": Noise(0.01, 0.01, 0.02), "machine": GPU, "seed": seed}
    content = Run(**{**run, "lengths": (512, 2048, 8192), **changes}).content()
    readings = [{**STEADY, "repetition": repetition} for repetition in (1, 2, 3)]
    content["run"] |= {**FACTS, "conditions": [{**BEFORE, "repetition": 0}, *readings]}
    return content


def save(folder: Path, *contents: Content) -> list[Path]:
    paths = [folder / f"{name}.json" for name in "abcdef"[: len(contents)]]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(json.dumps(content))
    return paths


def quality(folder: Path, *contents: Content) -> list[str]:
    return name_quality(load(save(folder, *contents)))


def slow_down(content: Content, factor: Callable[[Mapping[str, Any]], float]) -> Content:
    """Content with the rounds of each benchmark slower by a factor of its record."""
    for one in content["benchmarks"]:
        one["stats"]["data"] = [second * factor(one["extra_info"]) for second in one["stats"]["data"]]
    return content


def test_steady_runs_have_no_sentence_on_quality(tmp_path: Path) -> None:
    assert quality(tmp_path, steady()) == []
    assert quality(tmp_path, *map(steady, range(5))) == []
    records = load(save(tmp_path, steady()))
    assert "Quality" not in as_text(sections(summarise(records), case_table(records)))


def test_files_without_conditions_have_no_sentence_on_quality(tmp_path: Path) -> None:
    for run in ({}, {"conditions": None}, {"conditions": [3, {}, {"repetition": "x", "others_cores": True}]}):
        assert quality(tmp_path, {**steady(), "run": run}) == []
    nothing = {**steady(), "benchmarks": ceilings(GPU, 4e12, 7e14)}
    assert quality(tmp_path, nothing) == []


# Quality of the times


def test_few_rounds_name_the_worst_case(tmp_path: Path) -> None:
    content = steady(noise=Noise(0, 0, 0))
    for one in content["benchmarks"]:
        if one["extra_info"]["seq_len"] == 8192:
            one["stats"]["data"] = one["stats"]["data"][: 1 if one["extra_info"]["mode"] == "causal" else 2]
    (sentence,) = quality(tmp_path, content)
    # A call of standard-sdpa takes 0.8 s here, so that one round is enough.
    assert sentence.startswith("Few rounds: 2 of 12 cases had fewer than 3 rounds")
    assert "causal forward, N = 8192 only 1." in sentence and "--case-seconds" in sentence


def test_rounds_of_a_case_add_up_over_the_repetitions_of_a_run(tmp_path: Path) -> None:
    assert quality(tmp_path, *(steady(seed, rounds=1) for seed in range(3))) == []


def test_wide_spread_counts_its_cases_and_names_the_widest_case(tmp_path: Path) -> None:
    content = steady()
    for one in content["benchmarks"]:
        record = one["extra_info"]
        if (record["kernel"], record["seq_len"]) == ("linear-chunked", 512):
            width = 0.2 if record["mode"] == "causal" else 0.1
            one["stats"]["data"] = [1 - width, 1 - width, 1, 1 + width, 1 + width]
        elif record["seq_len"] == 512:
            one["stats"]["data"] = [1.0, 1.0, 1.0, 1.0, 9.0]  # a single stall is no wide spread
    (sentence,) = quality(tmp_path, content)
    assert "in 2 of 12 cases" in sentence and "more than 13.5 % of the median" in sentence
    assert "most in linear-chunked, causal forward, N = 512, 40 %" in sentence


@pytest.mark.parametrize(("step", "words"), [(0.04, "8.0 % slower"), (-0.04, "8.0 % faster")])
def test_drift_over_repetitions_is_the_trend_common_to_all_cases(
    step: float, words: str, tmp_path: Path
) -> None:
    content = steady(noise=Noise(0, 0, 0))
    slow_down(content, lambda record: 1 + step * (record["repetition"] - 1))
    (sentence,) = quality(tmp_path, content)
    assert sentence.startswith("Drift: from the first to the last repetition")
    # The fitted line through three logarithms has the slope between their ends.
    assert words in sentence


@pytest.mark.parametrize(
    "factor",
    [
        lambda record: 1 + 0.015 * (record["repetition"] - 1),  # less than 5 % altogether
        lambda record: 1.3 if record["repetition"] == 2 else 1.0,  # no trend, though a bad repetition
        lambda record: 1 + 0.5 * (record["repetition"] - 1) * (record["seq_len"] == 512),  # some cases only
    ],
)
def test_small_changes_and_changes_of_a_few_cases_are_no_drift(
    factor: Callable[[Mapping[str, Any]], float], tmp_path: Path
) -> None:
    assert quality(tmp_path, slow_down(steady(), factor)) == []


def test_an_uneven_run_is_named(tmp_path: Path) -> None:
    runs = [slow_down(steady(seed), lambda _, seed=seed: 1.25 if seed == 1 else 1.0) for seed in range(4)]  # type: ignore[misc]
    (sentence,) = quality(tmp_path, *runs)
    assert sentence.startswith("Uneven runs: on cuda all cases of") and "b.json together were 2" in sentence
    assert "slower" in sentence


def test_drift_from_run_to_run_follows_the_dates_of_the_runs_not_their_order(tmp_path: Path) -> None:
    runs = []
    for seed, hour in enumerate((3, 1, 2)):
        content = slow_down(steady(seed), lambda _, hour=hour: 1.04**hour)  # type: ignore[misc]
        runs.append({**content, "datetime": f"2025-01-01T0{hour}:00:00+00:00"})
    (sentence,) = quality(tmp_path, *runs)
    assert "slower from the first to the last run" in sentence


# Conditions


def conditions(**changes: Any) -> Callable[[Content], None]:
    """Change the conditions read at the end of the third repetition."""
    return lambda content: content["run"]["conditions"][3].update(changes)


def before(**changes: Any) -> Callable[[Content], None]:
    """Change the conditions read before the first case."""
    return lambda content: content["run"]["conditions"][0].update(changes)


def facts(**changes: Any) -> Callable[[Content], None]:
    return lambda content: content["run"].update(changes)


DISTURBED = {
    "CPU load: others took 52 % of a core": conditions(others_cores=1.5),
    "More threads than cores: 8 threads on 4 cores": facts(usable_cores=4),
    "More threads than cores: 8 threads on 1.5 cores": facts(quota_cores=1.5),
    "Slower clock: the CPU clock fell from 3000 to 2000 MHz": conditions(cpu_mhz=2000.0),
    "Power saving: the CPU governor was powersave": facts(governor="powersave"),
    "Power saving: the machine ran on its battery": facts(on_battery=True),
    "Throttled GPU: the SM clock fell from 1980 to 1500 MHz between repetitions": conditions(
        gpu_sm_clock_mhz=1500
    ),
    "Throttled GPU: software thermal slowdown, 88 °C": conditions(
        gpu_throttle_reasons=0x24, gpu_temperature_c=88
    ),
    "Busy GPU: 40 % busy before the first case": before(gpu_utilization_percent=40),
    "Busy GPU: 21.5 GB of its memory held by others": conditions(gpu_memory_used_bytes=22 * 2**30),
}


@pytest.mark.parametrize("words", DISTURBED)
def test_each_disturbance_has_one_sentence_with_a_remedy(words: str, tmp_path: Path) -> None:
    content = steady()
    DISTURBED[words](content)
    (sentence,) = quality(tmp_path, content)
    assert sentence.startswith(words) and sentence.count(". ") == 1 and sentence.endswith(".")


def test_the_report_names_disturbances_under_the_heading_of_quality(tmp_path: Path) -> None:
    content = steady()
    facts(on_battery=True)(content)
    records = load(save(tmp_path, content))
    text = as_text(sections(summarise(records), case_table(records)))
    assert "Plug it in." in text.split("Quality of the measurements")[1]


def test_a_disturbance_of_several_files_is_one_sentence_that_names_them(tmp_path: Path) -> None:
    runs = [steady(seed) for seed in range(3)]
    for content in runs[1:]:
        conditions(others_cores=1.5)(content)
    (sentence,) = quality(tmp_path, *runs)
    assert "b.json" in sentence and "c.json" in sentence and "a.json" not in sentence


@pytest.mark.parametrize(
    "change",
    [
        conditions(others_cores=0.2),  # over three repetitions less than a tenth of a core
        conditions(others_cores=9.0, interval_s=0.1),  # ten ticks
        conditions(gpu_sm_clock_mhz=1950, cpu_mhz=2800.0),
        conditions(gpu_sm_clock_mhz=1410, gpu_throttle_reasons=0x4),  # at the power cap
        conditions(gpu_sm_clock_mhz=345, gpu_throttle_reasons=0x1),  # idle
        before(gpu_throttle_reasons=0x20),  # before our own work
    ],
)
def test_small_or_short_disturbances_are_not_named(change: Callable[[Content], None], tmp_path: Path) -> None:
    content = steady()
    change(content)
    assert quality(tmp_path, content) == []


def test_a_card_beside_a_run_on_the_cpu_is_not_judged(tmp_path: Path) -> None:
    content = steady(machine=Machine())
    conditions(gpu_sm_clock_mhz=300)(content)
    assert quality(tmp_path, content) == []


def test_conditions_that_differ_between_pooled_files_are_named_with_their_values(tmp_path: Path) -> None:
    runs = [steady(seed) for seed in range(3)]
    facts(governor="schedutil", numpy="2.2.0")(runs[1])
    del runs[2]["run"]["governor"]  # an unknown governor is no difference
    (sentence,) = quality(tmp_path, *runs)
    assert "NumPy (2.1.0, 2.2.0), CPU governor (performance, schedutil)" in sentence


# Machines


def on(machine: Mapping[str, Any], seed: int = 0, **changes: Any) -> Content:
    content = steady(seed, **changes)
    content["run"] |= machine
    return content


def test_rows_of_different_machines_are_not_pooled(tmp_path: Path) -> None:
    contents = [on({}), on({}, 1), slow_down(on({"threads": 4}, 2), lambda _: 3.0)]
    for content in contents:
        content["benchmarks"] += ceilings(GPU, 4e12, 7e14)
    records = load(save(tmp_path, *contents))
    summary, cases = summarise(records), case_table(records)
    assert len(summary.series) == 2 * len(LAWS) and len(summary.ceilings) == 2
    assert {(one.setting.machine, one.unit) for one in summary.series} == {
        ("machine 1", "run"),
        ("machine 2", "repetition"),
    }
    alone = summarise(load([tmp_path / "c.json"])).crossovers
    apart = [pair for pair in summary.crossovers if pair.setting.machine == "machine 2"]
    assert [replace(pair, setting=replace(pair.setting, machine="")) for pair in apart] == alone
    (warning,) = [one for one in summary.warnings if "Not pooled" in one]
    assert "differ in threads: 8 and 4." in warning and "c.json" in warning
    assert summary.quality == []
    assert [one.machine for one in summary.runs.files] == [0, 0, 1]
    found = views(summary, cases)
    assert [suffix for suffix, _ in found] == ["", "-machine_2"]
    for _, view in found:
        assert view.cases["machine"].nunique() == 1 and view.roof is not None
    text = as_text(sections(summary, cases))
    assert "Causal forward on Synthetic GPU (cuda, machine 2), bfloat16" in text


def test_the_layer_picture_draws_two_machines_as_two_lines(tmp_path: Path) -> None:
    records = load(save(tmp_path, on({}, subject="layer"), on({"threads": 1}, 1, subject="layer")))
    ((_, view), *_) = layer_views(case_table(records))
    assert [view.name(index).split(",")[1] for index in range(2)] == [" machine 1)", " machine 2)"]
    assert all(curve.cases["machine"].nunique() == 1 for curve in view.curves)


def test_a_case_left_out_on_one_machine_stays_listed_though_another_measured_the_same(tmp_path: Path) -> None:
    left_out = [("standard-sdpa", "causal", 8192, "over_time", "too slow")]
    slow, fast = on({"threads": 1}, not_measured=left_out), on({}, 1)
    assert summarise(load(save(tmp_path, slow, fast))).not_measured["machine"].iloc[0] == "machine 1"


def test_neither_host_name_nor_clock_frequency_makes_another_machine(tmp_path: Path) -> None:
    runs = [on({"node": f"container-{seed}"}, seed) for seed in range(2)]
    for seed, content in enumerate(runs):
        content["machine_info"]["cpu"]["hz_actual"] = [3_000_000_000 + seed, 0]
        content["machine_info"]["node"] = f"host-{seed}"
    records = load(save(tmp_path, *runs))
    summary = summarise(records)
    assert len({run.machine.fingerprint for run in records.runs}) == 1
    assert {one.setting.machine for one in summary.series} == {""} and summary.runs.units == 2
    assert [one.node for one in summary.runs.files] == ["container-0", "container-1"]
    assert not any("machine" in one for one in summary.warnings + summary.quality)


def test_the_fingerprint_of_a_machine_is_made_from_known_fields(tmp_path: Path) -> None:
    old = {**steady(1), "run": {}}
    newer, other = on({}, 0), on({}, 2)
    other["machine_info"]["cpu"]["brand_raw"] = "Another CPU"
    first, second, third = (run.machine for run in load(save(tmp_path, newer, old, other)).runs)
    assert first.fingerprint == "CPU Synthetic, cores 2, driver 580.00.1, torch 2.12.0, threads 8"
    assert second.fingerprint == "CPU Synthetic, cores 2"
    assert differences(first, first) == []
    assert differences(first, second) == [
        "driver: 580.00.1 and unknown",
        "torch: 2.12.0 and unknown",
        "threads: 8 and unknown",
    ]
    assert differences(first, third) == ["CPU: Synthetic and Another CPU"]
    assert RunMachine().fingerprint == "unknown"


@pytest.mark.parametrize(
    ("field", "value"), [("threads", 4), ("torch", "2.13.0"), ("driver", "590.00.1"), ("driver", None)]
)
def test_threads_torch_and_driver_make_another_machine(field: str, value: Any, tmp_path: Path) -> None:
    rows = load(save(tmp_path, on({}), on({}, 1), on({field: value}, 2))).rows
    assert rows.groupby("file")["machine"].first().to_list() == ["machine 1", "machine 1", "machine 2"]
    assert rows.groupby("file")["unit_kind"].first().to_list() == ["run", "run", "repetition"]
