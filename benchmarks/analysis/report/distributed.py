"""Speedup, efficiency and exchanged bytes over the ranks that share a sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from benchmarks.analysis.reading.setting import Setting, by_series
from benchmarks.analysis.report.over_ranks import OfRanks, OverRanks, RankPoint
from benchmarks.analysis.scaling.crossover import find_crossover
from benchmarks.analysis.scaling.firmness import of_crossover
from benchmarks.analysis.scaling.run_effect import RUN_EFFECT
from benchmarks.analysis.scaling.units import count_exponent, unit_table

Tables = Mapping[int, pd.DataFrame]
"""Rows of one kernel and setting, by the number of ranks."""
OF_CALLS = ("exchanged_bytes", "predicted_exchanged_bytes", "exposed_s")


def find_over_ranks(rows: pd.DataFrame, run_effect: float = RUN_EFFECT) -> list[OverRanks]:
    """How each kernel scales that ranks computed together; none where nothing was measured so.

    Args:
        rows: Those of `records.Records`, of attention.
        run_effect: What a run does to all its repetitions, as the standard deviation of the log of a time.
    """
    if "ranks" not in rows or rows["ranks"].isna().all():
        return []
    shared = rows[rows["ranks"].notna()]
    shared = shared.assign(**{name: math.nan for name in OF_CALLS if name not in shared})
    found: dict[tuple[str, str, Setting], dict[int, pd.DataFrame]] = {}
    for kernel, family, setting, group in by_series(shared):
        alone = replace(setting, ranks=None)
        found.setdefault((kernel, family, alone), {})[setting.ranks or 1] = group
    return [
        OverRanks(*key, _points(tables), [_of_ranks(tables, ranks, run_effect) for ranks in sorted(tables)])
        for key, tables in found.items()
    ]


def _medians(rows: pd.DataFrame, quantity: str = "median_s") -> dict[int, float]:
    """The median over the units at each length."""
    table = unit_table(rows.astype({quantity: float}), quantity)
    return {int(length): float(value) for length, value in table.median().items()}  # type: ignore[call-overload]


def _points(tables: Tables) -> list[RankPoint]:
    one = _medians(tables[1]) if 1 in tables else {}
    points = []
    for ranks, rows in sorted(tables.items()):
        amounts = {name: _medians(rows, name) for name in OF_CALLS}
        for length, seconds in _medians(rows).items():
            received, law, exposed = (_known(amounts[name].get(length)) for name in OF_CALLS)
            speedup, part = _over(one.get(length), seconds), _over(one.get(length // ranks), seconds)
            efficiency = None if speedup is None else speedup / ranks
            share = None if exposed is None or ranks == 1 else exposed / seconds
            points.append(RankPoint(ranks, length, seconds, speedup, efficiency, part, received, law, share))
    return points


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _over(one: float | None, seconds: float) -> float | None:
    return None if one is None else one / seconds


def _of_ranks(tables: Tables, ranks: int, run_effect: float) -> OfRanks:
    received = _medians(tables[ranks], "exchanged_bytes")
    exponent = count_exponent(np.array(list(received), dtype=float), np.array(list(received.values())))
    if ranks == 1 or 1 not in tables:
        return OfRanks(ranks, exponent, None, None)
    # Two runs, each with an effect of its own, and units that are no pairs but by their order.
    both = [tables[number] for number in (ranks, 1)]
    of_runs = all((rows["unit_kind"] == "run").all() for rows in both)
    effect = 0.0 if of_runs else math.sqrt(2) * run_effect
    found = find_crossover(*(unit_table(rows).reset_index(drop=True) for rows in both), unseen=effect)
    return OfRanks(ranks, exponent, found, of_crossover(found, "run" if of_runs else "repetition"))
