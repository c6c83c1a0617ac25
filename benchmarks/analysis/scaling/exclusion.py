"""The whole power that is left when the times rule out all others."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from benchmarks.analysis.scaling.growth import MARGIN, NAMED_POWERS, Growth, Power
from benchmarks.analysis.scaling.laws import Law, judge

Growing = Literal["linear", "quadratic"]
GROWING: tuple[Growing, ...] = ("linear", "quadratic")
HALFWAY = 0.5
"""The distance from a whole power up to which no other is nearer."""
POWER_LAWS: dict[Power, Law] = {
    "constant": Law("c", 0),
    "linear": Law("c + a N", 1),
    "quadratic": Law("c + a N²", 2),
}


def power_left(block: pd.DataFrame, growth: Growth, unseen: float = 0.0) -> Growing | None:
    """The power m of N and N² by which the times grow, if they rule out the other one and a constant.

    Two witnesses must agree. The interval of the exponent lies within 0.5 of m, and its nearer end within the
    margin of a named power. And of the laws c + a N^m, which allow for fixed costs, that of m is tenable and
    that of no other is, the constant c included. Times never rule out all growth: fixed costs may hide it.

    Args:
        block: Seconds per unit (rows) and length (columns), complete.
        growth: The exponent of these times.
        unseen: Standard deviation of what all units share, per log time.
    """
    if growth.low is None or growth.high is None:
        return None
    for power in GROWING:
        exponent = NAMED_POWERS[power]
        within = exponent - HALFWAY <= growth.low and growth.high <= exponent + HALFWAY
        touches = growth.low <= exponent + MARGIN and exponent - MARGIN <= growth.high
        if within and touches:
            tenable = [name for name, law in POWER_LAWS.items() if judge(block, law, unseen).tenable]
            return power if tenable == [power] else None
    return None
