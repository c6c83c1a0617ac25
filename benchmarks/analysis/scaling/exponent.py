"""The exponent of a series: how time grows once fixed costs have faded, if the lengths reach that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.scaling.laws import LAWS, Judged, judge
from benchmarks.analysis.scaling.units import (
    MIN_LENGTHS,
    Floats,
    complete_block,
    local_slopes,
    student_interval,
)

SLOPE_TOLERANCE = 0.3
"""How far the local slopes of a window may lie apart.

Two neighbouring medians that are each 5 % off, as on a shared machine, move a doubling slope by
sqrt(2) 0.05 / ln 2 = 0.1, and half a dozen such slopes then span about 0.3. The smallest difference that
must be told apart, between N and N^2, is 1.
"""
VERDICTS: dict[Power, float] = {"constant": 0.0, "linear": 1.0, "quadratic": 2.0}
VERDICT_MARGIN = 0.1
Power = Literal["constant", "linear", "quadratic"]
Verdict = Literal[Power, "not reached", "undetermined"]
NOT_REACHED: Literal["not reached"] = "not reached"
UNDETERMINED: Literal["undetermined"] = "undetermined"
FAR_FROM_TENABLE = 0.005
"""A probability below 0.05 makes c + a N^p untenable. But then 1 in 20 of the series of that law would
get the slope of a window, which their overhead bends."""
TANGIBLE = 0.05
"""A share of fixed costs in the time that takes 0.1, the margin, from the local slope of a square."""


@dataclass(frozen=True)
class Exponent:
    """The p of t ~ N^p over a window of lengths; `low`, `high` bound its 95 % interval.

    `verdict` is "constant", "linear" or "quadratic" where that interval lies within 0.1 of 0, 1 or 2;
    "not reached" where the time does not yet grow as it will, because fixed costs are a tangible share of it
    at the longest length or the slope still rises; else "undetermined". `reason` says in words why it is one
    of the latter two. `overhead_s` are the fixed costs that the value allows for, those of t = c + a N^p.
    `value` and `window` are None with fewer than 3 lengths, `low` and `high` where one unit allows no
    interval.
    """

    value: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    window: tuple[int, int] | None
    units: int
    reason: str | None = None
    overhead_s: float | None = None


class Growth(NamedTuple):
    """An exponent from the length of index `start` on; `rise` is how much the slope changes from there on."""

    value: float
    low: float | None
    high: float | None
    start: int
    is_flat: bool
    rise: float = 0.0
    is_rising: bool = False

    @property
    def called(self) -> Power | None:
        """The verdict whose margin holds the interval."""
        if self.low is None or self.high is None or not self.is_flat:
            return None
        for verdict, exponent in VERDICTS.items():
            if exponent - VERDICT_MARGIN <= self.low and self.high <= exponent + VERDICT_MARGIN:
                return verdict
        return None

    def rises_out_of(self, verdict: Power) -> bool:
        """Whether the slope has left the verdict's margin at the longest length."""
        at_end = self.value + self.rise / 2
        return self.is_rising and abs(at_end - VERDICTS[verdict]) > VERDICT_MARGIN


class FixedCosts(NamedTuple):
    """The c of t = c + a N^p in seconds, its share of the time at the longest length, and the p."""

    seconds: float
    share: float
    growth: Growth


def flat_window(slopes: Floats) -> int | None:
    """Index of the first length of the window, or None.

    The rule, fixed before any measurement: the window is the longest stretch of lengths that ends at the
    longest one, holds at least 3 lengths, and whose local slopes lie within 0.3 of each other. It ends at the
    longest length because an exponent speaks of growth, and short lengths are where fixed costs hide it.
    """
    for start in range(len(slopes) - MIN_LENGTHS + 2):
        if np.ptp(slopes[start:]) <= SLOPE_TOLERANCE:
            return start
    return None


