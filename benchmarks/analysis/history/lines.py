"""Lines over the commits of a machine: times and exact counts of its cases, exponents and crossovers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.analysis.history.storage import EXACT, CaseId, Revision, StoredRun
from benchmarks.analysis.reading.fields import FAMILIES, UNSPLIT_BYTES
from benchmarks.analysis.reading.setting import SERIES, SETTING
from benchmarks.analysis.scaling.growth import flat_window
from benchmarks.analysis.scaling.units import MIN_LENGTHS, Floats, complete_block, local_slopes

LOGARITHMIC = ("time", "crossover")


@dataclass(frozen=True, eq=False)
class Line:
    """One quantity over the commits that measured it.

    Attributes:
        quantity: "time" (s), "exponent", "crossover" (tokens), or one of `EXACT`.
        name: The case's key; of exponents the series, of crossovers the pair.
        kernels: The kernels in the name, two of a crossover.
        places: Index of each value's revision on its machine.
        values: Median over the runs of a revision; of exact quantities the least.
        runs: How many runs each rests on.
        slack: By how much an exact quantity may differ without any reason in the code.
    """

    quantity: str
    name: str
    kernels: tuple[str, ...]
    places: NDArray[np.intp]
    values: Floats
    runs: Floats
    slack: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether it has no noise."""
        return self.quantity in EXACT

    @property
    def logarithmic(self) -> bool:
        """Whether its noise and its steps are relative."""
        return self.quantity in LOGARITHMIC


Columns = tuple[Sequence[str], Sequence[tuple[str, ...]], Floats]
"""Names of lines, their kernels, and their values: a row a run, a column a line."""


def without_length(name: str) -> tuple[str, int | None]:
    """The name of a case as a series' is written, and its length."""
    length = re.search(r"-N(\d+)\b", name)
    return (name.replace(length[0], "", 1), int(length[1])) if length else (name, None)


@dataclass(frozen=True, eq=False)
class Timeline:
    """All lines of one machine, over its revisions in their order."""

    name: str
    fingerprint: str
    runs: int
    revisions: list[Revision]
    lines: list[Line]
    failures: list[tuple[str, str, int]]
    """Key, outcome and revision's index of each case that ran before, and whose newest news are that."""


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
    fields = {case: known for run in runs for case, known in run.fields.items()}
    cases = sorted(fields)
    names, kernels = _names(cases), [(str(fields[case]["kernel"]),) for case in cases]
    seconds = np.array([[run.seconds.get(case, np.nan) for case in cases] for run in runs])
    logs = np.log(seconds)
    lines = [*_lines("time", (names, kernels, logs), places)]
    unknown = (np.nan,) * len(EXACT)
    devices = {name: fields[case]["device"] for name, case in zip(names, cases, strict=True)}
    for number, quantity in enumerate(EXACT):
        counts = np.array([[run.exact.get(case, unknown)[number] for case in cases] for run in runs])
        lines += [
            _with_slack(line, devices[line.name])
            for line in _lines(quantity, (names, kernels, counts), places)
        ]
    table = pd.DataFrame([fields[case] for case in cases]).assign(name=names, column=np.arange(len(cases)))
    scaling = table[table["seq_len"].notna() & (table["subject"] != "ceiling")]
    lines += _lines("exponent", _exponents(scaling, logs), places)
    lines += _lines("crossover", _crossovers(scaling, logs), places)
    return Timeline(name, machine, len(runs), revisions, lines, list(_failures(runs, index)))


def _names(cases: Sequence[CaseId]) -> list[str]:
    keys = [key for key, _, _ in cases]
    return [
        key if keys.count(key) == 1 else f"{key} ({device}, {clock} clock)" for key, clock, device in cases
    ]


def _with_slack(line: Line, device: str) -> Line:
    coarse = line.quantity == "peak_bytes" and device == "cuda" and line.values.min() > UNSPLIT_BYTES
    return replace(line, slack=UNSPLIT_BYTES) if coarse else line


def _lines(quantity: str, columns: Columns, places: NDArray[np.intp]) -> Iterator[Line]:
    """A line for each column of a table of runs, which holds logarithms of logarithmic quantities."""
    names, kernels, values = columns
    if not names:
        return
    groups = pd.DataFrame(values).groupby(places)
    merged = (groups.min() if quantity in EXACT else groups.median()).to_numpy(dtype=float)
    counts = groups.count().to_numpy(dtype=float)
    for name, ours, column, runs in zip(names, kernels, merged.T, counts.T, strict=True):
        known = np.flatnonzero(runs)
        if len(known):
            own = column[known]
            own = np.exp(own) if quantity in LOGARITHMIC else own
            yield Line(quantity, name, ours, known, own, runs[known])


