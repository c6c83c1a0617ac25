"""The verdicts of a comparison on what follows from its times: did an exponent or a crossover move?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.analysis.comparison.conclusions import CrossoverShift, ExponentShift, Ratio, ShiftVerdict
from benchmarks.analysis.comparison.crossings import PairCrossovers, crossovers
from benchmarks.analysis.comparison.inference import join
from benchmarks.analysis.comparison.judging import known, ratios, unseen, verdicts
from benchmarks.analysis.comparison.matching import Stratum
from benchmarks.analysis.comparison.shifts import SeriesExponents, exponents, find_shifts

VERDICTS: dict[str, ShiftVerdict] = {
    "larger": "moved", "smaller": "moved", "same": "unchanged", "inconclusive": "inconclusive"
}  # fmt: skip


def judge_shifts(parts: Sequence[Stratum], margin: float) -> tuple[list[ExponentShift], list[CrossoverShift]]:
    """Every exponent and crossover of both sides, and whether it moved.

    All of them are one family: of equal code, fewer than 5 % of the comparisons may call any of them moved.
    An exponent, or a crossover inside the lengths on both sides, is judged by its interval. Any other
    crossover moved where it surely passed a measured length: see `crossings`.
    """
    found: list[tuple[Stratum, list[SeriesExponents | PairCrossovers]]] = [
        (part, [*exponents(part), *crossovers(part)]) for part in parts
    ]
    shifts = [one for _, ours in found for one in ours]
    change = join(
        [find_shifts(part, [one.values for one in ours], unseen(part)) for part, ours in found if ours]
    )
    names, p = verdicts(change, math.log1p(margin), np.array([one.values.weight for one in shifts]))
    judged = zip(shifts, change.value, change.half_width, ratios(change), names, p, strict=True)
    series: list[ExponentShift] = []
    pairs: list[CrossoverShift] = []
    for one, value, half, ratio, name, chance in judged:
        if isinstance(one, SeriesExponents):
            series.append(_exponent(one, value, half, known(chance), VERDICTS[name]))
        else:
            pairs.append(_crossover(one, ratio, known(chance), VERDICTS[name]))
    return series, pairs


def _exponent(
    one: SeriesExponents, shift: float, half: float, p: float | None, verdict: ShiftVerdict
) -> ExponentShift:
    return ExponentShift(
        kernel=one.kernel,
        family=one.family,
        setting=one.setting,
        window=one.window,
        base=float(one.values.base.mean()),
        head=float(one.values.head.mean()),
        shift=known(shift),
        low=known(shift - half),
        high=known(shift + half),
        p=p,
        verdict=verdict,
    )


def _crossover(one: PairCrossovers, ratio: Ratio, p: float | None, verdict: ShiftVerdict) -> CrossoverShift:
    if not one.inside:
        ratio, p = Ratio(), p if math.isfinite(one.values.tried) else None
        if verdict != "moved":
            verdict = "unchanged" if one.beyond_alike else "inconclusive"
    return CrossoverShift(one.contender, one.baseline, one.setting, one.base, one.head, ratio, p, verdict)
