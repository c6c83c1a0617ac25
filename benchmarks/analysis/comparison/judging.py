"""The verdicts of a comparison: on cases, on what follows from them, and on all of them together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.analysis.comparison.inference import ALPHA, FAMILY, Change, find_change, holm
from benchmarks.analysis.comparison.matching import Stratum
from benchmarks.analysis.comparison.shifts import Shift, crossovers, exponents, find_shifts, in_doubt
from benchmarks.analysis.reading.setting import CASE
from benchmarks.analysis.scaling.units import Floats

RUN_NOISE = 0.02
"""What a run does to each of its cases, assumed where a side has one run: 1.5 to 2 % on shared machines."""
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


def judge_cases(parts: Sequence[Stratum], margin: float) -> list[dict[str, Any]]:
    """Every case of both sides: its medians in seconds, the ratio with its interval, and the verdict."""
    changes, rows = [], []
    for part in parts:
        base, head = log_tables(part)
        changes.append(
            find_change(base.to_numpy(), head.to_numpy(), paired=part.paired, unseen=_unseen(part))
        )
        first = part.head.drop_duplicates("case").set_index("case")
        for case in base:
            rows.append({
                **{field: first.at[case, field] for field in ("key", *CASE)},
                "units": int(min(base[case].count(), head[case].count())),
                "base_s": math.exp(base[case].median()),
                "head_s": math.exp(head[case].median()),
            })  # fmt: skip
    change = _join(changes)
    found, p = verdicts(change, math.log1p(margin))
    words = {"larger": "slower", "smaller": "faster"}
    for row, numbers, name, chance in zip(rows, _ratios(change), found, p, strict=True):
        row |= {**numbers, "p": chance, "verdict": words.get(name, name)}
    return rows


def _unseen(part: Stratum) -> float:
    return RUN_NOISE if part.unit == "repetition" else 0.0


def _ratios(change: Change) -> Iterator[dict[str, float]]:
    for value, half in zip(change.value, change.half_width, strict=True):
        logs = np.clip([value, value - half, value + half], -WIDEST, WIDEST)
        yield dict(zip(("ratio", "low", "high"), np.exp(logs), strict=True))


def judge_exponents(parts: Sequence[Stratum], margin: float) -> list[dict[str, Any]]:
    """Every exponent of both sides, the shift with its interval, and whether it moved."""
    found = [(part, list(exponents(part))) for part in parts]
    shifts = [one for _, ours in found for one in ours]
    change = _join([find_shifts(part, ours, _unseen(part)) for part, ours in found if ours])
    names, p = verdicts(change, math.log1p(margin) * np.array([one.weight for one in shifts]))
    return [
        {
            **one.fields,
            "base": one.base.mean(),
            "head": one.head.mean(),
            "shift": value,
            "low": value - half,
            "high": value + half,
            "p": chance,
            "verdict": _moved(name),
        }
        for one, value, half, name, chance in zip(
            shifts, change.value, change.half_width, names, p, strict=True
        )
    ]


def judge_crossovers(parts: Sequence[Stratum], margin: float) -> list[dict[str, Any]]:
    """Where both sides have one inside, by the interval of their ratio; else by whether they can be equal."""
    rows: list[dict[str, Any]] = []
    inside: list[tuple[dict[str, Any], Shift]] = []
    changes = []
    for part in parts:
        found = list(crossovers(part))
        ours = [shift for _, shift in found if shift]
        changes += [find_shifts(part, ours, _unseen(part))] if ours else []
        for fields, shift in found:
            row = {**fields, "ratio": None, "low": None, "high": None, "p": None, "verdict": _beyond(fields)}
            rows.append(row)
            inside += [(row, shift)] if shift else []
    change = _join(changes)
    names, p = verdicts(change, math.log1p(margin) * np.array([shift.weight for _, shift in inside]))
    for (row, _), numbers, name, chance in zip(inside, _ratios(change), names, p, strict=True):
        row |= {**numbers, "p": chance, "verdict": _moved(name)}
    return rows


def _moved(name: str) -> str:
    return {"larger": "moved", "smaller": "moved", "same": "unchanged"}.get(name, name)


def _beyond(fields: Mapping[str, Any]) -> str:
    """The verdict where a crossover does not lie inside the measured lengths on both sides."""
    base, head = fields["base"], fields["head"]
    (low, high), (other_low, other_high) = in_doubt(base), in_doubt(head)
    if high < other_low or other_high < low:
        return "moved"
    beyond = base["kind"] == head["kind"] and base["kind"] in ("below", "above")
    return "unchanged" if beyond and not (base["within_noise"] or head["within_noise"]) else "inconclusive"


def find_common(part: Stratum, margin: float) -> Iterator[dict[str, Any]]:
    """What moves the median case, where there are cases enough to speak of all of them."""
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
    yield {
        **{field: part.head[field].iloc[0] for field in ("machine", "device", "device_name", "clock")},
        **next(_ratios(change)),
        "share": near,
        "within": math.expm1(within),
        "moved": bool(abs(value) > max(math.log1p(margin), half) and near >= TOGETHER),
    }


def find_controls(part: Stratum) -> Iterator[dict[str, Any]]:
    """What no commit of a kernel changes: the ceilings, with the ratios of their times."""
    base, head = log_tables(part, ceilings=True)
    change = find_change(base.to_numpy(), head.to_numpy(), paired=part.paired, unseen=_unseen(part))
    first = part.head.drop_duplicates("case").set_index("case")
    for case, numbers in zip(base, _ratios(change), strict=True):
        yield {**{field: first.at[case, field] for field in ("key", "kernel", "device", "dtype")}, **numbers}
