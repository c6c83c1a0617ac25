"""The noise of shared machines, for many experiments at once.

Tables of the estimators, one row per unit and one column per length, are drawn by the thousand without files,
to prove how often the estimators are right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tests.synthetic import Law

Floats = NDArray[np.float64]
SLICE_S = 2.0
"""Seconds that a case takes in one repetition, its preparation included."""


@dataclass(frozen=True)
class CacheStep(Law):
    """A law whose every length from `at` on takes `factor` times as long, its data having left a cache."""

    at: int = 2048
    factor: float = 1.3

    def __call__(self, length: int) -> float:
        """Seconds at this length."""
        return super().__call__(length) * (self.factor if length >= self.at else 1)


@dataclass(frozen=True)
class Tiled(Law):
    """A law whose time is that of the next multiple of a tile, as of a kernel that fills whole tiles."""

    tile: int = 128

    def __call__(self, length: int) -> float:
        """Seconds at this length."""
        return super().__call__(-(-length // self.tile) * self.tile)


@dataclass(frozen=True)
class Floored(Law):
    """A law of max(overhead, a N^p), as where launching a call takes longer than its work."""

    def __call__(self, length: int) -> float:
        """Seconds at this length."""
        return max(self.overhead, float(self.coefficient * length**self.power))


@dataclass(frozen=True)
class Unrest:
    """Noise of a shared machine in a run.

    Attributes:
        run: Lognormal effect of the run on each of its cases (memory layout, placement of threads).
        repetition: Lognormal effect of each repetition of a case within the run.
        round: Scale of the round noise, autoregressive of first order.
        correlation: Correlation of neighbouring rounds.
        skew: How much heavier the right tail of the rounds is; 0 is lognormal, at 1 one round in a hundred is
            nine scales late, where it is one and a half scales early at most.
        drift: Share by which a run grows slower, or faster, from its first case to its last.
        stalls: The share of rounds that take ten times as long.
        throttled: One of the runs has `clock` times its clock from a random moment on, or from `since`, where
            0 is its start and 1 its end.
        states: Log of the distance of two states of the clock, between which the machine changes.
        stay: Seconds for which a state lasts in the mean; infinite where each run has its own.
        warm_up: Share by which a run is slower at its start; of it 1/e is left after a tenth of the run.
        bursts: Share of the repetitions in a quarter of which everything takes half as long again.
        tick: Seconds of which the stamps of the clock are multiples; 0 for a fine clock.
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
    states: float = 0.0
    stay: float = math.inf
    warm_up: float = 0.0
    bursts: float = 0.0
    tick: float = 0.0


