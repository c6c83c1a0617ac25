"""What a longer case will take, from shorter ones whose growth nobody has written down."""

from __future__ import annotations

import math
from collections.abc import Mapping

UNKNOWN_POWER = 2.0
"""How an amount is taken to grow that is known at one length: as the costliest attention does."""
MOST_POWER = 3.0
"""Two noisy times of short calls may seem to grow without limit."""


def extrapolate(known: Mapping[int, float], length: int) -> float | None:
    """The amount at a length, by the growth between the two longest shorter lengths known.

    Args:
        known: Positive amounts by their lengths.
        length: The length asked for.

    Returns:
        The amount, at least that of the longest shorter length; None where no shorter one is known.
    """
    shorter = sorted(n for n in known if n <= length)
    if not shorter:
        return None
    last = shorter[-1]
    power = UNKNOWN_POWER
    if len(shorter) > 1 and min(known[last], known[shorter[-2]]) > 0:
        power = math.log(known[last] / known[shorter[-2]]) / math.log(last / shorter[-2])
    growth: float = (length / last) ** min(MOST_POWER, max(0.0, power))
    return known[last] * growth
