"""Counters of energy: RAPL and NVML are read in joules, and say why where they cannot be."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from attention.profiler import counters
from attention.profiler.counters import CounterError, find_counter, nvml_counter, rapl_counter

RANGE = 262_143_328_850
"""Microjoules at which a counter of RAPL begins again."""


def zone(powercap: Path, name: str, kind: str, microjoules: int) -> Path:
    folder = powercap / name
    folder.mkdir(parents=True)
    for file, text in {"name": kind, "energy_uj": microjoules, "max_energy_range_uj": RANGE}.items():
        (folder / file).write_text(f"{text}\n")
    return folder / "energy_uj"


def test_rapl_adds_up_packages_alone_and_goes_on_where_one_begins_again(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 1_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 5)
    parts = [zone(tmp_path, "intel-rapl:0:0", "core", 7), zone(tmp_path, "intel-rapl:2", "psys", 9)]
    read = rapl_counter(tmp_path)
    assert read() == 0
    first.write_text("1999999\n")
    second.write_text("500005\n")
    for part in parts:
        part.write_text("123456789\n")
    assert read() == pytest.approx(3 + 0.5)
    second.write_text("1500005\n")
    assert read() == pytest.approx(3 + 1.5)


def test_rapl_says_why_it_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CounterError, match="no counter"):
        rapl_counter(tmp_path)
    file = zone(tmp_path, "intel-rapl:0", "package-0", 1)

    def read_text(path: Path, *_: Any) -> str:
        if path == file:
            raise PermissionError
        return path.read_bytes().decode()

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(CounterError, match="energy_uj cannot be read: permission"):
        rapl_counter(tmp_path)


class NvmlError(Exception):
    """NVML's error."""


def raising(*_: Any) -> Any:
    raise NvmlError("Not Supported")


def install_nvml(monkeypatch: pytest.MonkeyPatch, **functions: Callable[..., Any]) -> None:
    """An NVML with one card, GPU-1f, of 350 W."""
    nvml = ModuleType("pynvml")
    named: dict[str, Any] = {
        "Init": lambda: None,
        "DeviceGetHandleByUUID": lambda uuid: uuid if uuid == "GPU-1f" else raising(),
        "DeviceGetMigMode": raising,
        "DeviceGetVirtualizationMode": lambda card: 1,
        "DeviceGetTotalEnergyConsumption": lambda card: 350_000,
        **functions,
    }
    for name, function in named.items():
        monkeypatch.setattr(nvml, f"nvml{name}", function, raising=False)
    for name, value in {"DEVICE_MIG_ENABLE": 1, "GPU_VIRTUALIZATION_MODE_VGPU": 2}.items():
        monkeypatch.setattr(nvml, f"NVML_{name}", value, raising=False)
    monkeypatch.setattr(nvml, "NVMLError", NvmlError, raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)


def test_nvml_reads_joules_of_the_card_that_torch_works_on(monkeypatch: pytest.MonkeyPatch) -> None:
    install_nvml(monkeypatch)
    uuids = {None: "1f", 1: "2e"}
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda one: type("", (), {"uuid": uuids[one.index]})
    )
    assert find_counter("cuda")() == 350
    with pytest.raises(CounterError, match="finds no card GPU-2e: Not Supported"):
        find_counter("cuda:1")


@pytest.mark.parametrize(
    ("functions", "reason"),
    [
        ({"Init": raising}, "finds no card"),
        ({"DeviceGetMigMode": lambda card: [1, 0]}, "divided by MIG"),
        ({"DeviceGetVirtualizationMode": lambda card: 2}, "vGPU"),
        ({"DeviceGetTotalEnergyConsumption": raising}, "does not read the counter"),
    ],
)
def test_nvml_says_why_a_card_has_no_counter(
    functions: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_nvml(monkeypatch, **functions)
    with pytest.raises(CounterError, match=reason):
        nvml_counter("GPU-1f")


def test_a_missing_nvml_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # makes its import fail
    with pytest.raises(CounterError, match="nvidia-ml-py is not installed"):
        nvml_counter("GPU-1f")


def test_the_installed_nvml_knows_every_name_that_is_asked_for() -> None:
    pynvml = pytest.importorskip("pynvml")
    source = Path(counters.__file__).read_text()
    names = {
        word for word in source.replace("(", " ").replace(")", " ").split() if word.startswith("pynvml.")
    }
    assert len(names) >= 7
    assert all(hasattr(pynvml, name.removeprefix("pynvml.").rstrip(",:")) for name in names)
