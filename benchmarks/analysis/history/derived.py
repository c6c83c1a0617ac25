"""Exponents and crossovers of the runs of a machine, which follow from the times of their cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.analysis.history.names import LineName, series_name
from benchmarks.analysis.reading.roles import USUAL, Roles
from benchmarks.analysis.reading.setting import CASE, Case, by_series, by_setting
from benchmarks.analysis.scaling.growth import flat_window, slope_tolerance
from benchmarks.analysis.scaling.units import MIN_LENGTHS, Floats, complete_block, local_slopes

Columns = tuple[Sequence[LineName], Floats]
"""Names of lines, and their values: a row a run, a column a line."""


def case_columns(names: Sequence[LineName], cases: Sequence[Case]) -> pd.DataFrame:
    """The cases of attention that have a length, ascending: fields, name, and column in tables of runs.

    Of keys that name one case the first counts.
    """
    rows = [
        {"kernel": case.kernel, "family": case.family, **asdict(case.setting), "seq_len": case.seq_len}
        for case in cases
    ]
    table = pd.DataFrame(rows, columns=list(CASE)).assign(
        name=pd.Series(names, dtype=object), column=np.arange(len(cases))
    )
    lengths = table["seq_len"].notna() & (table["subject"] != "ceiling")
    return table[lengths].drop_duplicates(list(CASE)).sort_values("seq_len", kind="stable")


def _block(series: pd.DataFrame, logs: Floats) -> tuple[Floats, pd.DataFrame]:
    """Lengths and times of a series in the runs that hold all of them, so that its window never changes."""
    table = pd.DataFrame(logs[:, series["column"]], columns=series["seq_len"].astype(int).to_list())
    block, _ = complete_block(table)
    return block.columns.to_numpy(dtype=float), block


def exponents(cases: pd.DataFrame, logs: Floats) -> Columns:
    """Slope of log time on log N in each run, over a window that is the same in all of them."""
    names, columns = [], []
    for kernel, _, setting, series in by_series(cases):
        lengths, block = _block(series, logs)
        if len(lengths) < MIN_LENGTHS or block.empty:  # no run holds all of them
            continue
        seconds = block.map(np.exp)
        start = flat_window(local_slopes(seconds), slope_tolerance(seconds))
        start = len(lengths) - MIN_LENGTHS if start is None else start
        slopes = np.polyfit(np.log(lengths[start:]), block.to_numpy()[:, start:].T, 1)[0]
        window = f"N={lengths[start]:.0f}-{lengths[-1]:.0f}"
        names.append(series_name(series["name"].iloc[0], setting, (kernel,), f" {window}"))
        columns.append(_spread_out(block.index, slopes, len(logs)))
    return names, np.array(columns).T


def _spread_out(rows: pd.Index, values: Floats, count: int) -> Floats:
    """A column for all runs, NaN in those that do not hold the value."""
    column = np.full(count, np.nan)
    column[rows.to_numpy()] = values
    return column


def crossovers(cases: pd.DataFrame, logs: Floats, roles: Roles = USUAL) -> Columns:
    """Log N* of every contender and every baseline in each run, where they cross in any."""
    names, columns = [], []
    for setting, group in by_setting(cases):
        for pair in roles.pairs(group["kernel"].unique()):
            ours, theirs = (group[group["kernel"] == kernel] for kernel in pair)
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
                names.append(series_name(group["name"].iloc[0], setting, pair))
                columns.append(_spread_out(block.index, crossings, len(logs)))
    return names, np.array(columns).T


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
