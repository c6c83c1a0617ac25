"""Under which conditions a run is measured: what holds for all of it, and what changes while it lasts."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from attention.profiler import find_meter
from benchmarks.analysis.reading.machines import usable_cores
from benchmarks.machine.cards import FACTS, READINGS, Card
from benchmarks.machine.cgroups import Group, groups
from benchmarks.machine.memory import memory_limit_bytes

# Within a repetition a reading is due after so long, and after a hundred times what the last one took:
# readings take less than a hundredth of the time.
SECONDS_BETWEEN_READINGS = 10.0
READINGS_SHARE = 0.01
BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
# What the process did before this is told by its CPU time: the clock by which it began can be set.
_BEGAN = time.monotonic() - time.process_time()
CPUS = Path("/sys/devices/system/cpu")


def seconds_since_start() -> float:
    """Seconds since this process began, by a clock that nobody sets."""
    return time.monotonic() - _BEGAN


def quota_cores(found: Sequence[Group] | None = None) -> float | None:
    """The limit of a container on its CPU time, in cores; None without a limit.

    Args:
        found: The control groups that limit this process, which are looked for unless given.
    """
    quotas = [quota for group in (groups("cpu") if found is None else found) if (quota := _quota(group))]
    return min(quotas, default=None)


def _quota(group: Group) -> float | None:
    try:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        quota, period = group.words("cpu.max") or [word for name in names for word in group.words(name)]
        return int(quota) / int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # no such file, or "max"
        return None


def governor(cpus: Path = CPUS) -> str | None:
    """How the CPU chooses its clock; several with "+" between them, None where the system does not say."""
    try:
        found = {path.read_text().strip() for path in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    except OSError:
        return None
    return "+".join(sorted(found)) or None


def on_battery() -> bool | None:
    """Whether the machine runs on its battery; None where it has none, or does not say."""
    try:
        battery = psutil.sensors_battery()
    except (AttributeError, OSError):
        return None
    return None if battery is None or battery.power_plugged is None else not battery.power_plugged


def cpu_mhz() -> float | None:
    """The clock of the fastest core at this instant, or None: idle ones rest."""
    try:
        clocks = [core.current for core in psutil.cpu_freq(percpu=True)]
    except (AttributeError, NotImplementedError, OSError, TypeError):
        return None
    return max(clocks, default=0) or None


def cpu_seconds() -> tuple[float, float]:
    """CPU seconds so far: of everyone on the usable cores, and of this process and its children.

    What a virtual machine's host took away counts as used.
    """
    usable, cores = usable_cores(), psutil.cpu_times(percpu=True)
    everyone = sum(
        getattr(times, kind, 0.0) for core, times in enumerate(cores) if core in usable for kind in BUSY
    )
    mine = psutil.Process().cpu_times()
    children = getattr(mine, "children_user", 0.0) + getattr(mine, "children_system", 0.0)
    return everyone, mine.user + mine.system + children


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def environment(card: Card | None = None) -> dict[str, Any]:
    """The conditions that hold for a whole run, as JSON scalars, None where unknown.

    Args:
        card: The card's sensors, if one is measured.
    """
    return {
        "node": platform.node(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "triton": _installed("triton"),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "interop_threads": torch.get_num_interop_threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "mkl_num_threads": os.environ.get("MKL_NUM_THREADS"),
        "physical_cores": psutil.cpu_count(logical=False),
        "usable_cores": len(usable_cores()),
        "quota_cores": quota_cores(),
        "memory_limit_bytes": memory_limit_bytes(),
        "governor": governor(),
        "on_battery": on_battery(),
        **(card(FACTS) if card else {sensor.field: None for sensor in FACTS}),
    }


IDLE_POWER = {"cpu": "cpu_idle_w", "cuda": "gpu_idle_w"}


def idle_power(devices: Sequence[str]) -> dict[str, float | None]:
    """Watts that each of these devices draws at rest; None where no counter tells it.

    Each is watched for half a second to some seconds, after a second of rest.
    """
    meters = {device: find_meter(device) for device in devices}
    return {
        IDLE_POWER[device]: None if isinstance(meter, str) else meter.idle_w
        for device, meter in meters.items()
    }


class Watch:
    """Reads the sensors of the machine between repetitions, and at intervals within them.

    Attributes:
        readings: Flat JSON scalars, each: `unix_s`, when; `repetition`, the one being measured until then,
            0 before the first; `interval_s`, seconds since the reading before; `others_cores`, how many
            cores' time everything but this process took in them; `cpu_mhz`; and for a card the fields of
            `cards.READINGS` and `gpu_own_bytes`, what this process holds of its memory.
        card: The card's sensors, once read.
    """

    def __init__(
        self,
        find_card: Callable[[], Card] | None = None,
        now: Callable[[], float] = time.monotonic,
        cpu_seconds: Callable[[], tuple[float, float]] = cpu_seconds,
    ) -> None:
        self.readings: list[dict[str, Any]] = []
        self.card: Card | None = None
        self.find_card, self._now, self._cpu_seconds = find_card, now, cpu_seconds
        self._repetition = 0
        self._due = self._last = 0.0
        self._used = (0.0, 0.0)

    def before_case(self, repetition: int) -> None:
        """Read if another repetition begins with this case, or a reading is due."""
        if repetition != self._repetition or self._now() >= self._due:
            self._read()
        self._repetition = repetition

    def end(self) -> None:
        """Read once more after the last case, if there was one."""
        if self.readings:
            self._read()

    def _read(self) -> None:
        if self.find_card and not self.card:
            self.card = self.find_card()
        began, used = self._now(), self._cpu_seconds()
        first, interval = not self.readings, began - self._last
        everyone, mine = (after - before for after, before in zip(used, self._used, strict=True))
        self.readings.append({
            "unix_s": time.time(),
            "repetition": self._repetition,
            "interval_s": 0.0 if first else interval,
            # Some sandboxes do not count everyone's time; and in ticks the difference can be below nothing.
            "others_cores": None if first or everyone <= 0 else max(0.0, (everyone - mine) / interval),
            "cpu_mhz": cpu_mhz(),
            **(self._card_readings(self.card) if self.card else {}),
        })  # fmt: skip
        ended = self._now()
        # What reading takes is this process's own, and no part of the next interval.
        self._last, self._used = ended, self._cpu_seconds()
        self._due = ended + max(SECONDS_BETWEEN_READINGS, (ended - began) / READINGS_SHARE)

    def _card_readings(self, card: Card) -> dict[str, Any]:
        return {**card(READINGS), "gpu_own_bytes": torch.cuda.memory_reserved()}
