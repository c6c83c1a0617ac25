"""Energy of a call, against counters of known power, and against what a card says of itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from attention import profile
from attention.profiler import counters, energy
from attention.profiler.counters import CounterError, find_counter, nvml_counter, rapl_counter
from attention.profiler.energy import Energy, Meter, find_meter, measure_energy
from tests.metered import WATTS
from tests.sessions import TINY, rows, run

IDLE_W, WORKING_W = 70.0, 350.0


@dataclass
class Device:
    """A device of constant power, with a clock that only it moves, and a counter that is updated at times.

    Attributes:
        update_s: Time between two updates of the counter.
        call_s: Time of a call.
        reading_s: Time of a reading.
        fails_after: Reading number from which on the counter fails.
        stops_after: Reading number from which on the counter stands still.
    """

    update_s: float
    call_s: float = 1e-3
    reading_s: float = 1e-5
    fails_after: float = np.inf
    stops_after: float = np.inf
    now_s: float = 1000.0
    joules: float = 0.0
    calls: int = 0
    readings: int = 0

    def __post_init__(self) -> None:
        self._shown = self._frozen = 0.0
        self._due = self.now_s

    def let_pass(self, seconds: float, watts: float) -> None:
        """Take energy, and update the counter by what was taken until each update."""
        end = self.now_s + seconds
        while self._due <= end:
            self._shown = self.joules + watts * (self._due - self.now_s)
            self._due += self.update_s
        self.joules, self.now_s = self.joules + watts * seconds, end

    def read(self) -> float:
        self.let_pass(self.reading_s, IDLE_W)
        self.readings += 1
        if self.readings > self.fails_after:
            raise CounterError("the card is gone")
        if self.readings > self.stops_after:
            return self._frozen
        self._frozen = self._shown
        return self._shown

    def call(self) -> None:
        self.calls += 1
        self.let_pass(self.call_s, WORKING_W)

    def meter(self) -> Meter:
        return Meter.of(self.read, lambda: self.now_s, lambda seconds: self.let_pass(seconds, IDLE_W))


def known(found: Energy) -> tuple[float, float, float]:
    assert found.joules is not None and found.error is not None and found.call_s is not None, found.reason
    return found.joules, found.error, found.call_s


@pytest.mark.parametrize("update_s", [0.001, 0.02, 0.1])
@pytest.mark.parametrize("call_s", [1e-5, 3.7e-3, 0.033, 0.4, 2.3])
def test_the_energy_of_a_call_is_power_times_time_within_its_stated_error(
    update_s: float, call_s: float
) -> None:
    device = Device(update_s, call_s, reading_s=0.0)
    meter = device.meter()
    began, before = device.now_s, device.calls
    joules, error, seconds = known(measure_energy(device.call, meter, "cpu"))
    assert abs(joules - WORKING_W * call_s) <= error <= 0.05 * joules
    assert seconds == pytest.approx(call_s)
    lasted = device.now_s - began
    assert max(0.5, 50 * update_s) <= lasted <= max(0.7, 62 * update_s, 6 * call_s)
    assert device.calls - before >= 4


def test_an_error_is_as_large_as_the_power_wavers() -> None:
    """Between parts of half and of full power, the mean is known to half of the difference at best."""
    device = Device(0.02)

    def call() -> None:
        device.calls += 1
        device.let_pass(1e-3, WORKING_W if device.now_s % 0.4 < 0.2 else WORKING_W / 2)

    joules, error, _ = known(measure_energy(call, device.meter(), "cpu"))
    assert abs(joules - 0.75 * WORKING_W * 1e-3) <= error
    assert 0.05 < error / joules < 0.3


@pytest.mark.parametrize("update_s", [0.001, 0.02, 0.1])
def test_idle_power_and_the_pace_of_a_counter_are_found_out(update_s: float) -> None:
    meter = Device(update_s).meter()
    assert meter.idle_w == pytest.approx(IDLE_W, rel=0.03)
    assert meter.update_s == pytest.approx(update_s, rel=0.1, abs=energy.POLL_SECONDS)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stops_after": 200}, "stands still"),
        ({"fails_after": 200}, "the card is gone"),
    ],
)
def test_a_counter_that_fails_while_a_call_is_measured_says_so(changes: dict[str, Any], reason: str) -> None:
    device = Device(0.001)
    meter = device.meter()
    for name, readings in changes.items():
        setattr(device, name, device.readings + readings)
    found = measure_energy(device.call, meter, "cpu")
    assert found.joules is None and reason in str(found.reason)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (Device(1e9), "stands still"),
        (Device(0.3), "too slow"),
        (Device(0.02, fails_after=30), "the card is gone"),
    ],
)
def test_no_meter_is_made_of_a_counter_that_fails(broken: Device, reason: str) -> None:
    with pytest.raises(CounterError, match=reason):
        broken.meter()


def test_the_reason_for_no_meter_is_the_reason_for_no_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(device: str) -> Any:
        raise CounterError("no counter here")

    monkeypatch.setattr(energy, "find_counter", missing)
    find_meter.cache_clear()
    assert measure_energy(lambda: None, find_meter("cpu"), "cpu") == Energy(None, reason="no counter here")
    find_meter.cache_clear()


def test_a_profile_holds_the_energy_that_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(0.02)

    def call(x: torch.Tensor) -> torch.Tensor:
        device.call()
        return x

    meters = {"cpu": device.meter()}
    monkeypatch.setattr(sys.modules["attention.profiler.profile"], "find_meter", meters.__getitem__)
    found = profile(call, torch.ones(1), rounds=1, energy=True)
    assert found.energy.joules == pytest.approx(WORKING_W * device.call_s, abs=found.energy.error)
    assert found.asdict()["energy_j"] == found.energy.joules and str(found).split()[-1].startswith("35")
    without = profile(call, torch.ones(1), rounds=1)
    assert without.energy == Energy(None) and str(without).split()[-1] == "-"


# --- RAPL ----------------------------------------------------------------------------------------------

RANGE = 262_143_328_850


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


# --- NVML ----------------------------------------------------------------------------------------------


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


# --- a session -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_session_measures_the_energy_of_each_case_once_if_it_is_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    run(*TINY, "-p", "tests.metered", "--energy", f"--benchmark-json={out}")
    document = json.loads(out.read_text())
    assert document["run"]["cpu_idle_w"] == pytest.approx(WATTS, rel=0.05)
    found: dict[str, set[float]] = {}
    for row in rows(document):
        assert row["energy_unknown"] is None
        assert abs(row["energy_j"] - WATTS * row["energy_call_s"]) <= row["energy_error_j"]
        found.setdefault(row["key"], set()).add(row["energy_j"])
    assert len(found) == 4 and all(len(values) == 1 for values in found.values())


# --- a card, with --device cuda --------------------------------------------------------------------------


@pytest.fixture
def card(device: str) -> Meter:
    """The meter of the card that tests run on."""
    if device != "cuda":
        pytest.skip("asks a card: run with --device cuda")
    meter = find_meter(device)
    if isinstance(meter, str):
        pytest.skip(f"this card has no counter: {meter}")
    return meter


def product(size: int) -> Callable[[], object]:
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    out = torch.empty_like(a)
    return lambda: torch.mm(a, a, out=out)


@pytest.mark.parametrize("size", [4096, 8192])
def test_twice_the_calls_cost_twice_the_energy(size: int, card: Meter) -> None:
    """Of products that take the card longer than the host: else what it draws while it waits is counted."""
    once = product(size)

    def twice() -> None:
        once()
        once()

    once()
    (one, error, _), (two, other, _) = (known(measure_energy(call, card, "cuda")) for call in (once, twice))
    assert two / one == pytest.approx(2, rel=0.05)
    assert error < 0.05 * one and other < 0.05 * two


@pytest.mark.parametrize("size", [1024, 8192])
def test_the_mean_power_lies_between_that_of_rest_and_the_limit(size: int, card: Meter) -> None:
    pynvml = pytest.importorskip("pynvml")
    uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    limit_w = pynvml.nvmlDeviceGetEnforcedPowerLimit(pynvml.nvmlDeviceGetHandleByUUID(uuid)) / 1000
    call = product(size)
    call()
    joules, error, seconds = known(measure_energy(call, card, "cuda"))
    assert 0 < card.idle_w < (joules + error) / seconds
    assert (joules - error) / seconds < 1.05 * limit_w


def test_the_counter_of_a_card_is_updated_often_enough(card: Meter) -> None:
    print(f"an update each {card.update_s * 1e3:.1f} ms, {card.idle_w:.0f} W at rest")
    assert energy.LEAST_UPDATES * card.update_s <= energy.MOST_SECONDS
