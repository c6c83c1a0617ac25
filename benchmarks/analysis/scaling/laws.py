"""Which laws of growth the times allow: c + a N, c + a N², a N + b N² and c + a N^p.

A law is tenable where its misfit, the way the times averaged over the units lie around it, is no more than
the scatter between the units explains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from benchmarks.analysis.scaling.fits import POWERS, Fit, fit_sum
from benchmarks.analysis.scaling.units import Floats, complete_block, student_interval

SIGNIFICANCE = 0.05
"""How often a true law may be called untenable."""
RESOLUTION = 1e-3
"""A misfit of 0.1 % is held against no law, however little the units scatter."""
PALPABLE = 0.1
"""The share of the time from which on a part of a law is worth a sentence."""


@dataclass(frozen=True)
class Law:
    """t / N^factor = first + second N^power; a power of None is free."""

    formula: str
    coefficients: tuple[str, str]
    power: float | None
    factor: int = 0

    @property
    def least_lengths(self) -> int:
        """One more than coefficients, as those alone pass through every point."""
        return 4 if self.power is None else 3


LAWS = {
    "linear": Law("c + a N", ("c_s", "a_s_per_token"), 1),
    "quadratic": Law("c + a N²", ("c_s", "a_s_per_token2"), 2),
    "mixed": Law("a N + b N²", ("a_s_per_token", "b_s_per_token2"), 1, factor=1),
    "free": Law("c + a N^p", ("c_s", "a_s_per_token_p"), None),
}
"""The simplest first."""


@dataclass(frozen=True)
class Judged:
    """A law fitted to a complete table: the fit to the means over units, and how the units scatter around."""

    fit: Fit
    scatter: Floats

    @property
    def p_value(self) -> float:
        """How probable so large a misfit is if the law is true; 1 for a misfit of less than 0.1 %.

        Only the directions in which the law cannot give way count: in them, the mean over the units of a
        true law is zero but for noise. Its squares are compared with those of the units' own scatter in the
        same directions, by the F test of repeated measures. Noise differs between lengths and may go
        together, which makes that test too strict; Greenhouse's and Geisser's factor on both degrees of
        freedom makes up for it (Psychometrika 24, 95, 1959). What slows a whole unit, or bends it as the
        law's coefficients could, is in none of these directions.
        """
        if self.fit.error <= RESOLUTION:
            return 1.0
        units, coefficients = len(self.scatter), self.fit.tangent.shape[1]
        basis = np.linalg.qr(self.fit.tangent, mode="complete")[0][:, coefficients:]
        misfit, contrasts = self.fit.residuals @ basis, self.scatter @ basis
        covariance = contrasts.T @ contrasts / (units - 1)
        total = float(np.trace(covariance))
        if total == 0:
            return 0.0
        freedom = total**2 / float(np.sum(covariance**2))
        ratio = units * float(misfit @ misfit) / total
        return float(special.fdtrc(freedom, freedom * (units - 1), ratio))

    @property
    def adjusted_error(self) -> float:
        """The error per degree of freedom, which a superfluous coefficient does not lower."""
        lengths, coefficients = self.fit.tangent.shape
        return self.fit.error * math.sqrt(lengths / (lengths - coefficients))

    @property
    def tenable(self) -> bool | None:
        """None with a single unit, whose scatter is unknown."""
        return None if len(self.scatter) < 2 else self.p_value >= SIGNIFICANCE

    def per_unit(self, coefficient: int) -> Floats:
        """One of the free coefficients for each unit: one Gauss-Newton step from the fit to the means.

        The fit's own value is not in it, so the mean is 0.
        """
        return np.asarray(self.scatter @ np.linalg.pinv(self.fit.tangent)[coefficient], dtype=float)


def judge(block: pd.DataFrame, law: Law) -> Judged:
    """Fit a law to the geometric means over the units of a complete table with enough lengths."""
    logs = np.log(block.to_numpy(dtype=float))
    mean, lengths = logs.mean(axis=0), block.columns.to_numpy(dtype=float)
    return Judged(fit_sum(lengths, np.exp(mean) / lengths**law.factor, law.power), logs - mean)


Record = dict[str, Any]


def compare_laws(table: pd.DataFrame) -> tuple[dict[str, Record | None], str | None]:
    """Fit the four laws and judge each.

    Args:
        table: Seconds per unit (rows) and length (columns), as `unit_table` gives them.

    Returns:
        By the name of the law None where there are too few lengths to judge it by, or its `formula`, its
        coefficients (>= 0, in seconds, per token or token² where the name says so; of the free law also
        `power`), `r2` (share of the variance of log t that the law explains, None where there is none),
        `relative_error` (root mean square of the log-errors; 0.05 is 5 %), `tenable` and `p_value` (None with
        a single unit). The mixed law also holds `dominates_from`, see `dominance`.

        Then the name of the best, which has the least error for its degrees of freedom; of those that err
        alike it is the simplest.
    """
    block, _ = complete_block(table)
    judged = {
        name: judge(block, law)
        for name, law in LAWS.items()
        if block.size and block.shape[1] >= law.least_lengths
    }
    errors = {name: float(f"{max(one.adjusted_error, RESOLUTION):.2g}") for name, one in judged.items()}
    records = {name: _record(block, LAWS[name], judged[name]) if name in judged else None for name in LAWS}
    return records, min(errors, key=lambda name: errors[name], default=None)


def overhead(laws: Mapping[str, Record | None]) -> float | None:
    """The c in seconds of t = c + a N^p with all three free.

    None where it cannot be told: with fewer than 4 lengths, or where the power is at the edge of what is
    searched or without meaning, so that the law does not describe the times, or c and a N^p look alike.
    """
    free = laws["free"]
    if free is None or free["power"] is None or free["power"] in POWERS:
        return None
    return float(free["c_s"])


def _record(block: pd.DataFrame, law: Law, judged: Judged) -> Record:
    fit, tenable = judged.fit, judged.tenable
    variance = float(np.log(block).mean().var(ddof=0))
    return {
        "formula": law.formula,
        **dict(zip(law.coefficients, (fit.c, fit.a), strict=True)),
        **({"power": fit.power if fit.a else None} if law.power is None else {}),
        "r2": 1 - fit.error**2 / variance if variance > 1e-12 else None,
        "relative_error": fit.error,
        "tenable": tenable,
        "p_value": None if tenable is None else judged.p_value,
        **({"dominates_from": dominance(judged, block.columns.to_numpy(dtype=float))} if law.factor else {}),
    }


def predict(name: str, record: Record, lengths: Floats) -> Floats:
    """Seconds at these lengths by a law as `compare_laws` records it."""
    law = LAWS[name]
    first, second = (record[coefficient] for coefficient in law.coefficients)
    power = law.power if law.power is not None else record["power"] or 0.0
    return np.asarray(lengths**law.factor * (first + second * lengths**power), dtype=float)


def dominance(mixed: Judged, lengths: Floats) -> dict[str, Any] | None:
    """From which length on the quadratic part of a N + b N² is the larger, N = a / b.

    Returns:
        `kind`: "inside" the measured lengths, "below": at every one of them, "above": at none, where the
        other numbers are None, as nothing is extrapolated; `n`, and `low` and `high`, its 95 % interval over
        the units, no wider than the measured lengths; `lesser_share`, the largest share of the time that the
        smaller part reaches at any length. None where one of the parts is zero.
    """
    a, b = mixed.fit.c, mixed.fit.a
    if not a or not b:
        return None
    n, shortest, longest = a / b, float(lengths[0]), float(lengths[-1])
    shares = n / (n + lengths)
    kind = "below" if n < shortest else "above" if n > longest else "inside"
    result = {"kind": kind, "n": None, "low": None, "high": None,
              "lesser_share": float(np.minimum(shares, 1 - shares).max())}  # fmt: skip
    if kind == "inside":
        _, low, high = student_interval(mixed.per_unit(1))
        ends = (
            None if end is None else float(np.clip(n * math.exp(end), shortest, longest))
            for end in (low, high)
        )
        result |= {"n": n, **dict(zip(("low", "high"), ends, strict=True))}
    return result
