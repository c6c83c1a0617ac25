"""Counters of joules: that of an NVIDIA card, through NVML, and those of a CPU's packages, through RAPL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Read = Callable[[], float]
"""Joules that a device has taken since some moment."""

POWERCAP = Path("/sys/class/powercap")


class CounterError(Exception):
    """A counter is missing or fails; the text says why, without a full stop."""


def find_counter(device: torch.device | str) -> Read:
    """The counter of a device.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:1``; a CUDA device without a number is the current one.

    Returns:
        A function that reads joules, in steps of a millijoule or less. It may raise `CounterError`.

    Raises:
        CounterError: The device has no counter, or none that this process may read.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return rapl_counter()
    # By its UUID, because CUDA_VISIBLE_DEVICES gives cards other numbers than NVML does.
    return nvml_counter(f"GPU-{torch.cuda.get_device_properties(device).uuid}")


def nvml_counter(uuid: str) -> Read:
    """The counter of the card of this UUID: ``nvmlDeviceGetTotalEnergyConsumption``, of Volta and later.

    Raises:
        CounterError: NVML is missing or has no such card; or the card shares its counter with other users.
    """
    try:
        import pynvml
    except ImportError:
        raise CounterError(
            "nvidia-ml-py is not installed, through which the counter of a card is read"
        ) from None
    try:
        pynvml.nvmlInit()
        card = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError as error:
        raise CounterError(f"NVML finds no card {uuid}: {error}") from None
    instances, _ = _sensor(pynvml, pynvml.nvmlDeviceGetMigMode, card) or (None, None)
    if instances == pynvml.NVML_DEVICE_MIG_ENABLE:
        raise CounterError("the card is divided by MIG, and its counter is that of all instances")
    mode = _sensor(pynvml, pynvml.nvmlDeviceGetVirtualizationMode, card)
    if mode == pynvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU:
        raise CounterError("the card is a virtual one (vGPU), and its counter is that of all its users")

    def read() -> float:
        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(card)) * 1e-3
        except pynvml.NVMLError as error:
            raise CounterError(f"NVML does not read the counter of the card: {error}") from None

    read()
    return read


def _sensor(nvml: Any, ask: Callable[[Any], Any], card: Any) -> Any:
    """What a card says of itself, None where it does not."""
    try:
        return ask(card)
    except nvml.NVMLError:
        return None


def rapl_counter(powercap: Path = POWERCAP) -> Read:
    """The counters of all packages of the CPU together, of Intel's and AMD's alike, without the memory.

    Args:
        powercap: Where Linux shows them.

    Raises:
        CounterError: There is none, or this process may not read it.
    """
    zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if _is_package(zone)]
    if not zones:
        raise CounterError(f"no counter: {powercap} shows no package of the CPU")
    packages = [_Package(zone) for zone in zones]
    return lambda: sum(package.read() for package in packages)


def _is_package(zone: Path) -> bool:
    """Whether a zone is a package: no part of one, and not the whole platform."""
    try:
        return (zone / "name").read_text().startswith("package")
    except OSError:
        return False


class _Package:
    """A counter of microjoules that begins again at 0 beyond its range."""

    def __init__(self, zone: Path) -> None:
        self._zone = zone
        self._range = self._number("max_energy_range_uj")
        self._last, self._total = self._number("energy_uj"), 0

    def read(self) -> float:
        """Joules since the first reading; it is to be read more often than the counter begins again."""
        now = self._number("energy_uj")
        self._total += (now - self._last) % (self._range + 1)
        self._last = now
        return self._total * 1e-6

    def _number(self, name: str) -> int:
        file = self._zone / name
        try:
            return int(file.read_text())
        except PermissionError:
            raise CounterError(
                f"{file} cannot be read: permission denied, as Linux keeps it for root"
            ) from None
        except (OSError, ValueError) as error:
            raise CounterError(f"{file} cannot be read: {error}") from None
