"""The noise floor of a machine: how far apart measurements of the same code come out on it (A/A)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.analysis.scaling.run_effect import run_effect_of

QUANTILE = 0.95


@dataclass(frozen=True)
class NoiseFloor:
    """The noise of a machine: the result of a comparison of some code with itself.

    Attributes:
        share: By this share of the time, or less, 19 of 20 cases changed although nothing had.
        cases: How many cases were compared.
        pairs: From how many pairs of runs.
        date: When, as in "2026-01-31".
    """

    share: float
    cases: int
    pairs: int
    date: str

    @property
    def run_effect(self) -> float:
        """The effect of a run on the log of each of its times, as a standard deviation, that shows so."""
        return run_effect_of(self.share, self.pairs)


def share_of(ratios: Sequence[float]) -> float:
    """The share that 19 of 20 ratios stay within, in either direction; with fewer than 20, all of them."""
    changes = np.expm1(np.abs(np.log(ratios)))
    return float(np.quantile(changes, QUANTILE, method="higher"))
