"""Did an exponent or a crossover move?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.analysis.comparison.inference import Change, find_change
from benchmarks.analysis.comparison.matching import Stratum
from benchmarks.analysis.reading.records import groups
from benchmarks.analysis.reading.setting import SERIES, SETTING
from benchmarks.analysis.scaling.crossover import Crossover, find_crossover
from benchmarks.analysis.scaling.growth import flat_window
from benchmarks.analysis.scaling.units import MIN_LENGTHS, complete_block, local_slopes, unit_table


@dataclass(frozen=True)
class Shift:
    """A quantity that follows from many cases, unit by unit on both sides.

    Attributes:
        fields: What it is, JSON-ready.
        base: Its value in each unit, by unit: an exponent, or the log of a crossover.
        head: The same after the change.
        weight: By how much it moves when the log-times it rests on change by 1, in opposite directions.
        noise: Its standard deviation per unit of standard deviation of each log-time.
    """

    fields: dict[str, Any]
    base: pd.Series
    head: pd.Series
    weight: float
    noise: float


def exponents(stratum: Stratum) -> Iterator[Shift]:
    """The exponent of every series of both sides, each unit's slope over one common window.

    The window is that of `exponent.flat_window` where both sides have one (the shorter of them), else the
    longest 3 common lengths. An exponent moves when the ends of its window move apart.
    """
    after = {_identity(fields): rows for fields, rows in groups(stratum.head, SERIES)}
    for fields, rows in groups(stratum.base, SERIES):
        if _identity(fields) not in after:
            continue
        base, head = (complete_block(unit_table(one))[0] for one in (rows, after[_identity(fields)]))
        lengths = base.columns.intersection(head.columns)
        if len(lengths) < MIN_LENGTHS:
            continue
        starts = [flat_window(local_slopes(table[lengths])) for table in (base, head)]
        start = len(lengths) - MIN_LENGTHS if None in starts else max(start or 0 for start in starts)
        window = lengths[start:]
        x = np.log(window.to_numpy(dtype=float))
        before, now = (
            pd.Series(np.polyfit(x, np.log(table[window].to_numpy(dtype=float)).T, 1)[0], table.index)
            for table in (base, head)
        )
        spread = float(np.sqrt(np.sum((x - x.mean()) ** 2)))
        ends = [int(window[0]), int(window[-1])]
        yield Shift({**fields, "window": ends}, before, now, 2 / float(x[-1] - x[0]), 1 / spread)


def crossovers(stratum: Stratum) -> Iterator[tuple[dict[str, Any], Shift | None]]:
    """Every crossover in time of both sides, with its shift where it lies inside the lengths of both."""
    after = {_identity(fields): rows for fields, rows in groups(stratum.head, SETTING)}
    for setting, rows in groups(stratum.base, SETTING):
        if _identity(setting) not in after:
            continue
        before, now = _times(rows), _times(after[_identity(setting)])
        common = [name for name in before if name in now]
        kernels = (
            [kernel for family, kernel in common if family == wanted] for wanted in ("linear", "standard")
        )
        for linear, standard in product(*kernels):
            pairs = [(times["linear", linear], times["standard", standard]) for times in (before, now)]
            found = [find_crossover(*pair) for pair in pairs]
            if all(one.kind != "none" for one in found):
                fields = {"linear": linear, "standard": standard, **setting}
                fields |= {"base": _plain(found[0]), "head": _plain(found[1])}
                yield fields, _shift_of(fields, pairs, found)


def _shift_of(
    fields: dict[str, Any],
    pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]],
    found: Sequence[Crossover],
) -> Shift | None:
    if found[0].n is None or found[1].n is None:
        return None
    (base, slope), (head, other) = (
        _crossings(*pair, one.n) for pair, one in zip(pairs, found, strict=True) if one.n is not None
    )
    weight = 2 / min(abs(slope), abs(other))
    return Shift(fields, base, head, weight, weight / math.sqrt(2))


def _crossings(linear: pd.DataFrame, standard: pd.DataFrame, n: float) -> tuple[pd.Series, float]:
    """Log of each unit's crossover, and the slope of the log-ratio there.

    To first order: a unit whose log-ratio at the common crossover is r crosses r / slope before it.
    """
    table = complete_block((linear / standard).dropna(axis=1, how="all").dropna(how="all"))[0]
    if table.empty:  # no shared units: the medians were compared
        table = (linear.median() / standard.median()).dropna().to_frame().T
    x, ratios = np.log(table.columns.to_numpy(dtype=float)), np.log(table.to_numpy(dtype=float))
    place, mean = math.log(n), ratios.mean(axis=0)
    right = int(np.clip(np.searchsorted(x, place), 1, len(x) - 1))
    slope = float((mean[right] - mean[right - 1]) / (x[right] - x[right - 1]))
    there = np.array([np.interp(place, x, unit) for unit in ratios])
    return pd.Series(place - there / slope, table.index), slope


def find_shifts(stratum: Stratum, shifts: Sequence[Shift], run_noise: float) -> Change:
    """The changes of these quantities; see `inference.find_change`."""
    base, head = stratum.aligned(
        pd.DataFrame({index: one.base for index, one in enumerate(shifts)}),
        pd.DataFrame({index: one.head for index, one in enumerate(shifts)}),
    )
    unseen = run_noise * np.array([one.noise for one in shifts])
    return find_change(base.to_numpy(), head.to_numpy(), paired=stratum.paired, unseen=unseen)


def in_doubt(crossover: dict[str, Any]) -> tuple[float, float]:
    """Between which lengths a crossover may lie, also where it lies beyond those measured."""
    (shortest, longest), noise = crossover["lengths"], crossover["within_noise"]
    if crossover["kind"] == "inside" and crossover["low"] is not None:
        low, high = crossover["low"], crossover["high"]
        return (0.0 if low <= shortest else low), (math.inf if high >= longest else high)
    if crossover["kind"] == "below" and crossover["units"] > 1 and longest not in noise:
        return 0.0, float(max([shortest, *noise]))
    if crossover["kind"] == "above" and crossover["units"] > 1 and shortest not in noise:
        return float(min([longest, *noise])), math.inf
    return 0.0, math.inf


def _times(rows: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Seconds by unit and length of each kernel."""
    return {
        (str(family), str(kernel)): unit_table(group)
        for (family, kernel), group in rows.groupby(["family", "kernel"])
    }


def _identity(fields: dict[str, Any]) -> str:
    return "|".join(map(str, fields.values()))


def _plain(crossover: Crossover) -> dict[str, Any]:
    names = ("kind", "n", "low", "high", "ahead_beyond", "lengths", "within_noise", "units")
    return {name: getattr(crossover, name) for name in names}
