"""The noise of shared machines, for many experiments at once.

Tables of the estimators, one row per unit and one column per length, are drawn by the thousand without files,
to prove how often the estimators are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tests.synthetic import Law

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CacheStep(Law):
    """A law whose every length from `at` on takes `factor` times as long, its data having left a cache."""

    at: int = 2048
    factor: float = 1.3

    def __call__(self, length: int) -> float:
        """Seconds at this length."""
        return super().__call__(length) * (self.factor if length >= self.at else 1)


@dataclass(frozen=True)
class Unrest:
    """Noise of a shared machine in a run.

    Attributes:
        run: Lognormal effect of the run on each of its cases (memory layout, placement of threads).
        repetition: Lognormal effect of each repetition within the run.
        round: Scale of the round noise, autoregressive of first order.
        correlation: Correlation of neighbouring rounds.
        skew: How much heavier the right tail of the rounds is; 0 is lognormal, at 1 one round in a hundred is
            nine scales late, where it is one and a half scales early at most.
        drift: Share by which a run grows slower, or faster, from its first case to its last.
        stalls: The share of rounds that take ten times as long.
        throttled: One of the runs has `clock` times its clock from a random moment on, or from `since`, where
            0 is its start and 1 its end.
    """

    run: float = 0.0175
    repetition: float = 0.0175
    round: float = 0.02
    correlation: float = 0.7
    skew: float = 0.0
    drift: float = 0.0
    stalls: float = 0.0
    throttled: bool = False
    clock: float = 0.8
    since: float | None = None


CALM = Unrest()
NOISES = {
    "run, repetition and AR(1) round noise": CALM,
    "heavy right tail": replace(CALM, round=0.04, skew=1.0),
    "drift of 10 % in each run": replace(CALM, drift=0.1),
    "10x stalls in 2 % of the rounds": replace(CALM, stalls=0.02),
    "one run throttled to 0.8x": replace(CALM, throttled=True),
    "all of these": Unrest(round=0.04, skew=1.0, drift=0.1, stalls=0.02, throttled=True),
    "one run 1.3x slower from its middle": replace(CALM, throttled=True, clock=1 / 1.3, since=0.5),
}
ALL = NOISES["all of these"]


def seconds(laws: Sequence[Law], lengths: Sequence[int]) -> Floats:
    """The true times, one row per law."""
    return np.array([[law(length) for length in lengths] for law in laws])


def draw_tables(
    truth: Floats,
    unrest: Unrest,
    *,
    draws: int,
    units: int,
    seed: int,
    repetitions: int = 3,
    rounds: int = 5,
) -> Floats:
    """Draw medians per unit, as `unit_table` makes them, of many experiments.

    Args:
        truth: The times of all cases of a run, one row per kernel and one column per length. All the kernels
            are measured in the same runs, so a drift or a throttled clock meets all of them.
        unrest: The noise.
        draws: Number of experiments.
        units: Runs in each experiment.
        seed: Seed of the random numbers.
        repetitions: Repetitions in each run, their cases in an order of their own.
        rounds: Rounds in each repetition of a case.

    Returns:
        Seconds of shape (kernels, draws, units, lengths): the median over repetitions of the rounds' median.
    """
    random = np.random.default_rng(seed)
    cases = truth.size
    runs, repeated = (draws, units, 1, cases), (draws, units, repetitions, cases)
    effect = unrest.run * random.standard_normal(runs)
    effect = effect + unrest.repetition * random.standard_normal(repeated)

    # Moment at which each case is measured: 0 is the start of the run, 1 is its end.
    order = np.argsort(random.random(repeated), axis=-1)
    moment = (order + cases * np.arange(repetitions)[:, None]) / (cases * repetitions)
    effect += unrest.drift * random.choice([-1.0, 1.0], (draws, units, 1, 1)) * moment
    if unrest.throttled:
        since = random.random((draws, 1, 1)) if unrest.since is None else unrest.since
        effect[:, 0] -= np.log(unrest.clock) * (moment[:, 0] >= since)

    z = random.standard_normal((rounds, *repeated))
    for earlier, later in pairwise(z):
        later *= np.sqrt(1 - unrest.correlation**2)
        later += unrest.correlation * earlier
    noise = np.expm1(unrest.skew * z) / unrest.skew if unrest.skew else z
    logs = unrest.round * noise
    if unrest.stalls:
        logs += np.log(10) * (random.random(logs.shape) < unrest.stalls)
    medians = np.median(np.median(logs, axis=0) + effect, axis=2)
    tables = truth.reshape(-1) * np.exp(medians)
    return np.moveaxis(tables.reshape(draws, units, *truth.shape), 2, 0)
