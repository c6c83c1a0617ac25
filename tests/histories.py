"""Synthetic histories: lines over commits under the noise of a shared machine, and folders of stored runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.analysis.scaling.units import Floats
from tests.synthetic import Law, Noise, Run

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
