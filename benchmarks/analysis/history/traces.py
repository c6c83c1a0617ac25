"""The steps of all lines of a machine, and of the machine itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.analysis.history.levels import constant_runs, segments
from benchmarks.analysis.history.lines import Line, Timeline
from benchmarks.analysis.history.machine import Machine
from benchmarks.analysis.history.names import LineName
from benchmarks.analysis.history.noises import LINES_TO_POOL, Noise, estimate_noises
from benchmarks.analysis.history.responses import Prior, responses, separate
from benchmarks.analysis.history.traced import Traced, scaled, weights
from benchmarks.analysis.scaling.units import Floats

MARGIN = 0.03
"""Steps that are smaller are not named: a machine drifts by as much within a hundred commits."""
NOISY = ("time", "exponent", "crossover")
EXACT_NOISE = Noise(0.0, 0.0, 1.0)


def trace(timeline: Timeline, margin: float = MARGIN) -> list[Traced]:
    """Find the steps of every line of a machine, and those of the machine itself.

    Args:
        timeline: Its lines.
        margin: Smaller steps are none: a share, of exponents a difference.
    """
    noisy = [line for line in timeline.lines if not line.exact]
    traced = [
        Traced(timeline, line, EXACT_NOISE, list(constant_runs(line.values, line.slack)))
        for line in timeline.lines
        if line.exact
    ]
    machine = machine_of(timeline, math.log1p(margin))
    typical, growth = 0.0, None
    for quantity in NOISY:
        own = [line for line in noisy if line.quantity == quantity]
        shared = [machine.states(line.name.kernels)[:, line.places] for line in own]
        values = [
            (_rest(scaled(line), paths), weights(line)) for line, paths in zip(own, shared, strict=True)
        ]
        priors = _priors(own, machine)
        # A ratio of two times has the noise of both, also where it is cut off at the longest length.
        floor = math.sqrt(2) * typical if quantity == "crossover" else 0.0
        noises = estimate_noises(values, floor, growth)
        if quantity == "time" and len(own) >= LINES_TO_POOL:
            typical = float(np.median([noise.short for noise in noises]))
            growth = float(np.median([noise.long / noise.short for noise in noises]))
        for line, paths, noise in zip(own, shared, noises, strict=True):
            least = math.log1p(margin) if line.logarithmic else margin
            traced.append(_traced(timeline, line, paths, priors[line.name.kernels], noise, len(noisy), least))
    moved = any(np.ptp(one.common) > 0 for one in traced)
    return traced + (list(_machine(timeline, machine)) if moved else [])


def machine_of(timeline: Timeline, least: float) -> Machine:
    """The times of a machine, by the kernel of each."""
    times = [line for line in timeline.lines if line.quantity == "time"]
    logs = np.full((len(times), len(timeline.revisions)), np.nan)
    for row, line in zip(logs, times, strict=True):
        row[line.places] = np.log(line.values)
    kernels = [line.name.kernels[0] for line in times]
    return Machine(logs, kernels, np.array([line.ceiling for line in times], dtype=bool), least)


def _machine(timeline: Timeline, machine: Machine) -> Iterator[Traced]:
    """The lines of the machine itself: a factor on typical times, for each kind of state."""
    paths = machine.states()
    for number, path in enumerate(paths, start=1):
        places = np.flatnonzero(np.isfinite(machine.logs).any(axis=0))
        ones = np.ones(len(places))
        (noise,) = estimate_noises([(path[places], ones)])
        found = segments(path[places], ones, noise, lines=len(paths), margin=machine.least)
        name = LineName(timeline.name if len(paths) == 1 else f"{timeline.name}, state {number}")
        name.kernels, name.series, name.seq_len, name.head, name.tail = (), str(name), None, str(name), ""
        line = Line("machine", name, places, np.exp(path[places]), ones)
        yield Traced(timeline, line, noise, found, len(paths), machine.least)


def _rest(values: Floats, paths: Floats) -> Floats:
    """Values less all that follows the states, as their noise shows best."""
    return np.asarray(values - responses(values[None], paths)[0] @ paths)


def _priors(own: Sequence[Line], machine: Machine) -> dict[tuple[str, ...], Prior]:
    """By the kernels of a line, how the lines of other kernels respond."""
    priors = {}
    logs = np.full((len(own), machine.logs.shape[1]), np.nan)
    for row, line in zip(logs, own, strict=True):
        row[line.places] = scaled(line)
    for kernels in {line.name.kernels for line in own}:
        others = [not set(kernels) & set(line.name.kernels) for line in own]
        priors[kernels] = Prior.of(responses(logs[others], machine.states(kernels)))
    return priors


def _traced(
    timeline: Timeline, line: Line, paths: Floats, prior: Prior, noise: Noise, lines: int, margin: float
) -> Traced:
    pair = scaled(line), weights(line)
    if not len(paths):
        found = segments(*pair, noise, lines=lines, margin=margin)
        return Traced(timeline, line, noise, found, lines, margin, np.zeros(len(line.values)))
    response, found = separate(*pair, paths, noise, prior, lines=lines, margin=margin)
    return Traced(timeline, line, noise, found, lines, margin, response @ paths)
