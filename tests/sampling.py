"""Simulated experiments of known laws, and what the estimators say of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import pytest

from benchmarks.analysis.scaling.crossover import Crossover, find_crossover
from benchmarks.analysis.scaling.exponent import Exponent, estimate_exponent
from benchmarks.analysis.scaling.firmness import Unit
from benchmarks.analysis.scaling.run_effect import RUN_EFFECT
from tests.noise import Floats, Unrest, draw_files, draw_tables
from tests.synthetic import DOUBLINGS, Law

DRAWS = 500
FEWER = 200
"""Draws of each cell in whole matrices of noises, whose tables are printed from `DRAWS`."""
TimeOf = Callable[[int], float]


@dataclass(frozen=True)
class Sample:
    """The units of an experiment: so many runs of some repetitions, or a single file.

    Attributes:
        units: Number of runs, or of the repetitions of a file.
        repetitions: Repetitions in each run.
        file: Whether there is a single file, whose repetitions are the units.
    """

    units: int
    repetitions: int = 3
    file: bool = False

    def __str__(self) -> str:
        if self.file:
            return f"one file, {self.units} repetitions"
        return f"{self.units} {'short runs' if self.repetitions == 1 else 'runs'}"

    @property
    def unit(self) -> Unit:
        """The unit of sampling."""
        return "repetition" if self.file else "run"

    @property
    def unseen(self) -> float:
        """The effect of the run that is assumed."""
        return RUN_EFFECT if self.file else 0.0

    def draw(self, truth: Floats, unrest: Unrest, draws: int, seed: int = 0) -> Floats:
        """Draw seconds of shape (kernels, draws, units, lengths), whose true times are [kernels, lengths]."""
        if self.file:
            return draw_files(truth, unrest, draws=draws, repetitions=self.units, seed=seed)
        return draw_tables(
            truth, unrest, draws=draws, units=self.units, repetitions=self.repetitions, seed=seed
        )


RUNS = (Sample(3), Sample(5), Sample(10))
SHORT_RUNS = Sample(6, repetitions=1)
FILES = (Sample(3, file=True), Sample(6, file=True))


every_noise = pytest.mark.parametrize(
    "draws", [pytest.param(FEWER, marks=pytest.mark.slow), pytest.param(DRAWS, marks=pytest.mark.table)]
)
"""Marks a simulation of the whole matrix of noises, which prints a table of a README."""


def tables(values: Floats, lengths: Sequence[int]) -> list[pd.DataFrame]:
    """A table of the estimators for each draw of shape (draws, units, lengths)."""
    columns = pd.Index(lengths)
    return [pd.DataFrame(draw, columns=columns) for draw in values]


@cache
def drawn(
    laws: tuple[TimeOf, ...],
    unrest: Unrest,
    sample: Sample,
    draws: int = DRAWS,
    lengths: Sequence[int] = DOUBLINGS,
) -> list[list[pd.DataFrame]]:
    """The tables of each kernel, whose law is given, in every draw."""
    truth = np.array([[law(length) for length in lengths] for law in laws])
    return [tables(kernel, lengths) for kernel in sample.draw(truth, unrest, draws, seed=sample.units)]


@cache
def exponents(
    law: Law, unrest: Unrest, sample: Sample, draws: int = DRAWS, lengths: Sequence[int] = DOUBLINGS
) -> list[Exponent]:
    """The exponent of a law in every draw."""
    (kernel,) = drawn((law,), unrest, sample, draws, lengths)
    return [estimate_exponent(table, unseen=sample.unseen) for table in kernel]


@cache
def crossovers(
    linear: Law,
    standard: Law,
    unrest: Unrest,
    sample: Sample,
    draws: int = DRAWS,
    lengths: Sequence[int] = DOUBLINGS,
) -> list[Crossover]:
    """The crossover of two laws in every draw."""
    both = drawn((linear, standard), unrest, sample, draws, lengths)
    return [find_crossover(*pair, unseen=sample.unseen) for pair in zip(*both, strict=True)]


def covers(found: Sequence[Exponent | Crossover], truth: float) -> float:
    """Coverage: the share of intervals that hold the truth, among conclusions with an interval."""
    held = [one.low <= truth <= one.high for one in found if one.low is not None and one.high is not None]
    return float(np.mean(held))