def _name(case: pd.Series, kernel: str) -> str:
    """That of a case, but without a length, and for this kernel."""
    return without_length(case["name"])[0].replace(case["kernel"], kernel, 1)


def _by(table: pd.DataFrame, fields: Sequence[str]) -> Iterator[pd.DataFrame]:
    if len(table):
        known = [name for name in fields if name in table]
        yield from (group.sort_values("seq_len") for _, group in table.groupby(known, dropna=False))


def _block(cases: pd.DataFrame, logs: Floats) -> tuple[Floats, pd.DataFrame]:
    """Lengths and times of a series in the runs that hold all of them, so that its window never changes."""
    table = pd.DataFrame(logs[:, cases["column"]], columns=cases["seq_len"].astype(int).to_list())
    block, _ = complete_block(table)
    return block.columns.to_numpy(dtype=float), block


def _exponents(scaling: pd.DataFrame, logs: Floats) -> Columns:
    """Slope of log time on log N in each run, over a window that is the same in all of them."""
    names, kernels, columns = [], [], []
    for cases in _by(scaling, SERIES):
        lengths, block = _block(cases, logs)
        if len(lengths) < MIN_LENGTHS:
            continue
        start = flat_window(local_slopes(block.map(np.exp)))
        start = len(lengths) - MIN_LENGTHS if start is None else start
        slopes = np.polyfit(np.log(lengths[start:]), block.to_numpy()[:, start:].T, 1)[0]
        window = f"N={lengths[start]:.0f}-{lengths[-1]:.0f}"
        kernel = str(cases["kernel"].iloc[0])
        names.append(f"{_name(cases.iloc[0], kernel)} {window}")
        kernels.append((kernel,))
        columns.append(_spread_out(block.index, slopes, len(logs)))
    return names, kernels, np.array(columns).T


def _spread_out(rows: pd.Index, values: Floats, count: int) -> Floats:
    """A column for all runs, NaN in those that do not hold the value."""
    column = np.full(count, np.nan)
    column[rows.to_numpy()] = values
    return column


def _crossovers(scaling: pd.DataFrame, logs: Floats) -> Columns:
    """Log N* of every linear kernel with every standard one, where they cross in any run."""
    names, kernels, columns = [], [], []
    for cases in _by(scaling, SETTING):
        families = {
            family: sorted(cases.loc[cases["family"] == family, "kernel"].unique()) for family in FAMILIES
        }
        for linear, standard in product(families["linear"], families["standard"]):
            ours, theirs = (cases[cases["kernel"] == kernel] for kernel in (linear, standard))
            both = ours.merge(theirs, on="seq_len")
            if len(both) < 2:
                continue
            ratios = pd.DataFrame(
                logs[:, both["column_x"]] - logs[:, both["column_y"]], columns=both["seq_len"].astype(int)
            )
            block, _ = complete_block(ratios)
            if block.shape[1] < 2:
                continue
            crossings, inside = log_crossings(
                np.log(block.columns.to_numpy(dtype=float)), block.to_numpy(dtype=float)
            )
            if inside.any():
                names.append(_name(cases.iloc[0], f"{linear} against {standard}"))
                kernels.append((linear, standard))
                columns.append(_spread_out(block.index, crossings, len(logs)))
    return names, kernels, np.array(columns).T


def log_crossings(x: Floats, ratios: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Where each row changes its sign, interpolated.

    Args:
        x: Ascending log lengths.
        ratios: Log-ratios, one row a run, one column a length.

    Returns:
        The zero of each row, the shortest or longest x where the linear kernel is ahead everywhere or
        nowhere, NaN where the sign changes more than once; and in which rows it changes once.
    """
    ahead = ratios < 0
    changes = ahead[:, 1:] != ahead[:, :-1]
    count, first = changes.sum(axis=1), changes.argmax(axis=1)
    rows = np.arange(len(ratios))
    left, right = ratios[rows, first], ratios[rows, first + 1]
    inside = count == 1
    share = left / np.where(inside, left - right, 1.0)
    zero = x[first] + share * (x[first + 1] - x[first])
    outside = np.where(count > 1, np.nan, np.where(ahead[:, 0], x[0], x[-1]))
    return np.where(inside, zero, outside), inside


def _failures(runs: Sequence[StoredRun], index: Mapping[Revision, int]) -> Iterator[tuple[str, str, int]]:
    """Runs are in the order of their revisions, so the last word is the newest."""
    measured = {key: index[run.revision] for run in runs for key, _, _ in run.fields}
    since: dict[str, tuple[str, int]] = {}
    for run in runs:
        place = index[run.revision]
        for key, outcome in run.failed.items():
            if key in measured and place > measured[key] and key not in since:
                since[key] = outcome, place
    for key, (outcome, place) in since.items():
        yield key, outcome, place
