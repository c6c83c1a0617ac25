"""Did an exponent or a crossover move?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd

from benchmarks.analysis.comparison.conclusions import Place
from benchmarks.analysis.comparison.inference import Change, find_change
from benchmarks.analysis.comparison.matching import Stratum
from benchmarks.analysis.reading.setting import Setting, by_series, by_setting
from benchmarks.analysis.scaling.crossover import Crossover, find_crossover
from benchmarks.analysis.scaling.growth import flat_window, slope_tolerance
from benchmarks.analysis.scaling.units import MIN_LENGTHS, complete_block, local_slopes, unit_table


@dataclass(frozen=True, eq=False)
class UnitValues:
    """A quantity that follows from many cases, unit by unit on both sides.

    Attributes:
        base: Its value in each unit of the base, by unit: an exponent, or the log of a crossover.
        head: Its value in each unit of the head.
        weight: By how much it moves when the log-times it rests on change by 1, in opposite directions.
        noise: Its standard deviation per unit of standard deviation of each log-time.
        tried: How many quantities it was chosen from; infinite for one of which nothing may be concluded.
    """

    base: pd.Series[float]
    head: pd.Series[float]
    weight: float
    noise: float
    tried: float = 1.0


@dataclass(frozen=True, eq=False)
class SeriesExponents:
    """The exponent of one series in each unit of both sides, over one window of lengths."""

    kernel: str
    family: str
    setting: Setting
    window: list[int]
    values: UnitValues


@dataclass(frozen=True, eq=False)
class PairCrossovers:
    """The crossover of one pair of kernels on both sides.

    `values` are the logs of the crossovers where both lie inside the lengths; else the log-ratios of the pair
    at one length, which may show that the lead there changed hands.
    """

    linear: str
    standard: str
    setting: Setting
    base: Place
    head: Place
    values: UnitValues

    @property
    def inside(self) -> bool:
        """Whether both lie inside the lengths."""
        return self.base.n is not None and self.head.n is not None

    @property
    def beyond_alike(self) -> bool:
        """Whether the same kernel is surely ahead at every length of both sides."""
        places = (self.base, self.head)
        return self.base.kind == self.head.kind in ("below", "above") and all(
            place.units > 1 and not place.within_noise for place in places
        )


def exponents(stratum: Stratum) -> Iterator[SeriesExponents]:
    """The exponent of every series of both sides, each unit's slope over one common window.

    The window is that of `growth.flat_window` where both sides have one (the shorter of them), else the
    longest 3 common lengths. An exponent moves when the ends of its window move apart.
    """
    after = {(kernel, setting): rows for kernel, _, setting, rows in by_series(stratum.head)}
    for kernel, family, setting, rows in by_series(stratum.base):
        if (kernel, setting) not in after:
            continue
        base, head = (complete_block(unit_table(one))[0] for one in (rows, after[kernel, setting]))
        lengths = base.columns.intersection(head.columns)
        if len(lengths) < MIN_LENGTHS:
            continue
        starts = [
            flat_window(local_slopes(table[lengths]), slope_tolerance(table[lengths]))
            for table in (base, head)
        ]
        start = len(lengths) - MIN_LENGTHS if None in starts else max(start or 0 for start in starts)
        window = lengths[start:]
        x = np.log(window.to_numpy(dtype=float))
        before, now = (
            pd.Series(np.polyfit(x, np.log(table[window].to_numpy(dtype=float)).T, 1)[0], table.index)
            for table in (base, head)
        )
        spread = float(np.sqrt(np.sum((x - x.mean()) ** 2)))
        values = UnitValues(before, now, 2 / float(x[-1] - x[0]), 1 / spread)
        yield SeriesExponents(kernel, family, setting, [int(window[0]), int(window[-1])], values)


def crossovers(stratum: Stratum) -> Iterator[PairCrossovers]:
    """Every crossover in time of both sides."""
    after = dict(by_setting(stratum.head))
    for setting, rows in by_setting(stratum.base):
        if setting not in after:
            continue
        before, now = _times(rows), _times(after[setting])
        common = [name for name in before if name in now]
        kernels = (
            [kernel for family, kernel in common if family == wanted] for wanted in ("linear", "standard")
        )
        for linear, standard in product(*kernels):
            pairs = [(times["linear", linear], times["standard", standard]) for times in (before, now)]
            found = [find_crossover(*pair) for pair in pairs]
            if all(one.kind != "none" for one in found):
                base, head = map(Place.of, found)
                yield PairCrossovers(linear, standard, setting, base, head, _values(pairs, found))


def _values(pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]], found: Sequence[Crossover]) -> UnitValues:
    if found[0].n is None or found[1].n is None:
        return _leads(pairs, [Place.of(one) for one in found])
    (base, slope), (head, other) = (
        _crossings(*pair, one.n) for pair, one in zip(pairs, found, strict=True) if one.n is not None
    )
    weight = 2 / min(abs(slope), abs(other))
    return UnitValues(base, head, weight, weight / math.sqrt(2))


def _leads(pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]], places: Sequence[Place]) -> UnitValues:
    """Log-ratios at the length that tells best that a crossover moved past it, if any does.

    Past a length where one kernel is ahead before and the other after. That lies where neither side doubts
    its lead: between the stretches `in_doubt` of the two sides, ends included. Of these lengths the one is
    taken where the ratio changed most.
    """
    base, head = (_shared_units(*pair).apply(np.log) for pair in pairs)
    (low, high), (other_low, other_high) = map(in_doubt, places)
    lengths = [int(length) for length in base.columns.intersection(head.columns)]
    between = [length for length in lengths if high <= length <= other_low or other_high <= length <= low]
    tried = len(lengths) if between else math.inf
    if not lengths:
        return UnitValues(base.mean(axis=1), head.mean(axis=1), 2.0, math.sqrt(2), tried)
    place = max(between or lengths, key=lambda length: abs(head[length].mean() - base[length].mean()))
    return UnitValues(base[place].dropna(), head[place].dropna(), 2.0, math.sqrt(2), tried)


def _shared_units(linear: pd.DataFrame, standard: pd.DataFrame) -> pd.DataFrame:
    """Linear over standard by unit and length; without a common unit, that of their medians."""
    ratios = (linear / standard).dropna(axis=1, how="all").dropna(how="all")
    return (linear.median() / standard.median()).dropna().to_frame().T if ratios.empty else ratios


def _crossings(linear: pd.DataFrame, standard: pd.DataFrame, n: float) -> tuple[pd.Series[float], float]:
    """Log of each unit's crossover, and the slope of the log-ratio there.

    To first order: a unit whose log-ratio at the common crossover is r crosses r / slope before it.
    """
    table = complete_block(_shared_units(linear, standard))[0]
    x, ratios = np.log(table.columns.to_numpy(dtype=float)), np.log(table.to_numpy(dtype=float))
    place, mean = math.log(n), ratios.mean(axis=0)
    right = int(np.clip(np.searchsorted(x, place), 1, len(x) - 1))
    slope = float((mean[right] - mean[right - 1]) / (x[right] - x[right - 1]))
    there = np.array([np.interp(place, x, unit) for unit in ratios])
    return pd.Series(place - there / slope, table.index), slope


def find_shifts(stratum: Stratum, values: Sequence[UnitValues], run_noise: float) -> Change:
    """The changes of these quantities; see `inference.find_change`.

    They lend each other what they show of the noise, so each is taken in units of what noise does to it.
    """
    base, head = stratum.aligned(
        pd.DataFrame({index: one.base / one.noise for index, one in enumerate(values)}),
        pd.DataFrame({index: one.head / one.noise for index, one in enumerate(values)}),
    )
    change = find_change(base.to_numpy(), head.to_numpy(), paired=stratum.paired, unseen=run_noise)
    noise, tried = (np.array([getattr(one, name) for one in values]) for name in ("noise", "tried"))
    return replace(change, value=change.value * noise, error=change.error * noise, tried=tried)


def in_doubt(place: Place) -> tuple[float, float]:
    """Between which lengths a crossover may lie, also where it lies beyond those measured.

    It lies in the stretch that its kind says, or where the noise hides who is ahead. What the ratio does
    between two lengths is not measured, so a length within the noise puts all in doubt up to its neighbours.
    """
    assert place.lengths is not None, "a crossover of kernels without common lengths is not compared"
    shortest, longest = place.lengths
    low, high = 0.0, math.inf
    if place.units < 2 or place.kind == "multiple":
        return low, high
    if place.kind == "below":
        high = shortest
    elif place.kind == "above":
        low = longest
    elif place.low is not None and place.high is not None:
        low = 0.0 if place.low <= shortest else place.low
        high = math.inf if place.high >= longest else place.high
    elsewhere = [length for length in place.within_noise if not low < length < high]
    for noisy in elsewhere:
        low = min(low, max((length for length in place.seq_lens if length < noisy), default=0.0))
        high = max(high, min((length for length in place.seq_lens if length > noisy), default=math.inf))
    return low, high


def _times(rows: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Seconds by unit and length of each kernel."""
    return {
        (str(family), str(kernel)): unit_table(group)
        for (family, kernel), group in rows.groupby(["family", "kernel"])
    }
