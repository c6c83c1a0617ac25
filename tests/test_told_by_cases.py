"""What a record says of how its case computed is told by the report, and by none where no record says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.analysis.reading.records import load
from benchmarks.analysis.report.summary import summarise
from tests.synthetic import Law, Machine, Run, ceilings

LINEAR, STANDARD = ("linear-chunked", "causal"), ("standard-sdpa", "causal")
LAWS = {LINEAR: Law(1e-6, 1), STANDARD: Law(1e-9, 2)}


def warnings_with(tmp_path: Path, **fields: Any) -> str:
    """The warnings of a report on a run whose linear kernel records these fields."""
    content = Run(LAWS).content()
    for benchmark in content["benchmarks"]:
        if benchmark["extra_info"]["kernel"] == LINEAR[0]:
            benchmark["extra_info"].update(fields)
    (tmp_path / "run.json").write_text(json.dumps(content))
    return "\n".join(summarise(load([tmp_path / "run.json"])).warnings)


def test_a_kernel_that_changed_its_process_is_named_with_what_it_changed(tmp_path: Path) -> None:
    told = warnings_with(tmp_path, state_changed="torch threads 2 -> 7")
    assert "changed the process that measures: linear-chunked (torch threads 2 -> 7)." in told
    assert told.count("linear-chunked (torch threads") == 1


@pytest.mark.parametrize("fields", [{}, {"state_changed": None}])
def test_kernels_that_changed_nothing_are_not_named(fields: dict[str, Any], tmp_path: Path) -> None:
    assert "changed the process" not in warnings_with(tmp_path, **fields)


def test_a_kernel_of_another_precision_is_named_with_the_kernels_that_it_is_compared_with(
    tmp_path: Path,
) -> None:
    told = warnings_with(tmp_path, precision="tf32")
    compared = "its crossovers with standard-sdpa compare different precisions"
    assert told.count(f"linear-chunked computes float32 in tf32; {compared}.") == 1


@pytest.mark.parametrize("fields", [{}, {"precision": None}, {"precision": "float32"}])
def test_kernels_that_compute_in_their_dtype_are_not_named(fields: dict[str, Any], tmp_path: Path) -> None:
    assert "computes float32 in" not in warnings_with(tmp_path, **fields)


def test_products_in_another_precision_are_not_held_against_the_ceiling_of_the_dtype(tmp_path: Path) -> None:
    """The matrix rate of tf32 is a multiple of that of float32: faster than the latter is not impossible."""
    verdicts = {}
    for precision in ("float32", "tf32"):
        content = Run({LINEAR: Law(1e-9, 1), STANDARD: Law(1e-9, 2)}).content()
        content["benchmarks"] += ceilings(Machine(), bytes_per_s=1e15, flops_per_s=1e9)
        for benchmark in content["benchmarks"]:
            benchmark["extra_info"]["precision"] = precision
        (tmp_path / f"{precision}.json").write_text(json.dumps(content))
        series = summarise(load([tmp_path / f"{precision}.json"])).series
        verdicts[precision] = {verdict for one in series for verdict in one.floor_verdict}
    assert "impossible" in verdicts["float32"] and "impossible" not in verdicts["tf32"]


@pytest.mark.parametrize("field", ["precision", "state_changed"])
def test_what_a_case_tells_must_be_text(field: str, tmp_path: Path) -> None:
    told = warnings_with(tmp_path, **{field: 7})
    assert f"{field} = 7, but text" in told and "Left out of" in told
