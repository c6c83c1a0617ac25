"""Conditions that disturb a measurement, by the sensors and the facts that the runs recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields

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


def name_conditions(records: Records) -> list[str]:
    """Sentences about each kind of disturbance, with what to try, and about pooled runs that differ."""
    several = len(records.runs) > 1
    on_cuda = set(records.rows.loc[records.rows["device"] == "cuda", "run"])
    sentences = []
    for rule, title, advice in RULES:
        judged = [run for index, run in enumerate(records.runs) if rule not in OF_GPU or index in on_cuda]
        found = [(rule(run.conditions, _table(run.conditions)), run.file) for run in judged]
        words = [f"{what} ({file})" if several else what for what, file in found if what]
        if words:
            sentences.append(f"{title}: {wording.listed(words)}. {advice}")
    return [*sentences, *_unlike(records)]


def _table(run: Conditions) -> pd.DataFrame:
    """A row for each reading."""
    return pd.DataFrame(run.readings, columns=READINGS, dtype=float)


def _load(run: Conditions, readings: pd.DataFrame) -> str | None:
    known = readings[readings["others_cores"].notna()]
    seconds = known["interval_s"].sum()
    if seconds < LEAST_SECONDS:
        return None
    load = float((known["others_cores"] * known["interval_s"]).sum() / seconds)
    bound = max(OTHERS_CORES, OTHERS_SHARE * max(1.0, run.usable_cores))
    return f"others took {wording.percent(load)} of a core" if load > bound else None


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
    reasons = measuring["gpu_throttle_reasons"].fillna(0).astype(int)
    fall = _fall(measuring[(reasons & LOAD) == 0], "gpu_sm_clock_mhz", SLOWER_GPU_CLOCK)
    facts = [f"the SM clock fell from {fall[0]:.0f} to {fall[1]:.0f} MHz between repetitions"] if fall else []
    facts += [word for bit, word in SLOWDOWNS.items() if (reasons & bit).any()]
    hottest = measuring["gpu_temperature_c"].max()
    return ", ".join([*facts, *([f"{hottest:.0f} °C"] if hottest > 0 else [])]) if facts else None


def _fall(readings: pd.DataFrame, clock: str, share: float) -> tuple[float, float] | None:
    """The clock of the fastest repetition and of the slowest after it, if it fell by more than this share.

    The highest reading of a repetition counts: a single low one may be of an instant without load.
    """
    levels = readings[readings["repetition"] > 0].groupby("repetition")[clock].max().dropna()
    after = levels[levels.index > levels.idxmax()] if len(levels) else levels
    if after.empty or after.min() >= (1 - share) * levels.max():
        return None
    return float(levels.max()), float(after.min())


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


OF_GPU = (_gpu_clock, _busy_gpu)
RULES: Sequence[tuple[Callable[[Conditions, pd.DataFrame], str | None], str, str]] = (
    (_load, "CPU load", "Close other programs, or measure when the machine is idle."),
    (_crowded, "More threads than cores", "Set OMP_NUM_THREADS to the cores there are."),
    (_cpu_clock, "Slower clock", "Cool the machine, or fix its clock below the turbo."),
    (_governor, "Power saving", "Set the governor to performance: `cpupower frequency-set -g performance`."),
    (_battery, "Power saving", "Plug it in."),
    (_gpu_clock, "Throttled GPU", "Cool the card, or fix its clock: `nvidia-smi --lock-gpu-clocks`."),
    (_busy_gpu, "Busy GPU", "End the other processes that `nvidia-smi` shows, or measure on another card."),
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
