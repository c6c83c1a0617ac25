"""The sensors of an NVIDIA card, read through NVML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Sensor:
    """One value: its field in the record, and how NVML is asked for it."""

    field: str
    read: Callable[[Any, Any], Any]


Card = Callable[[Sequence[Sensor]], dict[str, Any]]
"""Reads sensors; a value that the card does not give is None."""

FACTS = (
    Sensor("driver", lambda nvml, _: nvml.nvmlSystemGetDriverVersion()),
    Sensor("gpu_power_limit_w", lambda nvml, card: nvml.nvmlDeviceGetEnforcedPowerLimit(card) / 1000),
    Sensor("gpu_persistence", lambda nvml, card: bool(nvml.nvmlDeviceGetPersistenceMode(card))),
    Sensor("gpu_ecc", lambda nvml, card: bool(nvml.nvmlDeviceGetEccMode(card)[0])),
    Sensor("gpu_mig", lambda nvml, card: bool(nvml.nvmlDeviceGetMigMode(card)[0])),
)
"""Sensors whose values hold for a whole run."""

READINGS = (
    Sensor("gpu_sm_clock_mhz", lambda nvml, card: nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_SM)),
    Sensor(
        "gpu_max_sm_clock_mhz", lambda nvml, card: nvml.nvmlDeviceGetMaxClockInfo(card, nvml.NVML_CLOCK_SM)
    ),
    Sensor(
        "gpu_temperature_c", lambda nvml, card: nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU)
    ),
    Sensor("gpu_throttle_reasons", lambda nvml, card: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(card)),
    Sensor("gpu_utilization_percent", lambda nvml, card: nvml.nvmlDeviceGetUtilizationRates(card).gpu),
    # Version 2 leaves out the memory that the driver reserves for itself.
    Sensor(
        "gpu_memory_used_bytes",
        lambda nvml, card: nvml.nvmlDeviceGetMemoryInfo(card, nvml.nvmlMemory_v2).used,
    ),
)
"""Sensors whose values change while a run lasts; the throttle reasons are NVML's bits."""


def find_card() -> Card:
    """The card that torch calls cuda:0, whatever CUDA_VISIBLE_DEVICES made of the numbers."""
    return nvml_card(f"GPU-{torch.cuda.get_device_properties(0).uuid}")


def nvml_card(identity: str) -> Card:
    """The card of this UUID.

    Every value is None where `nvidia-ml-py` is not installed, or NVML finds no driver or no such card.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
        card = pynvml.nvmlDeviceGetHandleByUUID(identity)
    except ImportError:
        return _no_card
    except pynvml.NVMLError:
        return _no_card

    def value(sensor: Sensor) -> Any:
        try:
            return sensor.read(pynvml, card)
        except (pynvml.NVMLError, AttributeError):  # this card, or this release of NVML, has none
            return None

    return lambda sensors: {sensor.field: value(sensor) for sensor in sensors}


def _no_card(sensors: Sequence[Sensor]) -> dict[str, Any]:
    return {sensor.field: None for sensor in sensors}
