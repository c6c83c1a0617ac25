"""What a device can do at most, measured beside the kernels, and how near each case comes to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.analysis.reading.fields import FAMILIES
from benchmarks.analysis.reading.records import groups
from benchmarks.analysis.scaling.units import Floats

DEVICE = ("device", "device_name", "machine", "clock")
COPY, PRODUCT = "ceiling-copy", "ceiling-matmul"
NARROW = ("bfloat16", "float16")
"""Dtypes that a kernel may widen to float32 for its products: a CPU without narrow ones is faster so."""


def find_ceilings(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The ceilings of every device, clock and dtype.

    Args:
        rows: All measured rows.

    Returns:
        Per device and dtype `device`, `device_name`, `machine`, `clock`, `dtype`, and as {value, low, high,
        units}, or None where it was not measured: `bytes_per_s`, the copy bandwidth, read + written, which is
        the device's whatever the dtype copied; and `flops_per_s`, the matrix rate of that dtype, or where a
        narrow one is slower of float32. The value is the median over units, `low` and `high` are the lowest
        and the highest unit. Of several sizes, or dtypes copied, the fastest counts.
    """
    if rows.empty:
        return []
    found = []
    for device, group in groups(rows[rows["subject"] == "ceiling"], DEVICE):
        bandwidth = _fastest(group[group["kernel"] == COPY], "min_bytes")
        for dtype in sorted(group["dtype"].unique()):
            computed_in = (dtype, "float32") if dtype in NARROW else (dtype,)
            products = group[(group["kernel"] == PRODUCT) & group["dtype"].isin(computed_in)]
            rate = _fastest(products, "flops")
            found.append({**device, "dtype": dtype, "bytes_per_s": bandwidth, "flops_per_s": rate})
    return found


def _fastest(rows: pd.DataFrame, amount: str) -> dict[str, Any] | None:
    rates = []
    for _, case in rows.groupby("key"):
        seconds = case.groupby("unit")["median_s"].median()
        units = float(case[amount].iloc[0]) / seconds.to_numpy(dtype=float)
        spread = {"low": float(units.min()), "high": float(units.max()), "units": len(units)}
        rates.append({"value": float(np.median(units)), **spread})
    known = [rate for rate in rates if rate["value"] > 0]
    return max(known, key=lambda rate: rate["value"]) if known else None


def ceiling_of(setting: Mapping[str, Any], ceilings: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The complete ceiling of the same device, clock and dtype: no other device's will do."""
    for ceiling in ceilings:
        if all(ceiling[field] == setting[field] for field in (*DEVICE, "dtype")):
            return ceiling if ceiling["bytes_per_s"] and ceiling["flops_per_s"] else None
    return None


def floor_seconds(ceiling: Mapping[str, Any], min_bytes: Any, flops: Any) -> tuple[Floats, Floats]:
    """The least seconds that moving the least bytes takes, and those of the FLOPs; the floor is the larger.

    Args:
        ceiling: What `ceiling_of` found.
        min_bytes: Bytes of each case that must move at least.
        flops: FLOPs of each case.
    """
    return (
        np.asarray(min_bytes, dtype=float) / ceiling["bytes_per_s"]["value"],
        np.asarray(flops, dtype=float) / ceiling["flops_per_s"]["value"],
    )


def with_floors(cases: pd.DataFrame, ceilings: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Cases with the columns of the floor.

    Returns:
        The cases with `floor_s`, the least seconds the ceilings allow; `floor_bound`, "bytes" or "flops",
        whichever sets it; and `floor_share`, floor_s / median_s, which cannot rightly be above 1. Empty for
        cases without ceilings of their own device, clock and dtype.
    """
    cases = cases.assign(floor_s=np.nan, floor_bound=None, floor_share=np.nan)
    measured = cases[(cases["outcome"] == "measured") & cases["family"].isin(FAMILIES)]
    for setting, group in groups(measured, (*DEVICE, "dtype")):
        ceiling = ceiling_of(setting, ceilings)
        if ceiling:
            by_bytes, by_flops = floor_seconds(ceiling, group["min_bytes"], group["flops"])
            floor = np.maximum(by_bytes, by_flops)
            cases.loc[group.index, "floor_s"] = floor
            cases.loc[group.index, "floor_bound"] = np.where(by_bytes > by_flops, "bytes", "flops")
            cases.loc[group.index, "floor_share"] = floor / group["median_s"].to_numpy(dtype=float)
    cases.loc[cases["floor_s"].isna(), "floor_bound"] = None
    return cases
