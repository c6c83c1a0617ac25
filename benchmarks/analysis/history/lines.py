"""The lines of a machine over its commits: times and counts of cases, exponents and crossovers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.analysis.history.derived import Columns, all_series, crossovers, exponents
from benchmarks.analysis.history.names import LineName, case_names, is_ceiling
from benchmarks.analysis.history.storage import EXACT, Revision, StoredRun
from benchmarks.analysis.reading.fields import UNSPLIT_BYTES
from benchmarks.analysis.reading.roles import Roles
from benchmarks.analysis.reading.texts import printable
from benchmarks.analysis.scaling.units import Floats

LOGARITHMIC = ("time", "crossover", "machine")


@dataclass(frozen=True, eq=False)
class Line:
    """One quantity over the commits that measured it.

    Attributes:
        quantity: "time" (s), "exponent", "crossover" (tokens), "machine" (a factor on times), or
            one of `EXACT`.
        name: The name of a case, of exponents that of a series, of crossovers that of a pair.
        places: Index of each value's revision on its machine.
        values: Median over the runs of a revision; of exact quantities the least.
        runs: How many runs each rests on.
        slack: By how much an exact quantity may differ without any reason in the code.
    """

    quantity: str
    name: LineName
    places: NDArray[np.intp]
    values: Floats
    runs: Floats
    slack: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether it has no noise."""
        return self.quantity in EXACT

    @property
    def ceiling(self) -> bool:
        """Whether it is of a ceiling of the device, which no kernel touches."""
        return is_ceiling(self.name)

    @property
    def logarithmic(self) -> bool:
        """Whether its noise and its steps are relative."""
        return self.quantity in LOGARITHMIC


@dataclass(frozen=True)
class Failure:
    """A case that ran before, and whose newest outcome, since the revision of index `place`, is another."""

    key: str
    outcome: str
    place: int


@dataclass(frozen=True)
class Disturbance:
    """A run, of the revision of index `place`, and what disturbed it, by kind."""

    place: int
    file: str
    conditions: dict[str, str]


@dataclass(frozen=True, eq=False)
class Timeline:
    """All lines of one machine, over its revisions in their order."""

    name: str
    fingerprint: str
    runs: int
    revisions: list[Revision]
    lines: list[Line]
    failures: list[Failure]
    disturbances: list[Disturbance]


def timelines(runs: Sequence[StoredRun]) -> list[Timeline]:
    """One timeline a machine, the one with the most runs first."""
    machines: dict[str, list[StoredRun]] = {}
    for run in runs:
        machines.setdefault(run.machine, []).append(run)
    ordered = sorted(machines.items(), key=lambda machine: -len(machine[1]))
    return [_timeline(f"machine {number}", *own) for number, own in enumerate(ordered, start=1)]


def _timeline(name: str, machine: str, runs: Sequence[StoredRun]) -> Timeline:
    revisions = sorted({run.revision for run in runs})
    index = {revision: place for place, revision in enumerate(revisions)}
    places = np.array([index[run.revision] for run in runs])
    known = {identity: case for run in runs for identity, case in run.cases.items()}
    identities = sorted(known)
    cases = [known[identity] for identity in identities]
    names = case_names(identities, cases)
    logs = np.log([[run.seconds.get(identity, np.nan) for identity in identities] for run in runs])
    lines = [*_lines("time", (names, logs), places)]
    unknown = (np.nan,) * len(EXACT)
    devices = {name: case.setting.device for name, case in zip(names, cases, strict=True)}
    for number, quantity in enumerate(EXACT):
        counts = np.array([[run.exact.get(one, unknown)[number] for one in identities] for run in runs])
        lines += [_with_slack(line, devices[line.name]) for line in _lines(quantity, (names, counts), places)]
    series, roles = all_series(cases), Roles.together(run.roles for run in runs)
    lines += _lines("exponent", exponents(series, names, logs), places)
    lines += _lines("crossover", crossovers(series, names, logs, roles), places)
    disturbed = [
        Disturbance(index[run.revision], printable(str(run.path)), run.conditions)
        for run in runs
        if run.conditions
    ]
    return Timeline(name, machine, len(runs), revisions, lines, list(_failures(runs, index)), disturbed)


def _with_slack(line: Line, device: str | None) -> Line:
    coarse = line.quantity == "peak_bytes" and device == "cuda" and line.values.min() > UNSPLIT_BYTES
    return replace(line, slack=UNSPLIT_BYTES) if coarse else line


def _lines(quantity: str, columns: Columns, places: NDArray[np.intp]) -> Iterator[Line]:
    """A line for each column of a table of runs, which holds logarithms of logarithmic quantities."""
    names, values = columns
    if not names:
        return
    groups = pd.DataFrame(values).groupby(places)
    merged = (groups.min() if quantity in EXACT else groups.median()).to_numpy(dtype=float)
    counts = groups.count().to_numpy(dtype=float)
    for name, column, runs in zip(names, merged.T, counts.T, strict=True):
        known = np.flatnonzero(runs)
        if len(known):
            own = column[known]
            own = np.exp(own) if quantity in LOGARITHMIC else own
            yield Line(quantity, name, known, own, runs[known])


def _failures(runs: Sequence[StoredRun], index: Mapping[Revision, int]) -> Iterator[Failure]:
    """The cases whose newest outcome is a failure; runs come in the order of their revisions."""
    measured = {key: index[run.revision] for run in runs for key, _, _ in run.cases}
    since: dict[str, tuple[str, int]] = {}
    for run in runs:
        place = index[run.revision]
        for key, outcome in run.failed.items():
            if key in measured and place > measured[key] and key not in since:
                since[key] = outcome, place
    for key, (outcome, place) in since.items():
        yield Failure(key, outcome, place)