def estimate_exponent(table: pd.DataFrame, flops_exponent: float | None = None) -> Exponent:
    """Exponent of one series, with its interval over the units.

    Where t = c + a N^p fits, as `fixed_costs` says, and its c > 0 has faded to less than 5 % of the time at
    the longest length, the exponent is the p of that law over all lengths: even a flat window would still
    hold c's last trace.
    Elsewhere it is the slope of log time on log N over the window of `flat_window`, by least squares per
    unit; without a flat window over the longest 3 lengths, and then no power is called: the units may agree
    on the slopes, but the slopes do not agree on a power.

    Args:
        table: Seconds per unit (rows) and length (columns), as `unit_table` gives them.
        flops_exponent: That of its FLOPs. Time cannot for ever grow more slowly than they.
    """
    block, _ = complete_block(table)
    lengths, slopes = [int(length) for length in block.columns], local_slopes(block)
    if len(lengths) < MIN_LENGTHS:
        few = "only one length was" if len(lengths) == 1 else f"only {len(lengths)} lengths were"
        why = f"{few} measured, and an exponent needs {MIN_LENGTHS}"
        return Exponent(None, None, None, UNDETERMINED, None, len(block), why)
    costs, growth = fixed_costs(block), _over_window(block, slopes)
    faded = costs is not None and costs.share < TANGIBLE
    if costs and faded:
        growth = costs.growth
    verdict, reason = _verdict(growth, costs, slopes, lengths[-1], flops_exponent)
    overhead = costs.seconds if costs and faded else None
    window = lengths[growth.start], lengths[-1]
    return Exponent(growth.value, growth.low, growth.high, verdict, window, len(block), reason, overhead)


def _over_window(block: pd.DataFrame, slopes: Floats) -> Growth:
    lengths = block.columns.to_numpy(dtype=float)
    flat = flat_window(slopes)
    start = len(lengths) - MIN_LENGTHS if flat is None else flat
    x, logs = np.log(lengths[start:]), np.log(block.to_numpy(dtype=float)[:, start:])
    value, low, high = student_interval(np.polyfit(x, logs.T, 1)[0])
    # The derivative of a parabola in log N, at the window's end less at its start.
    rise, least, _ = student_interval(2 * (x[-1] - x[0]) * np.polyfit(x, logs.T, 2)[0])
    is_rising = least is not None and least > 0 and rise > VERDICT_MARGIN
    return Growth(value, low, high, start, flat is not None, rise, is_rising)


def fixed_costs(block: pd.DataFrame) -> FixedCosts | None:
    """Those of t = c + a N^p, if it is not far from tenable and both terms and the power can be told."""
    if block.shape[1] < LAWS["free"].least_lengths or not _bends_up(block):
        return None
    judged = judge(block, LAWS["free"])
    if judged.fit.tangent.shape[1] < 3 or (judged.tenable is False and judged.p_value < FAR_FROM_TENABLE):
        return None
    fit, longest = judged.fit, float(block.columns[-1])
    share = fit.c / (fit.c + fit.a * longest**fit.power)
    return FixedCosts(fit.c, share, _power(judged))


def _bends_up(block: pd.DataFrame) -> bool:
    """Fixed costs do nothing else to log time over log N, so without it there are none to look for."""
    x, logs = np.log(block.columns.to_numpy(dtype=float)), np.log(block.to_numpy(dtype=float))
    return bool(np.polyfit(x, logs.mean(axis=0), 2)[0] > 0)


def _power(judged: Judged) -> Growth:
    step, low, high = student_interval(judged.per_unit(2))
    power = judged.fit.power
    if low is None or high is None:
        return Growth(power, None, None, 0, is_flat=True)
    return Growth(power + step, power + low, power + high, 0, is_flat=True)


def _verdict(
    growth: Growth, costs: FixedCosts | None, slopes: Floats, longest: int, flops_exponent: float | None
) -> tuple[Verdict, str | None]:
    called, tangible = growth.called, costs is not None and costs.share >= TANGIBLE
    if (
        called
        and flops_exponent
        and growth.high is not None
        and growth.high < flops_exponent - VERDICT_MARGIN
    ):
        flops = f"the FLOPs, whose exponent is {flops_exponent:.2f}"
        return (
            NOT_REACHED,
            f"time grows more slowly than {flops}, and cannot for ever: measure longer lengths",
        )
    if called and not growth.rises_out_of(called) and not (tangible and growth.is_rising):
        return called, None
    bend = f"the slope goes from {slopes[growth.start]:.2f} to {slopes[-1]:.2f} over the window"
    if costs and tangible:
        share = (
            f"fixed costs of about {wording.seconds(costs.seconds)} still are {wording.percent(costs.share)}"
        )
        return NOT_REACHED, f"{share} of the time at N = {longest}, and {bend}: measure longer lengths"
    if growth.is_rising:
        return NOT_REACHED, f"{bend}, still rising at the longest lengths: measure longer ones"
    if growth.low is None or growth.high is None:
        return UNDETERMINED, "a single unit allows no interval"
    if not growth.is_flat:
        return UNDETERMINED, f"it still changes at the longest lengths: {bend}"
    wanted = ", ".join(f"{exponent:g}" for exponent in VERDICTS.values())
    interval = f"the interval [{growth.low:.2f}, {growth.high:.2f}]"
    return UNDETERMINED, f"{interval} does not lie within {VERDICT_MARGIN} of any of {wanted}; {bend}"
