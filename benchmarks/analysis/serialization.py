"""Conclusions as JSON, whose numbers are never NaN, and tables as CSV, whose texts are no formulas."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pandas as pd

FORMULA = ("=", "+", "-", "@")
"""A text that begins so is a formula to a spreadsheet."""
CONCLUSIONS_SCHEMA = 1
"""Version of the objects in summary.json, comparison.json and history.json."""
FLAT: Mapping[str, bool] = {"flat": True}
"""Metadata of a dataclass's field whose own fields, or items, take its place in the JSON object."""


def json_value(value: Any) -> Any:
    """A value as JSON knows it: dataclasses and mappings as objects, tables as lists of them, NaN as None."""
    if is_dataclass(value):
        return _json_object(value)
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, pd.DataFrame):
        return json_value(value.to_dict("records"))
    if isinstance(value, list | tuple | np.ndarray):
        return [json_value(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value


def _json_object(record: Any) -> dict[str, Any]:
    """A dataclass as an object, which its method `in_json`, if it has one, may change."""
    found: dict[str, Any] = {}
    for one in fields(record):
        value = json_value(getattr(record, one.name))
        found |= value if one.metadata.get("flat") else {one.name: value}
    rename = getattr(record, "in_json", None)
    return dict(rename(found)) if rename else found


def json_text(conclusions: Any) -> str:
    """The text of a JSON file.

    Raises:
        TypeError: JSON knows no such value.
    """
    return json.dumps(json_value(conclusions), indent=2, allow_nan=False) + "\n"


def csv_text(table: pd.DataFrame) -> str:
    """The text of a CSV file; texts that begin like a formula have an apostrophe before them."""
    texts = [name for name, column in table.items() if not pd.api.types.is_numeric_dtype(column)]
    plain = table.assign(**{str(name): table[name].map(_no_formula) for name in texts})
    return str(plain.rename(columns=_no_formula).to_csv(index=False))


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