CALM = Unrest()
CLOCKED = replace(CALM, states=math.log(1.15))
NOISES = {
    "run, repetition and AR(1) round noise": CALM,
    "heavy right tail": replace(CALM, round=0.04, skew=1.0),
    "drift of 10 % in each run": replace(CALM, drift=0.1),
    "10x stalls in 2 % of the rounds": replace(CALM, stalls=0.02),
    "one run throttled to 0.8x": replace(CALM, throttled=True),
    "all of these": Unrest(round=0.04, skew=1.0, drift=0.1, stalls=0.02, throttled=True),
    "one run 1.3x slower from its middle": replace(CALM, throttled=True, clock=1 / 1.3, since=0.5),
    "run effects of 3 %": replace(CALM, run=0.03),
    "clock states 15 % apart, for 12 s": replace(CLOCKED, stay=12),
    "clock states 15 % apart, for a run": CLOCKED,
    "clock states 15 % apart, for an hour": replace(CLOCKED, stay=3600),
    "warm-up by 20 %": replace(CALM, warm_up=0.2),
    "bursts of 1.5x in a third of the repetitions": replace(CALM, bursts=1 / 3),
    "a clock that ticks in 1 µs": replace(CALM, tick=1e-6),
    "slices 18 % apart, rounds 10 %": Unrest(repetition=0.18, round=0.1),
}
ALL = NOISES["all of these"]
SHARED = NOISES["slices 18 % apart, rounds 10 %"]


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
    """Draw medians per run, as `unit_table` makes them, of many experiments.

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
    medians = _draw(truth, unrest, (draws, units, repetitions), rounds, seed)
    return np.moveaxis(np.median(medians, axis=2), 2, 0)


def draw_files(
    truth: Floats, unrest: Unrest, *, draws: int, repetitions: int, seed: int, rounds: int = 5
) -> Floats:
    """Draw medians per repetition of single runs; the arguments are those of `draw_tables`.

    Returns:
        Seconds of shape (kernels, draws, repetitions, lengths).
    """
    medians = _draw(truth, unrest, (draws, 1, repetitions), rounds, seed)
    return np.moveaxis(medians[:, 0], 2, 0)


def _draw(truth: Floats, unrest: Unrest, size: tuple[int, int, int], rounds: int, seed: int) -> Floats:
    """Median seconds of each slice, of shape (draws, runs, repetitions, kernels, lengths)."""
    random = np.random.default_rng(seed)
    cases = truth.size
    effect = unrest.run * random.standard_normal((*size[:2], 1, cases))
    effect = effect + unrest.repetition * random.standard_normal((*size, cases))
    place = _places(random, size, truth.shape)
    effect += np.take_along_axis(_common(random, unrest, size, cases), place, axis=-1)

    z = random.standard_normal((rounds, *effect.shape))
    for earlier, later in pairwise(z):
        later *= np.sqrt(1 - unrest.correlation**2)
        later += unrest.correlation * earlier
    noise = np.expm1(unrest.skew * z) / unrest.skew if unrest.skew else z
    logs = unrest.round * noise
    if unrest.stalls:
        logs += np.log(10) * (random.random(logs.shape) < unrest.stalls)
    if unrest.tick:
        times = truth.reshape(-1) * np.exp(logs + effect) / unrest.tick
        medians = np.median(np.floor(times + random.random(times.shape)), axis=0) * unrest.tick
    else:
        medians = truth.reshape(-1) * np.exp(np.median(logs, axis=0) + effect)
    return np.asarray(medians.reshape(*size, *truth.shape))


def _places(
    random: np.random.Generator, size: tuple[int, int, int], shape: tuple[int, ...]
) -> NDArray[np.intp]:
    """The place of each case in its repetition.

    In the first repetition of a run the lengths of each kernel ascend; of several runs of one repetition, in
    the first run, whose times the others know.
    """
    keys = random.random((*size, *shape))
    ascending = slice(None) if size[2] > 1 else slice(1)
    keys[:, ascending, 0].sort(axis=-1)
    return np.argsort(np.argsort(keys.reshape(*size, -1), axis=-1), axis=-1)


def _common(random: np.random.Generator, unrest: Unrest, size: tuple[int, int, int], cases: int) -> Floats:
    """What slows whatever runs, as logs of shape (draws, runs, repetitions, places in the repetition)."""
    draws, runs, repetitions = size
    steps = repetitions * cases
    moment = np.arange(steps) / steps  # 0 is the start of the run, 1 is its end
    logs = unrest.drift * random.choice([-1.0, 1.0], (draws, runs, 1)) * moment
    logs = logs + np.log1p(unrest.warm_up * np.exp(-moment / 0.1))
    if unrest.throttled:
        since = random.random((draws, 1)) if unrest.since is None else unrest.since
        logs[:, 0] -= np.log(unrest.clock) * (moment >= since)
    if unrest.states:
        first = random.integers(2, size=(draws, 1 if math.isfinite(unrest.stay) else runs, 1))
        # A state that may change at any instant has changed in a slice if it did so an odd number of times.
        changes = random.random((draws, runs * steps)) < -np.expm1(-2 * SLICE_S / unrest.stay) / 2
        state = first + np.cumsum(changes, axis=1).reshape(draws, runs, steps)
        logs = logs + unrest.states * (state % 2)
    logs = logs.reshape(*size, cases)
    if unrest.bursts:
        since = random.random((*size, 1)) * 0.75
        place = np.arange(cases) / cases
        within = (place >= since) & (place < since + 0.25)
        logs = logs + np.log(1.5) * (within & (random.random((*size, 1)) < unrest.bursts))
    return logs
