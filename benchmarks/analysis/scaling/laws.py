"""Which laws of growth the times allow: c + a N, c + a N², a N + b N² and c + a N^p.

A law is tenable where its misfit, the way the times averaged over the units lie around it, is no more than
the scatter between the units explains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from benchmarks.analysis.scaling.fits import Fit, fit_sum
from benchmarks.analysis.scaling.units import Floats

SIGNIFICANCE = 0.05
"""How often a true law may be called untenable."""
RESOLUTION = 1e-3
"""A misfit of 0.1 % is held against no law, however little the units scatter."""


@dataclass(frozen=True)
class Law:
    """t / N^factor = first + second N^power; a power of None is free."""

    formula: str
    power: float | None
    factor: int = 0

    @property
    def least_lengths(self) -> int:
        """The number of its coefficients and one more, as the coefficients alone pass through every point."""
        return 4 if self.power is None else 3


LAWS = {
    "linear": Law("c + a N", 1),
    "quadratic": Law("c + a N²", 2),
    "mixed": Law("a N + b N²", 1, factor=1),
    "free": Law("c + a N^p", None),
}
"""The laws by name, the simplest first."""


@dataclass(frozen=True)
class Judged:
    """A law fitted to a complete table.

    Attributes:
        fit: The fit to the means over units.
        scatter: Log times of each unit less those means, [units, lengths].
    """

    fit: Fit
    scatter: Floats

    @property
    def p_value(self) -> float:
        """How probable so large a misfit is if the law is true; 1 for a misfit of less than 0.1 %.

        Only the directions in which the law cannot give way count: in them, the mean over the units of a
        true law is zero but for noise. Its squares are compared with those of the units' own scatter in the
        same directions, by the F test of repeated measures. Noise differs between lengths and may go
        together, which makes that test too strict; Greenhouse's and Geisser's factor on both degrees of
        freedom makes up for it (Psychometrika 24, 95, 1959). What slows all of a unit, or bends it as the
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
        """Whether noise explains the misfit; None with a single unit, whose scatter is unknown."""
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
