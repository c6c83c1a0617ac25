"""How sure a change is: many quantities, measured in the same few units before and after.

Everything is a natural logarithm, so a change is the log of a ratio. Nothing here looks at rounds: a table
holds one row per unit of sampling (see `units`) and one column per quantity, such as the time of a case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy import optimize, special

from benchmarks.analysis.comparison.states import ALPHA, chance, shown_by_others, tolerable
from benchmarks.analysis.scaling.units import Floats

FAMILY = 8
"""From so many quantities on they lend each other what they show of their noise."""
RESOLUTION = 1e-6
"""No mean is known better than to this relative share, whatever its spread."""


@dataclass(frozen=True)
class Change:
    """The change of each quantity, a mean log-ratio.

    Attributes:
        value: NaN where no unit holds both sides.
        error: Its standard error; NaN where a single unit tells nothing of the noise.
        freedom: The degrees of freedom of that error.
        chance: How likely it shows only what the states of processes do: see `states`.
        tried: How many changes it was chosen from, each of which chance may have made as large.
    """

    value: Floats
    error: Floats
    freedom: Floats
    chance: Floats | float = 0.0
    tried: Floats | float = 1.0

    @property
    def half_width(self) -> Floats:
        """How far the 95 % interval of each reaches to either side."""
        return np.asarray(special.stdtrit(self.freedom, 1 - ALPHA / 2) * self.error)

    @property
    def p(self) -> Floats:
        """How likely each would look so large by chance, two-sided and taken alone."""
        alone = 2 * special.stdtr(self.freedom, -np.abs(self.value) / self.error)
        with np.errstate(invalid="ignore"):
            return np.where(np.isinf(self.tried), 1.0, np.minimum(self.tried * alone, 1))


def find_change(base: Floats, head: Floats, *, paired: bool, unseen: float | Floats = 0.0) -> Change:
    """Compare two tables of logarithms.

    Paired, what both sides of a pair share cancels in the difference, and the noise is that of the
    differences. Otherwise the variances of both means add up, with the degrees of freedom of Welch and
    Satterthwaite; a side of a single unit is taken to vary as the other side does.

    Args:
        base: Before, of shape (units, quantities); NaN where a unit lacks a quantity.
        head: After it; paired, row by row.
        paired: Whether the rows are pairs.
        unseen: Standard deviation, per quantity and on either side, of what these units cannot show because
            all units of a side share it: for the repetitions of one run, the effect of the run. What is
            assumed of it takes the place of what is feared of the states of processes.

    Returns:
        The changes of all quantities, head - base.
    """
    (before, n), (after, m) = _mean(base), _mean(head)
    if paired:
        value, n = _mean(head - base)
        parts, runs = [(head - base, n)], 2 * n
    else:
        value, runs = after - before, n + m
        parts = [(base, n), (head, m)]
        if len(base) == 1 or len(head) == 1:
            parts = [(head if len(base) == 1 else base, n * m / (n + m))]
    shared = [shared_noise(table) for table, _ in parts]
    (variance, freedom), *more = [
        _of_mean(*_at_least_own(table, *known), units)
        for (table, units), known in zip(parts, shared, strict=True)
    ]
    for other in more:
        variance, freedom = _add(variance, freedom, *other)
    shown = np.sum(
        [_of_mean(*known, units)[0] for (_, units), known in zip(parts, shared, strict=True)], axis=0
    )
    hidden = tolerable(len(base) + len(head), paired=paired)
    variance = np.maximum(variance, shown_by_others(shown, hidden))
    by_states = chance(runs)
    if np.any(unseen):
        variance, freedom = _add(variance, freedom, 2 * np.square(unseen), np.inf)
        by_states = np.zeros_like(value)
    return Change(
        value, np.sqrt(np.maximum(variance, RESOLUTION**2)), freedom, by_states, np.ones_like(value)
    )


def join(changes: Sequence[Change]) -> Change:
    """The changes of one family, found part by part."""
    parts = ([getattr(one, field.name) for one in changes] for field in fields(Change))
    return Change(*(np.concatenate(part) if part else np.empty(0) for part in parts))


def noise(table: Floats) -> tuple[Floats, Floats]:
    """Variance of a unit about the mean of all units, and its degrees of freedom, per quantity.

    It is the shared one, but none falls below the spread that its own units show, so that a stall in one unit
    is no change. What its own has above the shared one has no more freedom than these units.
    """
    return _at_least_own(table, *shared_noise(table))


def _at_least_own(table: Floats, variance: Floats, freedom: Floats) -> tuple[Floats, Floats]:
    """Shared variances of a table raised to those that its own units show, and their degrees of freedom."""
    mean, units = _mean(table)
    own = _variance(table - mean, units - 1)
    _, less = _add(variance, freedom, np.fmax(own - variance, 0), units - 1)
    return np.fmax(variance, own), np.fmin(freedom, less)


def shared_noise(table: Floats) -> tuple[Floats, Floats]:
    """Variances to which all quantities of a table contribute, and their degrees of freedom.

    A variance from three or six units is poorly known: a small one by luck makes a false alarm, and to guard
    against that with Student's t alone hides changes of 10 %. Many quantities measured in the same units know
    more together. Their deviations are split into what moves all of them in a unit at once, whose variance
    has no more freedom than there are units, and a rest of their own. The variances of the rests are drawn
    towards each other as far as they resemble each other, and gain freedom by as much: the moderated t of
    Smyth (2004), "Linear models and empirical Bayes methods for assessing differential expression in
    microarray experiments". Fewer than `FAMILY` quantities, or a single unit, keep what is their own.
    """
    mean, units = _mean(table)
    deviations, own_freedom = table - mean, units - 1
    if table.shape[1] < FAMILY or len(table) < 2:
        return _variance(deviations, own_freedom), own_freedom
    together, _ = _mean(deviations.T)
    common = float(np.sum(together**2)) / (len(table) - 1)
    rest = _variance(deviations - together[:, None], own_freedom)
    rest, freedom = _moderate(rest, own_freedom)
    return _add(common, len(table) - 1.0, rest, freedom)


def _moderate(variance: Floats, freedom: Floats) -> tuple[Floats, Floats]:
    """Variances drawn towards their mean as far as their logarithms resemble each other, and their freedom.

    With two departures from Smyth's prior: its freedom is that of logarithms that scatter by one standard
    error more, and its place is the mean variance. Of quantities whose noise differs much it is the noisy
    ones that raise alarms, and the quiet ones must not lend them their small variance.
    """
    known = (freedom > 0) & (variance > RESOLUTION**2)
    if known.sum() < FAMILY:
        return variance, freedom
    half = freedom[known] / 2
    logs = np.log(variance[known]) - special.digamma(half) + np.log(half)
    squares = (logs - np.mean(logs)) ** 2
    doubt = np.std(squares, ddof=1) / np.sqrt(len(squares))
    excess = float(np.var(logs, ddof=1) + doubt - np.mean(_trigamma(half)))
    prior_half = float(half.sum())  # the most there is: they differ as chance alone would have it
    if excess > _trigamma(prior_half):
        prior_half = optimize.brentq(lambda x: _trigamma(x) - excess, 1e-6, prior_half)
    prior = np.average(variance[known], weights=half)
    total = freedom + 2 * prior_half
    return (2 * prior_half * prior + freedom * np.nan_to_num(variance)) / total, total


def _trigamma(x: Any) -> Any:
    """The trigamma function as special.polygamma(1, x), which takes three times as long, computes it."""
    return special.zeta(2, x)


def holm(p: Floats) -> Floats:
    """p-values adjusted by Holm's step-down method for all being asked at once; NaN stays NaN, uncounted."""
    order = np.argsort(p)
    steps = np.count_nonzero(~np.isnan(p)) - np.arange(len(p))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.maximum(steps, 1)), 1)
    return adjusted


def _mean(table: Floats) -> tuple[Floats, Floats]:
    """Mean of each column over the rows that hold it, and how many do."""
    held = ~np.isnan(table)
    units = held.sum(axis=0, dtype=float)
    with np.errstate(invalid="ignore"):
        return np.where(held, table, 0).sum(axis=0) / units, units


def _of_mean(variance: Floats, freedom: Floats, units: Floats) -> tuple[Floats, Floats]:
    """Variance of the mean of so many units, and its degrees of freedom; NaN without any."""
    return variance / np.where(units > 0, units, np.nan), freedom


def _variance(deviations: Floats, freedom: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(deviations**2, axis=0) / np.where(freedom > 0, freedom, np.nan))


def _add(v: float | Floats, f: float | Floats, w: float | Floats, g: float | Floats) -> tuple[Floats, Floats]:
    """Sum of two independent variances, and its degrees of freedom after Satterthwaite."""
    total = np.asarray(np.add(v, w))
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = np.square(v) / f + np.square(w) / g
        freedom = np.where(squares > 0, total**2 / squares, np.add(f, g))
    return total, np.asarray(freedom)
