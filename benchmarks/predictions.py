"""What a longer case will take, from shorter ones, and whether that is more than there is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from attention import Costs

UNKNOWN_POWER = 2.0
"""How an amount is taken to grow that is known at one length: as the costliest attention does."""
MOST_POWER = 3.0
"""Two noisy times of short calls may seem to grow without limit."""


def over_memory(needed: float, free: float, what: str = "of memory") -> tuple[str, str] | None:
    """Outcome and reason of a case that needs more bytes than are free; None of one that fits."""
    if needed <= free:
        return None
    return "over_memory", f"predicted to need {needed / 1e9:.1f} GB {what}, {free / 1e9:.1f} GB are free"


def over_time(seconds: float, limit_s: float) -> tuple[str, str] | None:
    """Outcome and reason of a case whose round takes longer than the limit; None of one that is within."""
    if seconds <= limit_s:
        return None
    return "over_time", f"predicted to take {seconds:.1f} s a round, the limit is {limit_s:g} s"


def predict_seconds(
    known: Mapping[int, float], length: int, costs: Callable[[int], Costs | None]
) -> float | None:
    """Seconds of a call by the ratio of the FLOPs; without a closed form of these, as they grew.

    Args:
        known: Seconds of calls by their lengths.
        length: The length asked for.
        costs: Costs of a call of a length; None where they are not known.

    Returns:
        Seconds, at least those of the longest shorter length; None where no shorter one is known.
    """
    shorter = [n for n in known if n <= length]
    if not shorter:
        return None
    nearest = max(shorter)
    now, then = costs(length), costs(nearest)
    if now is None or then is None:
        return extrapolate(known, length)
    return known[nearest] * max(1.0, now.flops / max(1, then.flops))


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
