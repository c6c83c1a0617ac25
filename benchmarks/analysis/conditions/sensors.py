"""Conditions that disturb a measurement, by the sensors and the facts that the runs recorded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.reading.records import Records
from benchmarks.analysis.reading.run_info import Conditions, Reading, RunInfo

READINGS = [field.name for field in fields(Reading)]
OTHERS_CORES, OTHERS_SHARE = 0.1, 0.01
"""Load by others that is named: a tenth of a core, on large machines a hundredth of all cores."""
LEAST_SECONDS = 5.0
"""The least time over which load is judged: CPU time is counted in ticks of 10 ms a core."""
SLOWER_GPU_CLOCK, SLOWER_CPU_CLOCK = 0.05, 0.1
"""Falls of the clock that are named: times follow it. A CPU's is read at an instant and wobbles more."""
BUSY_GPU_PERCENT, BUSY_GPU_BYTES = 10, 2 * 2**30
"""Use of a card by others that is named: more than a desktop or the CUDA context of this process takes."""
SLOWDOWNS = {0x8: "hardware slowdown", 0x20: "software thermal slowdown", 0x40: "hardware thermal slowdown",
             0x80: "power brake"}  # fmt: skip
"""NVML's throttle reasons that no card should have."""
LOAD = 0x1 | 0x4
"""NVML's reasons of an idle card and of one at its power cap: its clock tells of the case before the reading.

Large matrix products take an H200 from 1980 to 1410 MHz, and within a second it is back.
"""
ALIKE = {
    "python": "Python", "numpy": "NumPy", "triton": "Triton", "cuda": "CUDA", "cudnn": "cuDNN",
    "interop_threads": "inter-op threads", "omp_num_threads": "OMP_NUM_THREADS",
    "mkl_num_threads": "MKL_NUM_THREADS", "usable_cores": "usable cores", "quota_cores": "CPU quota",
    "governor": "CPU governor", "on_battery": "running on battery", "gpu_power_limit_w": "GPU power limit",
    "gpu_persistence": "GPU persistence mode", "gpu_ecc": "ECC", "gpu_mig": "MIG",
}  # fmt: skip
"""Facts in which files that are pooled should agree, in words."""


@dataclass(frozen=True)
class Rule:
    """A kind of disturbance: how a run and a table of its readings are judged, its name, and a remedy."""

    judge: Callable[[Conditions, pd.DataFrame], str | None]
    title: str
    advice: str
    of_gpu: bool = False


def name_conditions(records: Records) -> list[str]:
    """Sentences about each kind of disturbance, with what to try, and about pooled runs that differ."""
    several = len(records.runs) > 1
    on_cuda = set(records.rows.loc[records.rows["device"] == "cuda", "run"])
    found = [disturbances(run.conditions, index in on_cuda) for index, run in enumerate(records.runs)]
    sentences = []
    for rule in RULES:
        of_runs = [(own[rule], run.file) for own, run in zip(found, records.runs, strict=True) if rule in own]
        words = [f"{what} ({file})" if several else what for what, file in of_runs]
        if words:
            sentences.append(f"{rule.title}: {wording.listed(words)}. {rule.advice}")
    return [*sentences, *_unlike(records)]


def disturbances(run: Conditions, on_cuda: bool) -> dict[Rule, str]:
    """What disturbed a run, in words, by kind; a card is judged where the run used one."""
    readings = table_of(run)
    judged = {rule: rule.judge(run, readings) for rule in RULES if on_cuda or not rule.of_gpu}
    return {rule: words for rule, words in judged.items() if words}


def table_of(run: Conditions) -> pd.DataFrame:
    """A row for each reading."""
    return pd.DataFrame(run.readings, columns=READINGS, dtype=float)


def _load(run: Conditions, readings: pd.DataFrame) -> str | None:
    load = load_by_others(readings)
    return f"others took {wording.percent(load)} of a core" if load > load_bound(run) else None


def load_by_others(readings: pd.DataFrame) -> float:
    """Cores that others kept busy, in the mean over the time; NaN where that is unknown or too short."""
    known = readings[readings["others_cores"].notna()]
    seconds = known["interval_s"].sum()
    if seconds < LEAST_SECONDS:
        return math.nan
    return float((known["others_cores"] * known["interval_s"]).sum() / seconds)


def load_bound(run: Conditions) -> float:
    """The load by others, in cores, from which on it is named."""
    return max(OTHERS_CORES, OTHERS_SHARE * max(1.0, run.usable_cores))


def _battery(run: Conditions, _: pd.DataFrame) -> str | None:
    return "the machine ran on its battery" if run.on_battery else None


def _governor(run: Conditions, _: pd.DataFrame) -> str | None:
    return f"the CPU governor was {run.governor}" if "powersave" in run.governor else None


