"""The conditions in which two sides of a comparison differ, which may explain what changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.conditions.sensors import (
    ALIKE,
    SLOWER_CPU_CLOCK,
    SLOWER_GPU_CLOCK,
    load_bound,
    load_by_others,
    table_of,
    unloaded,
)
from benchmarks.analysis.reading.records import Records
from benchmarks.analysis.reading.run_info import RunInfo

NAMES = ("base", "head")
IN_TURN = "Measure both sides in turn, on a machine that is otherwise idle."


def name_differences(base: Records, head: Records) -> list[str]:
    """Sentences on other load, another clock and other facts of the runs of one side than of the other's.

    Args:
        base: The runs compared with.
        head: The runs compared.

    Returns:
        Sentences that name the side measured in worse conditions; none where both were measured alike, or
        where the files of a side tell nothing.
    """
    sides = base.runs, head.runs
    on_cuda = all((side.rows["device"] == "cuda").any() for side in (base, head) if len(side.rows))
    return [
        *_load(sides),
        *_clock(sides, "CPU", SLOWER_CPU_CLOCK, lambda readings: readings["cpu_mhz"]),
        *(_clock(sides, "GPU", SLOWER_GPU_CLOCK, _sm_clock) if on_cuda else ()),
        *_facts(sides),
    ]


def _load(sides: tuple[Sequence[RunInfo], Sequence[RunInfo]]) -> Iterator[str]:
    loads = [_mean([load_by_others(table_of(run.conditions)) for run in runs]) for runs in sides]
    more = int(loads[1] > loads[0])
    if loads[more] - loads[1 - more] > max(load_bound(run.conditions) for runs in sides for run in runs):
        yield (
            f"The {NAMES[more]} was measured under more load: others took {wording.percent(loads[more])} of "
            f"a core, and {wording.percent(loads[1 - more])} beside the {NAMES[1 - more]}. {IN_TURN}"
        )


def _clock(
    sides: tuple[Sequence[RunInfo], Sequence[RunInfo]],
    device: str,
    share: float,
    clock: Callable[[pd.DataFrame], pd.Series[float]],
) -> Iterator[str]:
    clocks = [_mean([_level(table_of(run.conditions), clock) for run in runs]) for runs in sides]
    slow = int(clocks[1] < clocks[0])
    if clocks[slow] < (1 - share) * clocks[1 - slow]:
        yield (
            f"The {NAMES[slow]} was measured at a slower {device} clock: {clocks[slow]:.0f} MHz, and "
            f"{clocks[1 - slow]:.0f} MHz for the {NAMES[1 - slow]}. {IN_TURN}"
        )


def _level(readings: pd.DataFrame, clock: Callable[[pd.DataFrame], pd.Series[float]]) -> float:
    """The median over the repetitions of the highest clock read in each."""
    measuring = readings[readings["repetition"] > 0]
    return float(clock(measuring).groupby(measuring["repetition"]).max().median())


def _sm_clock(readings: pd.DataFrame) -> pd.Series[float]:
    return readings["gpu_sm_clock_mhz"].where(unloaded(readings))


def _mean(values: Sequence[float]) -> float:
    """The mean of what is known; NaN where nothing is."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else np.nan


def _facts(sides: tuple[Sequence[RunInfo], Sequence[RunInfo]]) -> Iterator[str]:
    found = []
    for field, word in ALIKE.items():
        known = [dict.fromkeys(str(run.facts[field]) for run in runs if field in run.facts) for runs in sides]
        if all(known) and set(known[0]) != set(known[1]):
            found.append(f"{word} ({' and '.join(wording.listed(list(values)) for values in known)})")
    if found:
        yield f"Base and head differ in {', '.join(found)}. Measure them alike."
