"""Synthetic histories: lines over commits under the noise of a shared machine, and folders of stored runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.analysis.history.lines import Line, Timeline
from benchmarks.analysis.history.names import LineName, case_names
from benchmarks.analysis.history.storage import Revision
from benchmarks.analysis.reading.setting import SETTING, Case, Setting
from benchmarks.analysis.scaling.units import Floats
from tests.synthetic import Law, Machine, Noise, Run, ceilings

OF_RUNS = Noise(0.015, 0.0, 0.01)
EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
MODES = ("bidirectional", "causal")
KERNELS = {
    **{("linear-chunked", mode): Law(1e-6, 1) for mode in MODES},
    **{("standard-sdpa", mode): Law(1e-9, 2) for mode in MODES},
}
LENGTHS = (512, 1024, 2048)
SMALL: dict[str, Any] = {"lengths": LENGTHS, "repetitions": 1, "rounds": 3}


@dataclass(frozen=True)
class Disquiet:
    """Noise of the values of neighbouring commits.

    Attributes:
        run: Standard deviation of the log of each value.
        correlation: Correlation of neighbouring commits.
        unequal: Standard deviation of the log of the noise itself, which differs between commits.
        stray: Share of the commits whose value is a third too large.
        drift: Growth of the log from the first commit to the last.
    """

    run: float = 0.015
    correlation: float = 0.0
    unequal: float = 0.0
    stray: float = 0.0
    drift: float = 0.0

    def draw(self, random: np.random.Generator, lines: int, commits: int) -> Floats:
        """Draw logs of values, of shape (lines, commits)."""
        z = random.standard_normal((commits, lines))
        for earlier, later in pairwise(z):
            later *= np.sqrt(1 - self.correlation**2)
            later += self.correlation * earlier
        logs = self.run * z.T * np.exp(self.unequal * random.standard_normal(commits))
        logs += self.drift * np.linspace(0, 1, commits)
        return np.asarray(logs + 0.3 * (random.random(logs.shape) < self.stray))


DISQUIETS = {
    "independent runs": Disquiet(),
    "correlated, 0.3 between neighbours": Disquiet(correlation=0.3),
    "correlated, 0.6": Disquiet(correlation=0.6),
    "unequal noise, a factor of 1.5 up or down": Disquiet(unequal=0.4),
    "2 % stray runs, a third slower": Disquiet(stray=0.02),
    "a drift of 3 % from end to end": Disquiet(drift=0.03),
    "all of these": Disquiet(correlation=0.3, unequal=0.4, stray=0.02, drift=0.03),
}


@dataclass(frozen=True)
class Telegraph:
    """States of the machine, each of which lasts some runs and then gives way to another.

    Attributes:
        levels: Log of the time in each state.
        lasts: The least and the most runs that a state lasts.
        response: The least and the largest response of a line.
        hit: Share of the lines that respond at all.
    """

    levels: tuple[float, ...] = (0.0, math.log(1.15))
    lasts: tuple[int, int] = (5, 25)
    response: tuple[float, float] = (1.0, 1.0)
    hit: float = 1.0

    def draw(self, random: np.random.Generator, lines: int, commits: int) -> Floats:
        """Draw logs, of shape (lines, commits)."""
        path, place, state = np.zeros(commits), 0, int(random.integers(len(self.levels)))
        while place < commits:
            stop = place + int(random.integers(self.lasts[0], self.lasts[1] + 1))
            path[place:stop] = self.levels[state]
            place, state = stop, (state + int(random.integers(1, len(self.levels)))) % len(self.levels)
        responses = random.uniform(*self.response, lines) * (random.random(lines) < self.hit)
        return np.asarray(responses[:, None] * path)


@dataclass(frozen=True)
class Wander:
    """A slow wander of the machine, autoregressive of first order."""

    size: float = 0.05
    correlation: float = 0.9

    def draw(self, random: np.random.Generator, lines: int, commits: int) -> Floats:
        """Draw logs, of shape (lines, commits)."""
        common = Disquiet(self.size, self.correlation).draw(random, 1, commits)
        return np.asarray(np.repeat(common, lines, axis=0))


State = Telegraph | Wander
STATES: dict[str, Sequence[State]] = {
    "clock states 15 % apart for 5 to 25 runs": [Telegraph()],
    "the same, lines respond by 5 to 15 %": [Telegraph(response=(1 / 3, 1))],
    "the same, half of the lines respond": [Telegraph(hit=0.5)],
    "the same, of three states": [Telegraph(levels=(0.0, math.log(1.07), math.log(1.15)))],
    "states of clock and of memory, each of half of the lines": [Telegraph(hit=0.5), Telegraph(hit=0.5)],
    "a common wander of 5 %, 0.9 between neighbours": [Wander()],
}
"""What moves many lines of a machine at once."""


def timeline(logs: Floats, kernels: int = 10) -> Timeline:
    """Lines of these logs of times, of shape (lines, commits), shared out evenly to so many kernels.

    Args:
        logs: Logs of times.
        kernels: How many, of an equal number of lengths each.
    """
    names = []
    for index in range(len(logs)):
        kernel, length = f"linear-{index * kernels // len(logs)}", 2 ** (index % -(-len(logs) // kernels))
        names.append(_name(kernel, length))
    commits = logs.shape[1]
    lines = [
        Line("time", name, np.arange(commits), row, np.ones(commits))
        for name, row in zip(names, np.exp(logs), strict=True)
    ]
    revisions = [Revision(EPOCH + timedelta(days=day), commit=commit_id(day)) for day in range(commits)]
    return Timeline("machine 1", "synthetic", commits, revisions, lines, [], [])


def _name(kernel: str, length: int) -> LineName:
    machine = {"mode": "causal", "phase": "forward", "device": "cpu", "dtype": "float32"}
    shape = {"batch": 1, "heads": 1, "head_dim": 64}
    fields = {**dict.fromkeys(SETTING), "subject": "operator", "machine": "", **machine, **shape}
    key = f"{kernel}/causal/forward/cpu/float32/B1-H1-N{length}-D64"
    case = Case(kernel, kernel.partition("-")[0], Setting.of(fields), length)
    return case_names([(key, "wall", "a CPU")], [case])[0]


def commit_id(number: int) -> str:
    """A full commit id whose first 7 digits are unique."""
    return f"{number:07x}" + "c" * 33


def store(
    folder: Path,
    number: int,
    laws: Mapping[tuple[str, str], Law],
    *,
    commit: int | None = None,
    changes: Mapping[str, Any] | None = None,
    peaks: Mapping[str, float] | None = None,
    machine_info: Mapping[str, Any] | None = None,
    noise: Noise = OF_RUNS,
    lengths: Sequence[int] = (256, 512, 1024, 2048, 4096),
    **options: Any,
) -> Path:
    """Save a run as pytest-benchmark would, of a commit of its own unless one is given.

    Args:
        folder: The storage.
        number: Number of the run, which names and dates it, and of the commit unless that is given.
        laws: Laws of `Run`.
        commit: Number of the commit.
        changes: Fields of `commit_info` that differ.
        peaks: Factor on the peak memory of each kernel named.
        machine_info: Fields of `machine_info` that differ.
        noise: Noise of the run.
        lengths: Lengths of the cases.
        **options: Further fields of `Run`.
    """
    commit = number if commit is None else commit
    content = Run(laws, lengths, noise=noise, seed=number, **options).content()
    content["datetime"] = (EPOCH + timedelta(days=number, hours=1)).isoformat()
    time = (EPOCH + timedelta(days=commit)).isoformat()
    known = {"id": commit_id(commit), "time": time, "author_time": time, "dirty": False}
    content["commit_info"] = {**known, **(changes or {})}
    content["machine_info"] |= dict(machine_info or {})
    for row in content["benchmarks"]:
        info = row["extra_info"]
        info["peak_bytes"] = int(info["peak_bytes"] * (peaks or {}).get(info["kernel"], 1))
    path = folder / "Linux-CPython-3.11-64bit" / f"{number:04d}_{commit_id(commit)}_20250101.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4))
    return path


def slower(factor: float) -> dict[tuple[str, str], Law]:
    """Laws of the kernels with the linear kernel slower by a factor."""
    slow = Law(1e-6 * factor, 1)
    return {**KERNELS, **{("linear-chunked", mode): slow for mode in MODES}}


FIVE = ("linear-a", "linear-b", "standard-c", "standard-d", "linear-e")


def store_states(
    folder: Path,
    commits: int,
    *,
    state: Callable[[int], float] = lambda _: 1.0,
    own: Callable[[int, str], float] = lambda *_: 1.0,
    kernels: Sequence[str] = FIVE,
    with_ceilings: bool = True,
) -> Path:
    """Save runs of kernels on a machine whose state slows everything by a factor, the ceilings too.

    Args:
        folder: The storage.
        commits: One run each.
        state: The factor of each commit.
        own: A kernel's own factor at each commit.
        kernels: Which are measured, in both modes.
        with_ceilings: Whether the ceilings are measured as well.
    """
    for number in range(commits):
        laws: dict[tuple[str, str], Law] = {}
        for kernel in kernels:
            first = KERNELS["standard-sdpa" if kernel.startswith("standard") else "linear-chunked", "causal"]
            factor = state(number) * own(number, kernel)
            laws |= {(kernel, mode): replace(first, coefficient=factor * first.coefficient) for mode in MODES}
        path = store(folder, number, laws, **SMALL)
        if with_ceilings:
            content = json.loads(path.read_text())
            factor = state(number) * math.exp(0.01 * np.random.default_rng(number).standard_normal())
            content["benchmarks"] += ceilings(Machine(), 2e10 / factor, 1e11 / factor)
            path.write_text(json.dumps(content))
    return folder
