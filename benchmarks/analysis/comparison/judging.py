"""The verdicts of a comparison on times: on cases, on all of them together, and on the ceilings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from benchmarks.analysis.comparison.conclusions import (
    CaseChange,
    CeilingChange,
    CommonChange,
    Ratio,
    TimeVerdict,
)
from benchmarks.analysis.comparison.inference import FAMILY, Change, find_change, holm, join
from benchmarks.analysis.comparison.matching import Stratum
from benchmarks.analysis.comparison.states import ALPHA, FARTHEST
from benchmarks.analysis.scaling.run_effect import RUN_EFFECT
from benchmarks.analysis.scaling.units import Floats

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


def verdicts(change: Change, margin: float, weight: float | Floats = 1.0) -> tuple[list[str], Floats]:
    """A verdict for each of a whole family of changes, and the p-values it rests on.

    Args:
        change: Of all quantities that are asked at once.
        margin: Log-ratio up to which times are called the same.
        weight: By how much each quantity changes where the log-times it rests on do by 1.

    Returns:
        "larger", "smaller", "same" or "inconclusive" of each, and the p-values after Holm.
    """
    p = holm(change.p)
    limit = margin * np.asarray(weight)
    half, size = change.half_width, np.abs(change.value)
    by_states = (np.asarray(change.chance) > ALPHA) & (size - half <= math.log(FARTHEST) * weight)
    sure = (p <= ALPHA) & (size > limit) & ~by_states
    same = (change.value - half >= -limit) & (change.value + half <= limit)
    names = np.select(
        [sure & (change.value > 0), sure & (change.value < 0), same],
        ["larger", "smaller", "same"],
        "inconclusive",
    )
    return names.tolist(), p


def judge_cases(parts: Sequence[Stratum], margin: float) -> list[CaseChange]:
    """Every case of both sides: its seconds, their ratio with its interval, and the verdict."""
    tables = [log_tables(part) for part in parts]
    changes = [
        find_change(base.to_numpy(), head.to_numpy(), paired=part.paired, unseen=unseen(part))
        for part, (base, head) in zip(parts, tables, strict=True)
    ]
    change = join(changes)
    found, p = verdicts(change, math.log1p(margin))
    judged = zip(ratios(change), found, p, strict=True)
    cases = []
    for part, (base, head) in zip(parts, tables, strict=True):
        names = part.cases()
        for name, before, after in zip(base, *_means(base, head, part.paired), strict=True):
            key, case = names[str(name)]
            ratio, verdict, chance = next(judged)
            cases.append(CaseChange(
                key=key,
                case=case,
                units=int(min(base[name].count(), head[name].count())),
                base_s=known(math.exp(before)),
                head_s=known(math.exp(after)),
                change=ratio,
                p=known(chance),
                verdict=_TIME_VERDICTS[verdict],
            ))  # fmt: skip
    return cases


def _means(base: pd.DataFrame, head: pd.DataFrame, paired: bool) -> tuple[list[float], list[float]]:
    """Means of both sides, by case, whose difference is the change: paired, of the pairs that hold both."""
    if paired:
        base, head = base.where(head.notna()), head.where(base.notna())
    return base.mean().tolist(), head.mean().tolist()


_TIME_VERDICTS: dict[str, TimeVerdict] = {
    "larger": "slower", "smaller": "faster", "same": "same", "inconclusive": "inconclusive"
}  # fmt: skip


def unseen(part: Stratum) -> float:
    """What is assumed of the effect of a run, where the units cannot show it."""
    return RUN_EFFECT if part.unit == "repetition" else 0.0


def ratios(change: Change) -> Iterator[Ratio]:
    """Each change as a ratio with its 95 % interval."""
    for value, half in zip(change.value, change.half_width, strict=True):
        logs = np.clip([value, value - half, value + half], -WIDEST, WIDEST)
        yield Ratio(*map(known, np.exp(logs)))


def known(value: float) -> float | None:
    """The number, or None where too few units tell it."""
    return float(value) if math.isfinite(value) else None


def find_common(part: Stratum, margin: float) -> Iterator[CommonChange]:
    """The change of the median case, where there are enough cases to speak of all of them."""
    tables = log_tables(part)
    held = tables[0].notna().any() & tables[1].notna().any()
    base, head = (table.loc[:, held].to_numpy() for table in tables)
    if base.shape[1] < FAMILY:
        return
    centre = np.nanmean(base, axis=0)
    middle = [np.nanmedian(table - centre, axis=1, keepdims=True) for table in (base, head)]
    change = find_change(*middle, paired=part.paired, unseen=unseen(part))
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
        change=next(ratios(change)),
        share=near,
        within=math.expm1(within),
        moved=bool(abs(value) > max(math.log1p(margin), half) and near >= TOGETHER),
    )


def find_controls(part: Stratum) -> Iterator[CeilingChange]:
    """The changes of the ceilings, which no commit of a kernel touches."""
    base, head = log_tables(part, ceilings=True)
    change = find_change(base.to_numpy(), head.to_numpy(), paired=part.paired, unseen=unseen(part))
    names = part.cases()
    for name, ratio in zip(base, ratios(change), strict=True):
        key, case = names[str(name)]
        yield CeilingChange(key, case.kernel, str(case.setting.device), str(case.setting.dtype), ratio)