def _crowded(run: Conditions, _: pd.DataFrame) -> str | None:
    room = min(run.usable_cores, run.quota_cores) if run.quota_cores > 0 else run.usable_cores
    return f"{run.threads:.0f} threads on {room:g} cores" if run.threads > room else None


def _cpu_clock(_: Conditions, readings: pd.DataFrame) -> str | None:
    fall = _fall(readings, "cpu_mhz", SLOWER_CPU_CLOCK)
    return f"the CPU clock fell from {fall[0]:.0f} to {fall[1]:.0f} MHz between repetitions" if fall else None


def _gpu_clock(_: Conditions, readings: pd.DataFrame) -> str | None:
    measuring = readings[readings["repetition"] > 0]
    reasons = _reasons(measuring)
    fall = _fall(measuring[unloaded(measuring)], "gpu_sm_clock_mhz", SLOWER_GPU_CLOCK)
    facts = [f"the SM clock fell from {fall[0]:.0f} to {fall[1]:.0f} MHz between repetitions"] if fall else []
    facts += [word for bit, word in SLOWDOWNS.items() if (reasons & bit).any()]
    hottest = measuring["gpu_temperature_c"].max()
    return ", ".join([*facts, *([f"{hottest:.0f} °C"] if hottest > 0 else [])]) if facts else None


def _reasons(readings: pd.DataFrame) -> pd.Series[int]:
    return readings["gpu_throttle_reasons"].fillna(0).astype(int)


def unloaded(readings: pd.DataFrame) -> pd.Series[bool]:
    """Whether each reading is of a card that is neither idle nor at its power cap."""
    return (_reasons(readings) & LOAD) == 0


def _fall(readings: pd.DataFrame, clock: str, share: float) -> tuple[float, float] | None:
    """The clock of the fastest repetition and of the slowest after it, if it fell by more than this share.

    The highest reading of a repetition counts: a single low one may be of an instant without load.
    """
    levels: dict[float, float] = {}
    for repetition, value in zip(readings["repetition"], readings[clock], strict=True):
        if repetition > 0 and not math.isnan(value):
            levels[repetition] = max(value, levels.get(repetition, value))
    in_time = [levels[repetition] for repetition in sorted(levels)]
    after = in_time[in_time.index(max(in_time)) + 1 :] if in_time else []
    if not after or min(after) >= (1 - share) * max(in_time):
        return None
    return max(in_time), min(after)


def _busy_gpu(_: Conditions, readings: pd.DataFrame) -> str | None:
    """Use of the card by others: of its processors before the first case, of its memory at any time."""
    utilization = readings.loc[readings["repetition"] == 0, "gpu_utilization_percent"].max()
    foreign = (readings["gpu_memory_used_bytes"] - readings["gpu_own_bytes"]).max()
    facts = []
    if utilization > BUSY_GPU_PERCENT:
        facts.append(f"{utilization:.0f} % busy before the first case")
    if foreign > BUSY_GPU_BYTES:
        facts.append(f"{wording.amount(foreign, 'B')} of its memory held by others")
    return " and ".join(facts) or None


RULES = (
    Rule(_load, "CPU load", "Close other programs, or measure when the machine is idle."),
    Rule(_crowded, "More threads than cores", "Set OMP_NUM_THREADS to the cores there are."),
    Rule(_cpu_clock, "Slower clock", "Cool the machine, or fix its clock below the turbo."),
    Rule(
        _governor,
        "Power saving",
        "Set the governor to performance: `cpupower frequency-set -g performance`.",
    ),
    Rule(_battery, "Power saving", "Plug it in."),
    Rule(
        _gpu_clock,
        "Throttled GPU",
        "Cool the card, or fix its clock: `nvidia-smi --lock-gpu-clocks`.",
        of_gpu=True,
    ),
    Rule(
        _busy_gpu,
        "Busy GPU",
        "End the other processes that `nvidia-smi` shows, or measure on another card.",
        of_gpu=True,
    ),
)


def _unlike(records: Records) -> Iterator[str]:
    """Facts of `ALIKE` that differ between files that are pooled, as far as the files tell them."""
    pooled = sorted(records.rows.loc[records.rows["unit_kind"] == "run", "run"].unique())
    machines: dict[str, list[RunInfo]] = {}
    for run in (records.runs[index] for index in pooled):
        machines.setdefault(run.machine.fingerprint, []).append(run)
    for runs in machines.values():
        found = []
        for field, word in ALIKE.items():
            values = dict.fromkeys(str(run.facts[field]) for run in runs if field in run.facts)
            if len(values) > 1:
                found.append(f"{word} ({wording.listed(list(values))})")
        if found:
            yield f"Pooled although they differ: the files in {', '.join(found)}. Measure them alike."
