"""The firmness of exponents and crossovers, by a few rules fixed beforehand."""

from __future__ import annotations

from typing import Literal

from benchmarks.analysis.scaling.crossover import Crossover
from benchmarks.analysis.scaling.exponent import NOT_REACHED, UNDETERMINED, Exponent

Firmness = Literal["firm", "tentative", "open"]
Unit = Literal["run", "repetition"]
FIRMNESS: tuple[Firmness, ...] = ("firm", "tentative", "open")
FIRM_UNITS = 3
"""Intervals of fewer runs are so wide, or so lucky, that a next run may well contradict them."""
WIDE = 1.5
"""A crossover known to no more than this factor is not pinned down: lengths mostly double."""
RULE = (
    f"firm: at least {FIRM_UNITS} runs, whose 95 % intervals leave no other conclusion and hold a crossover "
    f"to within a factor of {WIDE}; tentative: the data point to it, but they are repetitions of one run or "
    f"fewer than {FIRM_UNITS} runs, or their intervals are wider; open: the data do not decide."
)


def of_units(units: int, unit: Unit) -> Firmness:
    """The firmness of what so many units decide by their scatter, as that a law of growth is untenable."""
    if units < 2:
        return "open"
    return "firm" if unit == "run" and units >= FIRM_UNITS else "tentative"


def of_exponent(exponent: Exponent, unit: Unit) -> Firmness:
    """The firmness of an exponent over units of this kind."""
    if exponent.verdict in (UNDETERMINED, NOT_REACHED):
        return "open"
    return of_units(exponent.units, unit)


def of_crossover(found: Crossover, unit: Unit, *, exact: bool = False) -> Firmness:
    """The firmness of a crossover over units of this kind.

    Exact values have no noise, so that nothing about them is in doubt. Else a crossover is open where a
    single unit shows no noise to judge by, and where both the shortest and the longest length are within it.
    It is firm only if all other kinds are excluded: nobody's lead is within the noise, but beside a crossover
    that the interval pins down.
    """
    if found.lengths is None:
        return "open"
    if exact:
        return "firm"
    doubtful_ends = set(found.lengths) & set(found.within_noise)
    if found.units < 2 or doubtful_ends == set(found.lengths):
        return "open"
    pinned_down = found.low is not None and found.high is not None and found.high <= WIDE * found.low
    excludes_others = pinned_down and not doubtful_ends if found.kind == "inside" else not found.within_noise
    return "firm" if excludes_others and unit == "run" and found.units >= FIRM_UNITS else "tentative"
