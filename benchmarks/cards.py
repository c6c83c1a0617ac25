"""The sensors of an NVIDIA card: read through NVML where its module is installed, else through nvidia-smi."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

# A driver that does not keep its state loads it anew for each nvidia-smi, which takes seconds.
TIMEOUT_S = 10


@dataclass(frozen=True)
class Sensor:
    """One value: its field in the record, its name and its text in nvidia-smi, and its call in NVML."""

    field: str
    smi: str
    parse: Callable[[str], Any]
    nvml: Callable[[Any, Any], Any]


Card = Callable[[Sequence[Sensor]], dict[str, Any]]
"""Reads sensors; a value that the card does not give is None."""


def _enabled(text: str) -> bool | None:
    return {"Enabled": True, "Disabled": False}.get(text)


FACTS = (
    Sensor("driver", "driver_version", str, lambda nvml, _: nvml.nvmlSystemGetDriverVersion()),
    Sensor("gpu_power_limit_w", "power.limit", float,
           lambda nvml, card: nvml.nvmlDeviceGetEnforcedPowerLimit(card) / 1000),
    Sensor("gpu_persistence", "persistence_mode", _enabled,
           lambda nvml, card: bool(nvml.nvmlDeviceGetPersistenceMode(card))),
    Sensor("gpu_ecc", "ecc.mode.current", _enabled,
           lambda nvml, card: bool(nvml.nvmlDeviceGetEccMode(card)[0])),
    Sensor("gpu_mig", "mig.mode.current", _enabled,
           lambda nvml, card: bool(nvml.nvmlDeviceGetMigMode(card)[0])),
)  # fmt: skip
"""What holds for a whole run."""

READINGS = (
    Sensor("gpu_sm_clock_mhz", "clocks.sm", int,
           lambda nvml, card: nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_SM)),
    Sensor("gpu_max_sm_clock_mhz", "clocks.max.sm", int,
           lambda nvml, card: nvml.nvmlDeviceGetMaxClockInfo(card, nvml.NVML_CLOCK_SM)),
    Sensor("gpu_temperature_c", "temperature.gpu", int,
           lambda nvml, card: nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU)),
    Sensor("gpu_throttle_reasons", "clocks_event_reasons.active", lambda text: int(text, 16),
           lambda nvml, card: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(card)),
    Sensor("gpu_utilization_percent", "utilization.gpu", int,
           lambda nvml, card: nvml.nvmlDeviceGetUtilizationRates(card).gpu),
    # NVML's version 2 leaves out what the driver reserves for itself, as nvidia-smi does.
    Sensor("gpu_memory_used_bytes", "memory.used", lambda text: int(text) * 2**20,
           lambda nvml, card: nvml.nvmlDeviceGetMemoryInfo(card, nvml.nvmlMemory_v2).used),
)  # fmt: skip
"""What changes while a run lasts; the throttle reasons are NVML's bits."""


def find_card() -> Card:
    """The card that torch calls cuda:0, whatever CUDA_VISIBLE_DEVICES made of the numbers."""
    identity = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    return nvml_card(identity) or smi_card(identity)


def nvml_card(identity: str) -> Card | None:
    """A card read through nvidia-ml-py; None where that is not installed or does not know the card."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        card = pynvml.nvmlDeviceGetHandleByUUID(identity)
    except pynvml.NVMLError:
        return None

    def value(sensor: Sensor) -> Any:
        try:
            return sensor.nvml(pynvml, card)
        except (pynvml.NVMLError, AttributeError):  # this card, or this release of NVML, has none
            return None

    return lambda sensors: {sensor.field: value(sensor) for sensor in sensors}


def smi_card(identity: str) -> Card:
    """A card read through nvidia-smi; where that is missing or hangs, every value is None."""

    def read(sensors: Sequence[Sensor]) -> dict[str, Any]:
        names = [sensor.smi for sensor in sensors]
        # Drivers before 535 know the event reasons by their older name.
        older = [name.replace("event_reasons", "throttle_reasons") for name in names]
        texts = _query(identity, names) or (_query(identity, older) if older != names else None)
        values = map(_parsed, sensors, texts) if texts else [None] * len(sensors)
        return dict(zip((sensor.field for sensor in sensors), values, strict=True))

    return read


def _query(identity: str, names: Sequence[str]) -> list[str] | None:
    options = (f"--id={identity}", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits")
    try:
        done = subprocess.run(
            ["nvidia-smi", *options], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    texts = [text.strip() for text in done.stdout.strip().split(",")]
    return texts if len(texts) == len(names) else None


def _parsed(sensor: Sensor, text: str) -> Any:
    try:
        return None if text.startswith("[") else sensor.parse(text)
    except ValueError:  # "N/A" and the like
        return None
