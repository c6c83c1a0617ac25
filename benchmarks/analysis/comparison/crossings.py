"""Where crossovers lie on both sides of a comparison, and by which quantities it shows that they moved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.analysis.comparison.conclusions import Place
from benchmarks.analysis.comparison.judging import unseen
from benchmarks.analysis.comparison.matching import Stratum
from benchmarks.analysis.comparison.shifts import UnitValues, in_doubt
from benchmarks.analysis.reading.setting import Setting, by_setting
from benchmarks.analysis.scaling.crossover import Crossover, find_crossover
from benchmarks.analysis.scaling.units import complete_block, unit_table


@dataclass(frozen=True, eq=False)
class PairCrossovers:
    """The crossover of one pair of kernels on both sides.

    `values` are the logs of the crossovers where both lie inside the lengths; else the log-ratios of the pair
    at one length, which may show that the lead there changed hands.
    """

    contender: str
    baseline: str
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


def crossovers(stratum: Stratum) -> Iterator[PairCrossovers]:
    """Every crossover in time of both sides."""
    after = dict(by_setting(stratum.head))
    for setting, rows in by_setting(stratum.base):
        if setting not in after:
            continue
        before, now = _times(rows), _times(after[setting])
        for contender, baseline in stratum.roles.pairs(before.keys() & now.keys()):
            names = contender, baseline
            tables = stratum.shared([times[name] for times in (before, now) for name in names])
            if not len(tables[0]):
                continue
            pairs = [(tables[0], tables[1]), (tables[2], tables[3])]
            found = [find_crossover(*pair, unseen=unseen(stratum)) for pair in pairs]
            if all(one.kind != "none" for one in found):
                base, head = map(Place.of, found)
                yield PairCrossovers(contender, baseline, setting, base, head, _values(pairs, found))


def _values(pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]], found: Sequence[Crossover]) -> UnitValues:
    if found[0].n is None or found[1].n is None:
        return _leads(pairs, [Place.of(one) for one in found])
    (base, slope), (head, other) = (
        _crossings(*pair, one.n) for pair, one in zip(pairs, found, strict=True) if one.n is not None
    )
    # A tie at both lengths beside a crossover leaves it anywhere between them: its shift is not a number.
    weight = 2 / (min(abs(slope), abs(other)) or 2)
    return UnitValues(base, head, weight, weight / math.sqrt(2))


def _leads(pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]], places: Sequence[Place]) -> UnitValues:
    """Log-ratios at the length that tells best whether the lead there changed hands.

    It is one where the two sides have different leaders that neither of them doubts: between the stretches
    that are `in_doubt` on either side, ends included. Of several the one is taken where the ratio changed
    most.
    """
    base, head = (_shared_units(*pair).apply(np.log) for pair in pairs)
    (low, high), (other_low, other_high) = map(in_doubt, places)
    lengths = [int(length) for length in base.columns.intersection(head.columns)]
    between = [
        length
        for length in lengths
        if (high <= length <= other_low or other_high <= length <= low)
        and base[length].mean() * head[length].mean() < 0
    ]
    tried = len(lengths) if between else math.inf
    if not lengths:
        return UnitValues(base.mean(axis=1), head.mean(axis=1), 2.0, math.sqrt(2), tried)
    place = max(between or lengths, key=lambda length: abs(head[length].mean() - base[length].mean()))
    return UnitValues(base[place].dropna(), head[place].dropna(), 2.0, math.sqrt(2), tried)


def _shared_units(contender: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """Contender over baseline by unit and length; without a common unit, that of their medians."""
    ratios = (contender / baseline).dropna(axis=1, how="all").dropna(how="all")
    return _of_medians(contender, baseline) if ratios.empty else ratios


def _of_medians(contender: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    return (contender.median() / baseline.median()).dropna().to_frame().T


def _crossings(contender: pd.DataFrame, baseline: pd.DataFrame, n: float) -> tuple[pd.Series[float], float]:
    """Log of each unit's crossover, and the slope of the log-ratio there.

    To first order: a unit whose log-ratio at the common crossover is r crosses r / slope before it.
    """
    table = complete_block(_shared_units(contender, baseline))[0]
    if table.empty:  # no unit holds two lengths
        table = _of_medians(contender, baseline)
    x, ratios = np.log(table.columns.to_numpy(dtype=float)), np.log(table.to_numpy(dtype=float))
    place, mean = math.log(n), ratios.mean(axis=0)
    right = int(np.clip(np.searchsorted(x, place), 1, len(x) - 1))
    slope = float((mean[right] - mean[right - 1]) / (x[right] - x[right - 1]))
    there = np.array([np.interp(place, x, unit) for unit in ratios])
    return pd.Series(place - there / (slope or math.nan), table.index), slope


def _times(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Seconds by unit and length of each kernel."""
    return {str(kernel): unit_table(group) for kernel, group in rows.groupby("kernel")}
