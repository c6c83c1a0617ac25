"""Which laws of growth the times allow: c + a N, c + a N², a N + b N² and c + a N^p.

A law is tenable where its misfit, the way the times averaged over the units lie around it, is no more than
the scatter between the units explains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import special

from benchmarks.analysis.scaling.fits import Fit, fit_sum
from benchmarks.analysis.scaling.units import Floats, student_interval

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
        unseen: Standard deviation of what all units share, per log time.
    """

    fit: Fit
    scatter: Floats
    unseen: float = 0.0

    @cached_property
    def p_value(self) -> float:
        """How probable so large a misfit is if the law is true; 1 for a misfit of less than 0.1 %.

        Only the directions in which the law cannot give way count: in them, the mean over the units of a
        true law is zero but for noise. Its squares are compared with those of the units' own scatter in the
        same directions, by the F test of repeated measures. Noise differs between lengths and may go
        together, which makes that test too strict; Greenhouse's and Geisser's factor on both degrees of
        freedom makes up for it (Psychometrika 24, 95, 1959). What slows all of a unit, or bends it as the
        law's coefficients could, is in none of these directions. What all units share has a known variance in
        each of them, which adds degrees of freedom as Satterthwaite's do.
        """
        if self.fit.error <= RESOLUTION:
            return 1.0
        misfit, seen, expected = self._contrasts
        total, scattered = float(np.trace(expected)), float(np.sum(seen**2))
        if total == 0:
            return 0.0
        freedom = total**2 / float(np.sum(expected**2))
        known = (len(self.scatter) - 1) * total**2 / max(scattered, 1e-9 * total**2)
        return float(special.fdtrc(freedom, known, misfit / total))

    @cached_property
    def _contrasts(self) -> tuple[float, Floats, Floats]:
        """The squared misfit in the directions in which the law cannot give way, and covariances there.

        The first is that which the units show of their mean; the second has what they share as well.
        """
        units, coefficients = len(self.scatter), self.fit.tangent.shape[1]
        basis = np.linalg.qr(self.fit.tangent, mode="complete")[0][:, coefficients:]
        misfit, contrasts = self.fit.residuals @ basis, self.scatter @ basis
        seen = contrasts.T @ contrasts / (units - 1) / units
        return float(misfit @ misfit), seen, seen + self.unseen**2 * np.eye(len(seen))

    @cached_property
    def _steps(self) -> Floats:
        """What each residual moves each coefficient by in a Gauss-Newton step, [coefficients, lengths]."""
        return np.asarray(np.linalg.pinv(self.fit.tangent))

    @property
    def excess(self) -> float:
        """Variance of log times about the law that noise does not explain: tiles, caches, another law."""
        misfit, _, expected = self._contrasts
        return max(0.0, 2 * misfit - float(np.trace(expected))) / max(1, len(expected))

    @property
    def adjusted_error(self) -> float:
        """The error per degree of freedom, which a superfluous coefficient does not lower."""
        lengths, coefficients = self.fit.tangent.shape
        return self.fit.error * math.sqrt(lengths / (lengths - coefficients))

    @property
    def tenable(self) -> bool | None:
        """Whether noise explains the misfit; None with a single unit, whose scatter is unknown."""
        return None if len(self.scatter) < 2 else self.p_value >= SIGNIFICANCE

    def interval(self, coefficient: int, *, misfit: bool = True) -> tuple[float | None, float | None]:
        """The 95 % interval of one of the free coefficients, less its fitted value.

        Each unit gives its own by one Gauss-Newton step from the fit to the means. What all units share adds
        its variance, and so does, unless left out, the misfit that noise does not explain: other lengths
        would give another coefficient.
        """
        if len(self.scatter) < 2:
            return None, None
        weights = self._steps[coefficient]
        length, spare = float(weights @ weights), np.subtract(*self.fit.tangent.shape)
        parts = [(self.unseen**2 * length, math.inf)]
        parts += [(self.excess * length, float(spare))] if spare and misfit else []
        _, *ends = student_interval(self.scatter @ weights, *parts)
        return ends[0], ends[1]


def judge(block: pd.DataFrame, law: Law, unseen: float = 0.0) -> Judged:
    """Fit a law to the geometric means over the units of a complete table with enough lengths.

    Args:
        block: Seconds per unit (rows) and length (columns).
        law: The law.
        unseen: Standard deviation of what all units share, per log time.
    """
    logs = np.log(block.to_numpy(dtype=float))
    mean, lengths = logs.mean(axis=0), block.columns.to_numpy(dtype=float)
    return Judged(fit_sum(lengths, np.exp(mean) / lengths**law.factor, law.power), logs - mean, unseen)
