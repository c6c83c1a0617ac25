"""The length from which on one kernel beats another, with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.analysis.scaling.doubt import least_stretch, stretch_in_doubt, within_noise
from benchmarks.analysis.scaling.units import complete_block, numbers

Floats = NDArray[np.float64]
Kind = Literal["inside", "below", "above", "multiple", "none"]


@dataclass(frozen=True)
class Crossover:
    """Where a contender and a baseline take the same time (or memory).

    Attributes:
        kind: "inside": the lead changes once, at `n`; "below": the contender is ahead at every common length;
            "above": at none; "multiple": the lead changes more than once; "none": no common lengths.
        n: The crossover N*, None unless inside.
        low: Lower end of its 95 % interval, None unless inside with at least two units.
        high: Upper end of its 95 % interval, likewise.
        ahead_beyond: Who is ahead at the longest common length, mostly the contender; "inside" with the
            baseline says that the contender is ahead only below `n`.
        lengths: Shortest and longest common length, None without any.
        seq_lens: All common lengths.
        ratios: Baseline over contender at each of `seq_lens`: the geometric mean over the paired units, which
            is above 1 where the contender is ahead; None where no unit holds both. It is 1 at the crossover.
        within_noise: Common lengths where the interval of the ratio holds 1, so that neither is surely ahead.
        resolution: Half of the width, relative to `n`, that its interval has whatever the units say: what the
            lengths beside it leave open. None unless inside.
        units: Number of paired units.
        notes: What a reader should know about the interval.
    """

    kind: Kind
    n: float | None = None
    low: float | None = None
    high: float | None = None
    ahead_beyond: Literal["contender", "baseline"] | None = None
    lengths: tuple[int, int] | None = None
    seq_lens: list[int] = field(default_factory=list)
    ratios: list[float | None] = field(default_factory=list)
    within_noise: list[int] = field(default_factory=list)
    resolution: float | None = None
    units: int = 0
    notes: list[str] = field(default_factory=list)


def find_crossover(
    contender: pd.DataFrame, baseline: pd.DataFrame, *, exact: bool = False, unseen: float = 0.0
) -> Crossover:
    """Compare two kernels unit by unit.

    Both were measured in the same units, so what slows all of a unit cancels in its log-ratio
    log(contender/baseline). The ratio is interpolated linearly over log N, and the crossover is the zero of
    the mean over the units.

    Its interval holds the lengths at which the data do not say who is ahead, and is never narrower than the
    measured lengths can resolve: see `doubt`.

    Args:
        contender: Positive values per unit (rows) and length (columns) of the contender.
        baseline: Positive values of the baseline, likewise.
        exact: The values have no noise, so that a single unit has an interval, that of the resolution.
        unseen: Standard deviation of what all units share, per log value: for the repetitions of one run, the
            effect of the run on each of its cases.

    Returns:
        The crossover within the common lengths; nothing is extrapolated.
    """
    common = contender.columns.intersection(baseline.columns).sort_values()
    if not len(common):
        return Crossover("none")
    contender, baseline = contender[common], baseline[common]
    table, notes = _ratios(contender, baseline)
    lengths, ratios = table.columns.to_numpy(dtype=float), np.log(table.to_numpy(dtype=float))
    mean = ratios.mean(axis=0)
    ahead = mean < 0
    kind = _kind(ahead)
    n = low = high = resolution = None
    if kind == "inside":
        x = np.log(lengths)
        before = int(np.argmax(ahead[1:] != ahead[:-1]))
        share = mean[before] / (mean[before] - mean[before + 1])
        zero = float(x[before] + share * (x[before + 1] - x[before]))
        n = math.exp(zero)
        certain = least_stretch(x, mean, before, zero)
        resolution = (math.exp(certain[1]) - math.exp(certain[0])) / (2 * n)
        if exact or len(ratios) > 1:
            left, right = certain if exact else stretch_in_doubt(x, ratios, before, certain, unseen)
            low, high = math.exp(max(left, x[0])), math.exp(min(right, x[-1]))
            notes += _say_where_clipped(left, right, lengths)
    return Crossover(
        kind, n, low, high,
        ahead_beyond="contender" if ahead[-1] else "baseline",
        lengths=(int(lengths[0]), int(lengths[-1])),
        seq_lens=[int(length) for length in common],
        ratios=_shown(table, contender, baseline),
        within_noise=[int(length) for length in lengths[within_noise(ratios, unseen)]],
        resolution=resolution,
        units=len(ratios),
        notes=notes,
    )  # fmt: skip


def _kind(ahead: NDArray[np.bool_]) -> Kind:
    """The kind of a crossover, from whether the contender is ahead at each length."""
    changes = np.count_nonzero(ahead[1:] != ahead[:-1])
    if changes:
        return "inside" if changes == 1 else "multiple"
    return "below" if ahead[0] else "above"


def _ratios(contender: pd.DataFrame, baseline: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Contender over baseline per unit and length, as far as complete, and notes on what is missing."""
    ratios = contender / baseline
    block, notes = complete_block(ratios[~np.isnan(ratios.to_numpy(float)).all(axis=1)])
    if block.size:
        return block, notes
    medians = (contender.median() / baseline.median()).to_frame().T
    return medians, ["they share no units, so their medians are compared, without an interval"]


def _shown(table: pd.DataFrame, contender: pd.DataFrame, baseline: pd.DataFrame) -> list[float | None]:
    """Baseline over contender at every length; where some units lack one, over the units that hold it."""
    if len(table.columns) == len(contender.columns):
        return numbers(np.exp(-np.log(table.to_numpy(dtype=float)).mean(axis=0)))
    others = np.exp(np.log(baseline / contender).mean())
    ratios = np.exp(-np.log(table).mean()).combine_first(others)
    return numbers(ratios[contender.columns])


def _say_where_clipped(left: float, right: float, lengths: Floats) -> list[str]:
    ends = [(left == -math.inf, lengths[0], "shortest"), (right == math.inf, lengths[-1], "longest")]
    return [
        f"the interval reaches the {which} common length, N = {int(length)}, and is clipped there"
        for clipped, length, which in ends
        if clipped
    ]
