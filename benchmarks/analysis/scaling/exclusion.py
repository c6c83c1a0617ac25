"""The whole power that is left when the times rule out all others."""

from __future__ import annotations

import math
from typing import Literal

import pandas as pd

from benchmarks.analysis.scaling.growth import FAR_FROM_TENABLE, MARGIN, NAMED_POWERS, Growth
from benchmarks.analysis.scaling.laws import LAWS, SIGNIFICANCE, Judged, Law, judge

Growing = Literal["linear", "quadratic"]
GROWING: tuple[Growing, ...] = ("linear", "quadratic")
TEXTURE = math.log(1.3) / 2
"""Root mean square of the log-errors by which tiles and caches make a real kernel miss its law.

So much does a cache that overflows half-way, and from there on slows the kernel 1.3 times.
"""
HALFWAY = 0.5
"""The distance from a whole power up to which no other is nearer."""
POWER_LAWS = {
    "constant": Law("c", 0),
    "linear": Law("c + a N", 1),
    "quadratic": Law("c + a N²", 2),
    "cubic": Law("c + a N³", 3),
}


def power_left(block: pd.DataFrame, growth: Growth, unseen: float = 0.0) -> Growing | None:
    """The power m of N and N² by which the times grow, if they rule out the other one and a constant.

    Two witnesses must agree. The interval of the exponent reaches into the margin of m, is nowhere nearer to
    another of these powers, and holds no N³. And the law c + a N^m, which allows for fixed costs, is not far
    from tenable for the times in the window of the exponent; the laws of all other powers, N³ included, are
    untenable there, or over all lengths. No times rule out all growth, since fixed costs may hide it, so m is
    never 0.

    A law counts as tenable also where it misses the times by no more than tiles and caches do: on a machine
    without noise no law is tenable of a real kernel. But N is not left where a N + b N² halves a misfit that
    is more than noise. A slope that still rises may rise towards m, and not beyond.

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
        # Beyond N² there is N³ alone, whose law is asked below.
        most = exponent + (1 if power == GROWING[-1] else HALFWAY)
        within = exponent - HALFWAY <= growth.low and growth.high < most
        touches = growth.low <= exponent + MARGIN and exponent - MARGIN <= growth.high
        rises_beyond = growth.is_rising and growth.at_end > exponent + MARGIN
        if within and touches and not rises_beyond:
            rivals = [law for name, law in POWER_LAWS.items() if name != power]
            ruled_out = not any(
                _describes(judge(window, law, unseen)) and _describes(judge(block, law, unseen))
                for law in rivals
            )
            own, mixed = judge(window, POWER_LAWS[power], unseen), judge(window, LAWS["mixed"], unseen)
            hides_more = power == "linear" and not own.tenable and 2 * mixed.fit.error < own.fit.error
            left = ruled_out and not hides_more and _describes(own, FAR_FROM_TENABLE)
            return power if left else None
    return None


def _describes(judged: Judged, significance: float = SIGNIFICANCE) -> bool:
    return judged.fit.error <= TEXTURE or judged.p_value >= significance
