"""All conclusions drawn from records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from benchmarks.analysis.conditions.quality import name_quality
from benchmarks.analysis.reading.fields import CEILING
from benchmarks.analysis.reading.machines import Machine
from benchmarks.analysis.reading.records import Records
from benchmarks.analysis.reading.roles import Roles
from benchmarks.analysis.reading.run_info import common_options
from benchmarks.analysis.reading.setting import Setting, by_series, by_setting
from benchmarks.analysis.report.cases import case_table
from benchmarks.analysis.report.caveats import name_caveats
from benchmarks.analysis.report.ceilings import find_ceilings
from benchmarks.analysis.report.conclusions import (
    FileSummary,
    MachineSummary,
    PairCrossover,
    RatedExponent,
    Runs,
    Series,
    Summary,
)
from benchmarks.analysis.report.distributed import find_over_ranks
from benchmarks.analysis.report.energies import ENERGY, energy_exponent, energy_table
from benchmarks.analysis.report.functions import functions
from benchmarks.analysis.report.inference import find_contexts
from benchmarks.analysis.scaling.crossover import find_crossover
from benchmarks.analysis.scaling.exponent import estimate_exponent
from benchmarks.analysis.scaling.firmness import Unit, of_crossover, of_exponent, of_units
from benchmarks.analysis.scaling.fitted import compare_laws
from benchmarks.analysis.scaling.run_effect import RUN_EFFECT
from benchmarks.analysis.scaling.units import count_exponent, local_slopes, numbers, unit_table
from benchmarks.analysis.serialization import CONCLUSIONS_SCHEMA

RunEffect = Callable[[Machine], float | None]
"""The effect of a run on each of its cases that a machine is known to have; None where it is not known."""


def summarise(
    records: Records, known: RunEffect = lambda machine: None, cases: pd.DataFrame | None = None
) -> Summary:
    """Draw all conclusions.

    Args:
        records: What `records.load` read.
        known: The effect of a run, as the standard deviation of the log of a time. Where a single run
            measured a setting, what it does to all its repetitions is taken to be this, or `RUN_EFFECT` if
            that is larger.
        cases: What `cases.case_table` made of these records, where it is at hand.
    """
    rows = records.rows
    ceilings, cases = find_ceilings(rows), case_table(records) if cases is None else cases
    of_series = {found[:3]: found[3] for found in by_series(cases[cases["outcome"] == "measured"])}
    # What a device can do at most, or has no length, belongs to no series.
    scaling = rows[rows["seq_len"].notna() & (rows["subject"] != "ceiling")] if len(rows) else rows
    effects = [max(RUN_EFFECT, known(run.machine) or 0.0) for run in records.runs]

    def unseen(group: pd.DataFrame) -> float:
        return effects[group["run"].iloc[0]] if _unit(group) == "repetition" else 0.0

    series = [
        _series(kernel, family, setting, group, of_series[kernel, family, setting], unseen(group))
        for kernel, family, setting, group in by_series(scaling)
    ]
    roles = Roles.of(*records.runs)
    crossovers = [
        pair
        for setting, group in by_setting(scaling[scaling["family"] != CEILING] if len(scaling) else scaling)
        for pair in _crossovers(setting, group, roles, unseen(group))
    ]
    assumed = max((unseen(group) for _, group in by_setting(scaling)), default=0.0)
    return Summary(
        CONCLUSIONS_SCHEMA,
        _runs(records, assumed or None, roles),
        series,
        crossovers,
        find_contexts(series, crossovers, cases, roles),
        find_over_ranks(scaling, max(effects, default=RUN_EFFECT)),
        ceilings,
        warnings=records.warnings + name_caveats(records, series, crossovers, ceilings, roles),
        quality=name_quality(records),
        not_measured=records.not_measured,
    )


def _series(
    kernel: str, family: str, setting: Setting, rows: pd.DataFrame, cases: pd.DataFrame, unseen: float
) -> Series:
    table = unit_table(rows)
    lengths, medians = table.columns.to_numpy(dtype=float), np.asarray(table.median(), dtype=float)
    amounts = [name for name in ("flops", "min_bytes", "peak_bytes", "cache_bytes", ENERGY) if name in rows]
    counts = rows[["seq_len"]].join(rows[amounts].astype(float)).groupby("seq_len").median()
    kept, joules = _known(counts, "cache_bytes"), _known(counts, ENERGY)
    unit, flops_exponent = _unit(rows), count_exponent(lengths, counts["flops"].to_numpy())
    exponent = estimate_exponent(table, flops_exponent, unseen)
    laws, best = compare_laws(table, unseen, _useful_flops(rows))
    return Series(
        kernel,
        family,
        functions(cases),
        setting,
        unit,
        seq_lens=[int(length) for length in lengths],
        median_s=medians.tolist(),
        floor_share=numbers(cases["floor_share"]),
        floor_low_s=numbers(cases["floor_low_s"]),
        floor_high_s=numbers(cases["floor_high_s"]),
        floor_verdict=cases["floor_verdict"].to_list(),
        exponent=RatedExponent(**vars(exponent), firmness=of_exponent(exponent, unit)),
        local_slopes=numbers(local_slopes(table)),
        overhead_s=laws.overhead,
        flops_exponent=flops_exponent,
        min_bytes_exponent=count_exponent(lengths, counts["min_bytes"].to_numpy()),
        peak_bytes_exponent=count_exponent(lengths, counts["peak_bytes"].to_numpy()),
        energy_j=numbers(joules),
        energy_exponent=energy_exponent(energy_table(rows), unit, unseen) if joules.size else None,
        cache_bytes=numbers(kept),
        cache_bytes_exponent=count_exponent(lengths, kept) if kept.size else None,
        laws=laws,
        laws_firmness=of_units(exponent.units, unit),
        best_law=best,
    )


def _known(counts: pd.DataFrame, name: str) -> np.ndarray:
    """An amount at each length; empty where it is known at none."""
    amounts = counts[name].to_numpy() if name in counts else np.empty(0)
    return amounts if np.isfinite(amounts).any() else np.empty(0)


def _useful_flops(rows: pd.DataFrame) -> pd.Series:
    """FLOPs by length, without those of masked scores where the records tell them."""
    flops = rows["flops"].astype(float)
    if "useful_flops" in rows:  # an optional field, which a file may hold in any form
        numbers = rows["useful_flops"].map(
            lambda one: float(one) if isinstance(one, int | float) else math.nan
        )
        flops = numbers.where(np.isfinite(numbers), flops)
    return flops.groupby(rows["seq_len"]).median()


def _unit(rows: pd.DataFrame) -> Unit:
    """The unit of sampling, in which all rows of one setting agree."""
    return "run" if rows["unit_kind"].iloc[0] == "run" else "repetition"


def _crossovers(setting: Setting, rows: pd.DataFrame, roles: Roles, unseen: float) -> Iterator[PairCrossover]:
    times = {kernel: unit_table(group) for kernel, group in rows.groupby("kernel")}
    unit = _unit(rows)
    # Bytes are exact: they need no units, and one row says it all.
    known = rows.astype({"peak_bytes": float}).query("peak_bytes > 0").assign(unit=0)
    joules = {kernel: energy_table(group) for kernel, group in rows.groupby("kernel")}
    peaks = {kernel: unit_table(group, "peak_bytes") for kernel, group in known.groupby("kernel")}
    for pair in roles.pairs(map(str, times)):
        ours, theirs = pair
        time = find_crossover(times[ours], times[theirs], unseen=unseen)
        yield PairCrossover(*pair, setting, "time", time, of_crossover(time, unit))
        if ours in peaks and theirs in peaks:
            memory = find_crossover(peaks[ours], peaks[theirs], exact=True)
            firmness = of_crossover(memory, unit, exact=True)
            yield PairCrossover(*pair, setting, "peak_bytes", memory, firmness)
        if joules[ours].size and joules[theirs].size:
            energy = find_crossover(joules[ours], joules[theirs], unseen=unseen)
            yield PairCrossover(*pair, setting, ENERGY, energy, of_crossover(energy, unit))


def _runs(records: Records, run_effect: float | None, roles: Roles) -> Runs:
    rows = records.rows
    machines = {run.machine.fingerprint: run.machine for run in reversed(records.runs)}
    order = list(dict.fromkeys(run.machine.fingerprint for run in records.runs))
    settings = [group for _, group in by_setting(rows)]
    units = {_unit(group) for group in settings}
    return Runs(
        files=[
            FileSummary(
                run.file,
                run.datetime,
                run.commit.id,
                run.node,
                run.facts,
                machine=order.index(run.machine.fingerprint),
            )
            for run in records.runs
        ],
        machines=[MachineSummary(machines[identity], identity) for identity in order],
        unit="mixed" if len(units) > 1 else next(iter(units), None),
        units=max((group["unit"].nunique() for group in settings), default=0),
        run_effect=run_effect,
        options=common_options(records.runs),
        roles=roles,
    )
