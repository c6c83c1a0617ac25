"""The verdicts of a comparison: on cases, on what follows from them, and on all of them together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from benchmarks.analysis.comparison.conclusions import (
    CaseChange,
    CeilingChange,
    CommonChange,
    CrossoverShift,
    ExponentShift,
    Ratio,
    ShiftVerdict,
    TimeVerdict,
)
from benchmarks.analysis.comparison.inference import ALPHA, FAMILY, Change, find_change, holm
from benchmarks.analysis.comparison.matching import Stratum
from benchmarks.analysis.comparison.shifts import PairCrossovers, crossovers, exponents, find_shifts, in_doubt
from benchmarks.analysis.scaling.units import Floats

RUN_NOISE = 0.02
"""Noise of a run in each of its cases, assumed where a side has one run: 1.5 to 2 % on shared machines."""
WIDEST = 20.0
"""Log-ratio at which intervals end: two units can span more than any number holds."""
TOGETHER = 0.75
"""Everything moved when so many of the cases moved alike."""


def log_tables(stratum: Stratum, *, ceilings: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Log seconds per unit (rows) and case (columns) of both sides, aligned."""

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        ours = rows[(rows["subject"] == "ceiling") == ceilings]
        seconds = ours.groupby(["unit", "case"], sort=False)["median_s"].median().unstack("case")
        return seconds.apply(np.log)

    return stratum.aligned(table(stratum.base), table(stratum.head))


def verdicts(change: Change, margin: float | Floats) -> tuple[list[str], Floats]:
    """A verdict for each of a whole family of changes, and the p-values it rests on.

    Args:
        change: Of all quantities that are asked at once.
        margin: Log-ratio (or difference) up to which a quantity is called the same.

    Returns:
        "larger", "smaller", "same" or "inconclusive" of each, and the p-values after Holm.
    """
    p = holm(change.p)
    half = change.half_width
    sure = (p <= ALPHA) & (np.abs(change.value) > margin)
    same = (change.value - half >= -np.asarray(margin)) & (change.value + half <= margin)
    names = np.select(
        [sure & (change.value > 0), sure & (change.value < 0), same],
        ["larger", "smaller", "same"],
        "inconclusive",
    )
    return names.tolist(), p


def _join(changes: Sequence[Change]) -> Change:
    parts = ([getattr(one, name) for one in changes] for name in ("value", "error", "freedom"))
    return Change(*(np.concatenate(part) if part else np.empty(0) for part in parts))


def judge_cases(parts: Sequence[Stratum], margin: float) -> list[CaseChange]:
    """Every case of both sides: its medians in seconds, the ratio with its interval, and the verdict."""
    tables = [log_tables(part) for part in parts]
    changes = [
        find_change(base.to_numpy(), head.to_numpy(), paired=part.paired, unseen=_unseen(part))
        for part, (base, head) in zip(parts, tables, strict=True)
    ]
    change = _join(changes)
    found, p = verdicts(change, math.log1p(margin))
    judged = zip(_ratios(change), found, p, strict=True)
    cases = []
    for part, (base, head) in zip(parts, tables, strict=True):
        known = part.cases()
        for name in base:
            key, case = known[str(name)]
            ratio, verdict, chance = next(judged)
            cases.append(CaseChange(
                key=key,
                case=case,
                units=int(min(base[name].count(), head[name].count())),
                base_s=_known(math.exp(base[name].median())),
                head_s=_known(math.exp(head[name].median())),
                change=ratio,
                p=_known(chance),
                verdict=_TIME_VERDICTS[verdict],
            ))  # fmt: skip
    return cases


_TIME_VERDICTS: dict[str, TimeVerdict] = {
    "larger": "slower", "smaller": "faster", "same": "same", "inconclusive": "inconclusive"
}  # fmt: skip
_SHIFT_VERDICTS: dict[str, ShiftVerdict] = {
    "larger": "moved", "smaller": "moved", "same": "unchanged", "inconclusive": "inconclusive"
}  # fmt: skip


def _unseen(part: Stratum) -> float:
    return RUN_NOISE if part.unit == "repetition" else 0.0


def _ratios(change: Change) -> Iterator[Ratio]:
    for value, half in zip(change.value, change.half_width, strict=True):
        logs = np.clip([value, value - half, value + half], -WIDEST, WIDEST)
        yield Ratio(*map(_known, np.exp(logs)))


def _known(value: float) -> float | None:
    """A number, or None where too few units tell it."""
    return float(value) if math.isfinite(value) else None


