"""The ceilings of a device, measured beside the kernels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.scaling.units import Floats

DEVICE = ("device", "device_name", "machine", "clock")
COPY, PRODUCT = "ceiling-copy", "ceiling-matmul"
NARROW = ("bfloat16", "float16")
"""Dtypes that a kernel may widen to float32 for its products: a CPU without narrow ones is faster so."""


@dataclass(frozen=True)
class Rate:
    """A measured rate.

    Attributes:
        value: Median over the units of the fastest size.
        low: The lowest of these units.
        high: The highest unit of any size.
        units: Number of units of the fastest size.
    """

    value: float
    low: float
    high: float
    units: int


@dataclass(frozen=True)
class Roof:
    """A complete ceiling: the copy bandwidth in bytes/s and the matrix rate in FLOP/s."""

    bandwidth: float
    matrix_rate: float

    def times(self, min_bytes: ArrayLike, flops: ArrayLike) -> tuple[Floats, Floats]:
        """The least seconds that moving the least bytes takes, and those of the FLOPs."""
        return (
            np.asarray(min_bytes, dtype=float) / self.bandwidth,
            np.asarray(flops, dtype=float) / self.matrix_rate,
        )

    def floor(self, min_bytes: ArrayLike, flops: ArrayLike) -> Floats:
        """The larger of these times: no call can rightly take less."""
        return np.maximum(*self.times(min_bytes, flops))


@dataclass(frozen=True)
class Ceiling:
    """The ceilings of one device with one dtype, by one clock.

    Attributes:
        device: "cpu" or "cuda".
        device_name: The name that the device gives itself.
        machine: Short name of the machine; empty where all runs are of one.
        clock: "device" or "wall".
        dtype: Name of the dtype.
        bytes_per_s: The copy bandwidth, read + written, which is the device's whatever the dtype copied.
        flops_per_s: The matrix rate of that dtype, or where a narrow one is slower of float32.

    A rate is None where it was not measured.
    """

    device: str | None
    device_name: str | None
    machine: str
    clock: str | None
    dtype: str
    bytes_per_s: Rate | None
    flops_per_s: Rate | None

    def is_of(self, setting: Setting) -> bool:
        """Whether a setting has the device, clock and dtype of this ceiling: no other device's will do."""
        return all(getattr(self, field) == getattr(setting, field) for field in (*DEVICE, "dtype"))

    def roof(self, unit: Literal["value", "low", "high"] = "value") -> Roof | None:
        """The roof by the median, the slowest or the fastest units; None where a rate is missing."""
        if self.bytes_per_s is None or self.flops_per_s is None:
            return None
        return Roof(getattr(self.bytes_per_s, unit), getattr(self.flops_per_s, unit))


def find_ceilings(rows: pd.DataFrame) -> list[Ceiling]:
    """The ceilings of every device, clock and dtype among all measured rows.

    Of several sizes, or dtypes copied, the fastest counts.
    """
    if rows.empty:
        return []
    measured = rows[rows["subject"] == "ceiling"]
    devices = measured.groupby(list(DEVICE), dropna=False)
    return [ceiling for _, group in devices for ceiling in _of_device(group)]


def _of_device(rows: pd.DataFrame) -> Iterator[Ceiling]:
    one = Setting.of(rows.iloc[0])
    device = one.device, one.device_name, one.machine, one.clock
    bandwidth = _fastest(rows[rows["kernel"] == COPY], "min_bytes")
    for dtype in sorted(rows["dtype"].dropna().unique()):
        computed_in = (dtype, "float32") if dtype in NARROW else (dtype,)
        products = rows[(rows["kernel"] == PRODUCT) & rows["dtype"].isin(computed_in)]
        yield Ceiling(*device, dtype, bandwidth, _fastest(products, "flops"))


def _fastest(rows: pd.DataFrame, amount: str) -> Rate | None:
    rates = []
    for _, case in rows[rows[amount].notna()].groupby("key"):
        seconds = case.groupby("unit")["median_s"].median()
        units = float(case[amount].iloc[0]) / seconds.to_numpy(dtype=float)
        rates.append(Rate(float(np.median(units)), float(units.min()), float(units.max()), len(units)))
    fastest = max((rate for rate in rates if rate.value > 0), key=lambda rate: rate.value, default=None)
    return replace(fastest, high=max(rate.high for rate in rates)) if fastest else None


def ceiling_of(setting: Setting, ceilings: Iterable[Ceiling]) -> Ceiling | None:
    """The complete ceiling of a setting; None where it is missing or lacks a rate."""
    ceiling = next((one for one in ceilings if one.is_of(setting)), None)
    return ceiling if ceiling and ceiling.roof() else None
