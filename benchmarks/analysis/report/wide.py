"""The times of a setting side by side: a row for each length, columns for each kernel and mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pandas as pd

from benchmarks.analysis.report.cases import OVER_ROUNDS
from benchmarks.analysis.report.conclusions import Summary
from benchmarks.analysis.report.pictures.drawing import free_name
from benchmarks.analysis.report.pictures.views import View, views

STEM = "complexity_analysis_wide"


def wide_tables(summary: Summary, cases: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A table for each setting of operators in which kernels can be compared, by the name of its file."""
    found: dict[str, pd.DataFrame] = {}
    for suffix, view in views(summary, cases):
        if any(pair.quantity == "time" for pair in view.crossovers):
            found[free_name(f"{STEM}{suffix}", found, "csv")] = wide_table(view)
    return found


def wide_table(view: View) -> pd.DataFrame:
    """The times of all modes of a setting, and the speedups of the contenders over the baselines.

    Returns:
        One row for each length asked for. Beside `seq_len`, for each kernel and mode `..._mean_ms` and
        `..._std_ms`, mean and standard deviation over all rounds in milliseconds, and for each pair and mode
        `speedup_...`, the ratio that the pictures show. A kernel is called by its family where it is the only
        one of it, and a pair needs no name where it is the only one. Empty where nothing was measured.
    """
    lengths = sorted(int(length) for length in view.cases["seq_len"].dropna().unique())
    table = pd.DataFrame(index=pd.Index(lengths, name="seq_len"))
    for kernel, name in _names(view).items():
        for mode in view.series:
            ours = view.measured[(view.measured["kernel"] == kernel) & (view.measured["mode"] == mode)]
            times = 1e3 * ours.set_index(ours["seq_len"].astype(int))[OVER_ROUNDS].astype(float)
            for column, words in zip(OVER_ROUNDS, ("mean", "std"), strict=False):
                table[f"{name}_{mode}_{words}_ms"] = times[column]
    return table.assign(**dict(_speedups(view))).reset_index()


def _names(view: View) -> dict[str, str]:
    """The name of each kernel in a column, in the order of the pictures."""
    families = {one.kernel: one.family for series in view.series.values() for one in series}
    members = Counter(families.values())
    return {
        kernel: families[kernel] if members[families[kernel]] == 1 else kernel
        for kernel in view.looks
        if kernel in families
    }


def _speedups(view: View) -> Iterator[tuple[str, pd.Series]]:
    pairs = [pair for pair in view.crossovers if pair.quantity == "time"]
    alone = len({(pair.contender, pair.baseline) for pair in pairs}) == 1
    for mode in view.series:
        for pair in pairs:
            if pair.setting.mode == mode:
                name = "" if alone else f"{pair.contender}_over_{pair.baseline}_"
                yield f"speedup_{name}{mode}", pd.Series(pair.found.ratios, pair.found.seq_lens, dtype=float)
