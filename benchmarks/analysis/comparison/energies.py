"""The energy of calls on both sides of a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pandas as pd

from benchmarks.analysis.comparison.conclusions import EnergyChange, EnergyVerdict
from benchmarks.analysis.comparison.inference import Change, find_change, join
from benchmarks.analysis.comparison.judging import known, ratios, unseen, verdicts
from benchmarks.analysis.comparison.matching import Stratum

ENERGY, ERROR = "energy_j", "energy_error_j"
NORMAL = 1.96
"""Half of a 95 % interval, in standard errors."""


def compare_energies(parts: Sequence[Stratum], margin: float) -> list[EnergyChange]:
    """Every case of which both sides know the energy: its joules, their ratio, and the verdict.

    Of several runs a side their scatter is the noise, as it is of times. A single run reads the energy of a
    case once: then the errors of both readings are the noise, and the effect of a run is assumed as well.
    Holm's correction is over all energies.
    """
    tables = [(part, *part.aligned(_table(part.base), _table(part.head))) for part in parts]
    tables = [(part, base, head) for part, base, head in tables if len(base.columns)]
    change = join([_change(*table) for table in tables])
    found, p = verdicts(change, math.log1p(margin))
    judged = zip(ratios(change), found, p, strict=True)
    changes = []
    for part, base, head in tables:
        names = part.cases()
        for name in base:
            key, case = names[str(name)]
            before, after = (known(math.exp(side[name].mean())) for side in (base, head))
            ratio, verdict, chance = next(judged)
            of_case = EnergyChange(
                key, case, before, after, ratio, known(chance), cast(EnergyVerdict, verdict)
            )
            changes.append(of_case)
    return changes


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    """Log joules per unit (rows) and case (columns); repetitions of a single run repeat its one reading."""
    joules = _known(rows).groupby(["unit", "case"], sort=False)[ENERGY].median().unstack("case")
    return joules.apply(np.log)


def _known(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of attention whose energy is known, and its error or NaN."""
    columns = {
        name: pd.to_numeric(rows[name]).astype(float) if name in rows else np.nan for name in (ENERGY, ERROR)
    }
    rows = rows.assign(**columns)
    return rows[(rows["subject"] != "ceiling") & (rows[ENERGY] > 0)]


def _change(part: Stratum, base: pd.DataFrame, head: pd.DataFrame) -> Change:
    change = find_change(base.to_numpy(), head.to_numpy(), paired=part.paired, unseen=unseen(part))
    if part.unit != "repetition":
        return change
    errors = [_relative_errors(rows).reindex(base.columns).to_numpy() for rows in (part.base, part.head)]
    variance = sum(np.square(one / NORMAL) for one in errors) + 2 * unseen(part) ** 2
    return replace(change, error=np.sqrt(variance), freedom=np.full_like(change.value, np.inf))


def _relative_errors(rows: pd.DataFrame) -> pd.Series:
    rows = _known(rows)
    return (rows[ERROR] / rows[ENERGY]).groupby(rows["case"]).max()
