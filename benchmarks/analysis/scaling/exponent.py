"""The exponent of a series: how its time grows once fixed costs have faded, if its lengths reach that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.scaling.exclusion import Growing, power_left
from benchmarks.analysis.scaling.growth import (
    MARGIN,
    NAMED_POWERS,
    SLOPE_TOLERANCE,
    FixedCosts,
    Growth,
    Power,
    fixed_costs,
    over_window,
)
from benchmarks.analysis.scaling.units import MIN_LENGTHS, Floats, complete_block, local_slopes

Like = Literal["like linear", "like quadratic"]
Verdict = Literal[Power, Like, "not reached", "undetermined"]
LIKE: dict[Growing, Like] = {"linear": "like linear", "quadratic": "like quadratic"}
NOT_REACHED: Literal["not reached"] = "not reached"
UNDETERMINED: Literal["undetermined"] = "undetermined"


@dataclass(frozen=True)
class Exponent:
    """The p of t ~ N^p over a window of lengths; `low`, `high` bound its 95 % interval.

    `verdict` is "constant", "linear" or "quadratic" where that interval lies within 0.1 of 0, 1 or 2; "like
    linear" or "like quadratic" where the interval is wider and the times rule out the other whole powers;
    "not reached" where the time does not yet grow as it will, because fixed costs are a tangible share of it
    at the longest length or the slope still rises; else "undetermined". `reason` says in words why it is one
    of the latter two. `overhead_s` is the c of t = c + a N^p where the value is the p of that law.
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


def estimate_exponent(
    table: pd.DataFrame, flops_exponent: float | None = None, unseen: float = 0.0
) -> Exponent:
    """Exponent of one series, with its interval over the units.

    Where t = c + a N^p fits, as `fixed_costs` says, and its c > 0 has faded to less than 5 % of the time at
    the longest length, the exponent is the p of that law over all lengths: even a flat window would still
    hold c's last trace.
    Elsewhere it is the slope of log time on log N over the window of `flat_window`, by least squares per
    unit; without a flat window over the longest 3 lengths, and then no power is called: the units may agree
    on the slopes, but the slopes do not agree on a power. Where nothing is told so, the window whose slopes
    agree without an allowance for noise may tell the power by exclusion.

    Args:
        table: Seconds per unit (rows) and length (columns), as `unit_table` gives them.
        flops_exponent: Exponent of its FLOPs. Time cannot for ever grow more slowly than FLOPs do.
        unseen: Standard deviation of what all units share, per log time: for the repetitions of one run, the
            effect of the run.
    """
    block, _ = complete_block(table)
    if not len(block):
        return Exponent(None, None, None, UNDETERMINED, None, 0, "no unit holds all of its lengths")
    lengths, slopes = [int(length) for length in block.columns], local_slopes(block)
    if len(lengths) < MIN_LENGTHS:
        few = "only one length was" if len(lengths) == 1 else f"only {len(lengths)} lengths were"
        why = f"{few} measured, and an exponent needs {MIN_LENGTHS}"
        return Exponent(None, None, None, UNDETERMINED, None, len(block), why)
    costs, growth = fixed_costs(block, unseen), over_window(block, slopes, unseen)
    overhead = None
    if costs and not costs.tangible:
        growth, overhead = costs.growth, costs.seconds
    left = None if growth.called else power_left(block, growth, unseen)
    if not (growth.called or left):
        # Noise may hide that short lengths grow otherwise: the window without an allowance for it.
        strict = over_window(block, slopes, unseen, SLOPE_TOLERANCE)
        left = power_left(block, strict, unseen) if strict.is_flat else None
        growth, overhead = (strict, None) if left else (growth, overhead)
    verdict, reason = _verdict(growth, left, costs, slopes, lengths[-1], flops_exponent)
    window = lengths[growth.start], lengths[-1]
    return Exponent(growth.value, growth.low, growth.high, verdict, window, len(block), reason, overhead)


def _verdict(
    growth: Growth,
    left: Growing | None,
    costs: FixedCosts | None,
    slopes: Floats,
    longest: int,
    flops_exponent: float | None,
) -> tuple[Verdict, str | None]:
    called, tangible = growth.called, costs is not None and costs.tangible
    told = called or left
    if told and flops_exponent and growth.high is not None and growth.high < flops_exponent - MARGIN:
        flops = f"the FLOPs, whose exponent is {flops_exponent:.2f}"
        return (
            NOT_REACHED,
            f"time grows more slowly than {flops}, and cannot for ever: measure longer lengths",
        )
    if called and not growth.rises_out_of(called) and not (tangible and growth.is_rising):
        return called, None
    if left:
        return LIKE[left], None
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
    wanted = ", ".join(f"{exponent:g}" for exponent in NAMED_POWERS.values())
    interval = f"the interval [{growth.low:.2f}, {growth.high:.2f}]"
    return UNDETERMINED, f"{interval} does not lie within {MARGIN} of any of {wanted}; {bend}"
