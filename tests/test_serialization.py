"""Serialization: dataclasses to JSON values, and rows to settings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import pandas as pd
import pytest

from benchmarks.analysis.reading.setting import CASE, SERIES, SETTING, Case, Setting, by_series, by_setting
from benchmarks.analysis.serialization import FLAT, json_text, json_value

ROW = {
    "kernel": "linear-a", "family": "linear", "subject": "operator", "mode": "causal", "phase": "forward",
    "device": "cpu", "device_name": "A CPU", "machine": "", "dtype": "float32", "clock": "wall",
    "batch": 1, "heads": 8, "head_dim": 64, "value_dim": 64, "kv_heads": 2, "query_len": 128, "ranks": 2,
    "seq_len": 256,
}  # fmt: skip
NULLS = {
    "mode": None, "phase": np.nan, "batch": pd.NA, "heads": None, "head_dim": pd.NA, "value_dim": None,
    "query_len": pd.NA, "ranks": None,
}  # fmt: skip


@dataclass(frozen=True)
class Inner:
    low: float
    table: np.ndarray


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(metadata=FLAT)
    facts: Mapping[str, float] = field(metadata=FLAT)
    nested: Inner | None
    high: float


def test_a_flat_dataclass_field_becomes_fields_and_any_other_dataclass_a_json_object() -> None:
    inner = Inner(math.nan, np.array([1, 2]))
    found = json_value(Outer("a", inner, {"x": 1.0}, inner, np.float64(3)))
    own = {"low": None, "table": [1, 2]}
    assert found == {"name": "a", **own, "x": 1.0, "nested": own, "high": 3.0}
    assert list(found) == ["name", "low", "table", "x", "nested", "high"]
    assert type(found["high"]) is float


def test_values_unknown_to_json_are_null_and_never_nan() -> None:
    assert json_value([math.inf, -math.inf, math.nan, np.float32("nan"), pd.NA, None]) == [None] * 6
    assert json.loads(json_text({"a": math.nan, 1: (True, "x")})) == {"a": None, "1": [True, "x"]}
    with pytest.raises(TypeError):
        json_text({"a": object()})


def test_a_table_becomes_a_json_list_of_its_rows() -> None:
    table = pd.DataFrame({"a": [1, 2], "b": pd.array([3, None], dtype="Int64")})
    assert json_value(table) == [{"a": 1, "b": 3}, {"a": 2, "b": None}]


def test_a_setting_comes_from_a_row_and_goes_back_into_it() -> None:
    case = Case.of(pd.Series(ROW))
    assert json_value(case) == ROW and tuple(ROW) == CASE
    assert case.setting == Setting.of(ROW)
    assert tuple(one.name for one in fields(Setting)) == SETTING


def test_nulls_of_any_kind_make_equal_settings() -> None:
    nothing = Setting.of({**ROW, **NULLS})
    assert nothing == Setting.of({**ROW, **dict.fromkeys(NULLS)})
    assert {name for name in SETTING if getattr(nothing, name) is None} == set(NULLS)


def test_rows_are_grouped_by_all_their_fields_also_where_some_are_null() -> None:
    rows = pd.DataFrame([ROW, {**ROW, "seq_len": 512}, {**ROW, **dict.fromkeys(NULLS)}, {**ROW, "heads": 4}])
    found = {setting: len(group) for setting, group in by_setting(rows)}
    assert sorted(found.values()) == [1, 1, 2] and found[Setting.of(ROW)] == 2
    assert sum(len(group) for *_, group in by_series(rows)) == 4
    assert not list(by_setting(rows.iloc[:0])) and not list(by_series(rows.iloc[:0]))
    assert len(SERIES) == len(CASE) - 1
