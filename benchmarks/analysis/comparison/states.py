"""The states of processes, which a few runs may hide: a case that has them looks changed, and known well.

Each process may draw for a case one of two states, such as a layout of its memory. Where all runs of the base
drew one of them and all of the head the other one, the case looks changed, and its own runs scatter no more
than those of a quiet case. Of r runs of both sides together this happens in 2^(1-r) of the comparisons where
the states are equally likely, and in fewer else, however far apart they lie: 12.5 % with 2 pairs, 3 % with 3,
0.05 % with 6. No rule can tell such a case by its own runs, so that two bounds hold:

- where that chance is above 5 %, as with fewer than 6 runs, a change counts only beyond `FARTHEST`;
- where it is not, so many cases of this kind may be that their chances add up to half of the 5 %. Where there
  are more of them, others of them show their scatter, and each case is taken to be no quieter than those.
"""

from __future__ import annotations

import numpy as np

from benchmarks.analysis.scaling.units import CONFIDENCE, Floats

ALPHA = 1 - CONFIDENCE
"""How likely a whole comparison without any change may raise an alarm."""
FARTHEST = 1.4
"""Ratio of times that the states of one case are assumed not to exceed; some lie 40 % apart."""


def chance(runs: Floats | int) -> Floats:
    """How likely a case of two states looks changed, by the number of runs of both sides together."""
    return np.asarray(2.0 ** (1.0 - runs))


def tolerable(runs: int, *, paired: bool) -> int:
    """How many cases of two states a comparison may hold whose own runs do not show it; at least 1.

    Paired, so many that the chances of all of them are half of `ALPHA`. Unpaired, each side is known by its
    own runs alone, which hardly show a single run in the other state. The chance of at most one such run is
    1 + r times as large; as not all of these look changed, those chances may be all of `ALPHA`.
    """
    share = ALPHA / 2 if paired else ALPHA / (1 + runs)
    return max(1, int(share / 2.0 ** (1 - runs)))


def shown_by_others(variance: Floats, rank: int) -> Floats:
    """For each variance, the one of this rank among the others, the largest first; 0 if they are fewer."""
    falling = np.sort(variance[~np.isnan(variance)])[::-1]
    if len(falling) <= rank:
        return np.zeros_like(variance)
    return np.asarray(np.where(variance >= falling[rank - 1], falling[rank], falling[rank - 1]))
