"""Exponents and crossovers of the runs of a machine, which follow from the times of their cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.analysis.history.names import LineName, series_name
from benchmarks.analysis.reading.roles import USUAL, Roles
from benchmarks.analysis.reading.setting import Case, Setting
from benchmarks.analysis.scaling.growth import flat_window, slope_tolerance
from benchmarks.analysis.scaling.units import MIN_LENGTHS, Floats, complete_block, local_slopes

Columns = tuple[Sequence[LineName], Floats]
"""Names of lines, and their values: a row a run, a column a line."""


@dataclass(frozen=True)
class Series:
    """All lengths of one kernel in one setting.

    Attributes:
        kernel: Its kernel.
        family: That kernel's family.
        setting: All else in which they agree.
        columns: For each length, ascending, its column in tables of runs.
    """

    kernel: str
    family: str
    setting: Setting
    columns: dict[int, int]


def all_series(cases: Sequence[Case]) -> list[Series]:
    """The series of attention, in the order of their fields, what is unknown last.

    Of columns that hold one case the first counts.
    """
    found: dict[tuple[str, str, Setting], dict[int, int]] = {}
    for column, case in enumerate(cases):
        if case.seq_len is not None and case.setting.subject != "ceiling":
            lengths = found.setdefault((case.kernel, case.family, case.setting), {})
            lengths.setdefault(case.seq_len, column)
    ordered = sorted(found, key=lambda key: (*key[:2], _rank(key[2])))
    return [Series(*key, dict(sorted(found[key].items()))) for key in ordered]


def _rank(setting: Setting) -> list[tuple[bool, Any]]:
    """The place of a setting in an order by its fields, in which what is unknown comes last."""
    return [(value is None, value or 0) for value in astuple(setting)]


def _block(lengths: list[int], logs: Floats) -> tuple[Floats, pd.DataFrame]:
    """Lengths and logs of the runs that hold all of them, so that a window never changes."""
    block, _ = complete_block(pd.DataFrame(logs, columns=pd.Index(lengths)))
    return block.columns.to_numpy(dtype=float), block


def exponents(every: Sequence[Series], case_names: Sequence[LineName], logs: Floats) -> Columns:
    """Slope of log time on log N in each run, over a window that is the same in all of them.

    Args:
        every: The series.
        case_names: The names of the columns of `logs`.
        logs: Log seconds, a row a run.
    """
    names, columns = [], []
    for series in every:
        own = list(series.columns.values())
        lengths, block = _block(list(series.columns), logs[:, own])
        if len(lengths) < MIN_LENGTHS or block.empty:  # no run holds all of them
            continue
        seconds = block.map(np.exp)
        start = flat_window(local_slopes(seconds), slope_tolerance(seconds))
        start = len(lengths) - MIN_LENGTHS if start is None else start
        slopes = np.polyfit(np.log(lengths[start:]), block.to_numpy()[:, start:].T, 1)[0]
        window = f"N={lengths[start]:.0f}-{lengths[-1]:.0f}"
        names.append(series_name(case_names[own[0]], series.setting, (series.kernel,), f" {window}"))
        columns.append(_spread_out(block.index, slopes, len(logs)))
    return names, np.array(columns).T


def _spread_out(rows: pd.Index, values: Floats, count: int) -> Floats:
    """A column for all runs, NaN in those that do not hold the value."""
    column = np.full(count, np.nan)
    column[rows.to_numpy()] = values
    return column


def crossovers(
    every: Sequence[Series], case_names: Sequence[LineName], logs: Floats, roles: Roles = USUAL
) -> Columns:
    """Log N* of every contender and every baseline in each run, where they cross in any.

    Args:
        every: The series.
        case_names: The names of the columns of `logs`.
        logs: Log seconds, a row a run.
        roles: Which kernels are compared with which.
    """
    names, columns = [], []
    for ours, theirs in _pairs(every, roles):
        both = [length for length in ours.columns if length in theirs.columns]
        if len(both) < 2:
            continue
        own, other = ([one.columns[length] for length in both] for one in (ours, theirs))
        lengths, block = _block(both, logs[:, own] - logs[:, other])
        if len(lengths) < 2:
            continue
        crossings, inside = log_crossings(np.log(lengths), block.to_numpy(dtype=float))
        if inside.any():
            first = min(pair for one in every if one.setting == ours.setting for pair in one.columns.items())
            names.append(series_name(case_names[first[1]], ours.setting, (ours.kernel, theirs.kernel)))
            columns.append(_spread_out(block.index, crossings, len(logs)))
    return names, np.array(columns).T


def _pairs(every: Sequence[Series], roles: Roles) -> Iterator[tuple[Series, Series]]:
    """Each contender with each baseline of its setting, in the order of the settings."""
    settings: dict[Setting, dict[str, Series]] = {}
    for one in every:
        settings.setdefault(one.setting, {})[one.kernel] = one
    for setting in sorted(settings, key=_rank):
        kernels = settings[setting]
        for contender, baseline in roles.pairs(kernels):
            yield kernels[contender], kernels[baseline]


def log_crossings(x: Floats, ratios: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Where each row changes its sign, interpolated.

    Args:
        x: Ascending log lengths.
        ratios: Log-ratios, one row a run, one column a length.

    Returns:
        The zero of each row, the shortest or longest x where the contender is ahead everywhere or
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
