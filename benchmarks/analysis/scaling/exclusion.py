"""The whole power that is left when the times rule out all others."""

from __future__ import annotations

import math
from typing import Literal

import pandas as pd

from benchmarks.analysis.scaling.growth import MARGIN, NAMED_POWERS, Growth, Power
from benchmarks.analysis.scaling.laws import Judged, Law, judge

Growing = Literal["linear", "quadratic"]
GROWING: tuple[Growing, ...] = ("linear", "quadratic")
TEXTURE = math.log(1.3) / 2
"""Root mean square of the log-errors by which tiles and caches make a real kernel miss its law.

So much does a cache that overflows half-way, and from there on slows the kernel 1.3 times.
"""
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
    margin of a named power. And of the laws c + a N^m, which allow for fixed costs, that of m describes the
    times and no other does, the constant c included. No times rule out all growth: fixed costs may hide it.

    A law describes the times where it is tenable, and where it misses them by no more than tiles and caches
    do: on a machine without noise no law is tenable of a real kernel. The laws are asked about the window of
    the exponent. A slope that still rises may rise towards m, and not beyond.

    Args:
        block: Seconds per unit (rows) and length (columns), complete.
        growth: The exponent of these times.
        unseen: Standard deviation of what all units share, per log time.
    """
    if growth.low is None or growth.high is None:
        return None
    window = block.iloc[:, growth.start :]
    for power in GROWING:
        exponent = NAMED_POWERS[power]
        within = exponent - HALFWAY <= growth.low and growth.high <= exponent + HALFWAY
        touches = growth.low <= exponent + MARGIN and exponent - MARGIN <= growth.high
        rises_beyond = growth.is_rising and growth.at_end > exponent + MARGIN
        if within and touches and not rises_beyond:
            left = [name for name, law in POWER_LAWS.items() if _describes(judge(window, law, unseen))]
            return power if left == [power] else None
    return None


def _describes(judged: Judged) -> bool:
    return bool(judged.tenable) or judged.fit.error <= TEXTURE
