"""The quantities by which exponents and crossovers show whether they moved, and what is in doubt of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from benchmarks.analysis.comparison.conclusions import Place
from benchmarks.analysis.comparison.inference import Change, find_change
from benchmarks.analysis.comparison.judging import unseen
from benchmarks.analysis.comparison.matching import Stratum
from benchmarks.analysis.reading.setting import Setting, by_series
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


def exponents(stratum: Stratum) -> Iterator[SeriesExponents]:
    """The exponent of every series of both sides, each unit's slope over one common window.

    The window is that of `growth.flat_window` where both sides have one (the shorter of them), else the
    longest 3 common lengths. An exponent moves when the ends of its window move apart.
    """
    after = {(kernel, setting): rows for kernel, _, setting, rows in by_series(stratum.head)}
    for kernel, family, setting, rows in by_series(stratum.base):
        if (kernel, setting) not in after:
            continue
        base, head = stratum.shared(
            [complete_block(unit_table(one))[0] for one in (rows, after[kernel, setting])]
        )
        lengths = base.columns.intersection(head.columns)
        if len(lengths) < MIN_LENGTHS or not len(base) or not len(head):
            continue
        starts = [
            flat_window(local_slopes(table[lengths]), slope_tolerance(table[lengths], unseen(stratum)))
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
