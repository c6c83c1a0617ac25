"""Conclusions as JSON: numbers or null, never NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def plain(value: Any) -> Any:
    """Nothing but what JSON knows: Python's scalars, and None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value


def as_json(conclusions: Mapping[str, Any]) -> str:
    """The text of a JSON file.

    Raises:
        ValueError: It holds a NaN or an infinity, which `plain` would have replaced.
    """
    return json.dumps(conclusions, indent=2, allow_nan=False) + "\n"
