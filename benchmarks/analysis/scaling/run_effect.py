"""What a run does to all its repetitions alike: no single run shows it, so that it has to be assumed."""

from __future__ import annotations

import math

RUN_EFFECT = 0.02
"""Standard deviation of what a run does to the log of each of its times: 1.5 to 2 % on shared machines."""
NINETEEN_OF_TWENTY = 1.96
"""Standard deviations that 19 of 20 normal values stay within."""


def run_effect_of(share: float, pairs: int) -> float:
    """The effect of a run by which comparisons of equal code differ.

    Args:
        share: The share by which 19 of 20 cases changed at most.
        pairs: From so many pairs of runs; their mean has less noise than one of them.
    """
    return math.log1p(share) / NINETEEN_OF_TWENTY * math.sqrt(pairs / 2)