def judge_exponents(parts: Sequence[Stratum], margin: float) -> list[ExponentShift]:
    """Every exponent of both sides, the shift with its interval, and whether it moved."""
    found = [(part, list(exponents(part))) for part in parts]
    series = [one for _, ours in found for one in ours]
    changes = [find_shifts(part, [one.values for one in ours], _unseen(part)) for part, ours in found if ours]
    change = _join(changes)
    names, p = verdicts(change, math.log1p(margin) * np.array([one.values.weight for one in series]))
    return [
        ExponentShift(
            kernel=one.kernel,
            family=one.family,
            setting=one.setting,
            window=one.window,
            base=float(one.values.base.mean()),
            head=float(one.values.head.mean()),
            shift=_known(value),
            low=_known(value - half),
            high=_known(value + half),
            p=_known(chance),
            verdict=_SHIFT_VERDICTS[name],
        )
        for one, value, half, name, chance in zip(
            series, change.value, change.half_width, names, p, strict=True
        )
    ]


def judge_crossovers(parts: Sequence[Stratum], margin: float) -> list[CrossoverShift]:
    """Where both sides have one inside, by the interval of their ratio; else by whether they can be equal."""
    found = [(part, list(crossovers(part))) for part in parts]
    inside = [(part, [one.values for one in ours if one.values]) for part, ours in found]
    change = _join([find_shifts(part, values, _unseen(part)) for part, values in inside if values])
    weights = [one.weight for _, values in inside for one in values]
    names, p = verdicts(change, math.log1p(margin) * np.array(weights))
    judged = zip(_ratios(change), names, p, strict=True)
    shifts = []
    for pair in (pair for _, ours in found for pair in ours):
        ratio, chance, verdict = Ratio(), None, _beyond(pair)
        if pair.values:
            ratio, name, value = next(judged)
            chance, verdict = _known(value), _SHIFT_VERDICTS[name]
        shifts.append(CrossoverShift(
            pair.linear, pair.standard, pair.setting, pair.base, pair.head, ratio, chance, verdict
        ))  # fmt: skip
    return shifts


def _beyond(pair: PairCrossovers) -> ShiftVerdict:
    """The verdict where a crossover does not lie inside the measured lengths on both sides."""
    base, head = pair.base, pair.head
    (low, high), (other_low, other_high) = in_doubt(base), in_doubt(head)
    if high < other_low or other_high < low:
        return "moved"
    beyond = base.kind == head.kind and base.kind in ("below", "above")
    return "unchanged" if beyond and not (base.within_noise or head.within_noise) else "inconclusive"


def find_common(part: Stratum, margin: float) -> Iterator[CommonChange]:
    """The change of the median case, where there are enough cases to speak of all of them."""
    tables = log_tables(part)
    held = tables[0].notna().any() & tables[1].notna().any()
    base, head = (table.loc[:, held].to_numpy() for table in tables)
    if base.shape[1] < FAMILY:
        return
    centre = np.nanmean(base, axis=0)
    middle = [np.nanmedian(table - centre, axis=1, keepdims=True) for table in (base, head)]
    change = find_change(*middle, paired=part.paired, unseen=_unseen(part))
    ((value, half),) = zip(change.value, change.half_width, strict=True)
    each = np.nanmean(head - centre, axis=0)
    # Within half of it too: where one half of the cases moved by 10 %, the median case may have by 5 %.
    within = min(math.log1p(margin), abs(value) / 2)
    near = float(np.mean(np.abs(each - value) <= within))
    first = part.head.iloc[0]
    yield CommonChange(
        machine=str(first["machine"]),
        device=str(first["device"]),
        device_name=str(first["device_name"]),
        clock=str(first["clock"]),
        change=next(_ratios(change)),
        share=near,
        within=math.expm1(within),
        moved=bool(abs(value) > max(math.log1p(margin), half) and near >= TOGETHER),
    )


def find_controls(part: Stratum) -> Iterator[CeilingChange]:
    """The changes of the ceilings, which no commit of a kernel touches."""
    base, head = log_tables(part, ceilings=True)
    change = find_change(base.to_numpy(), head.to_numpy(), paired=part.paired, unseen=_unseen(part))
    known = part.cases()
    for name, ratio in zip(base, _ratios(change), strict=True):
        key, case = known[str(name)]
        yield CeilingChange(key, case.kernel, str(case.setting.device), str(case.setting.dtype), ratio)
