"""Conditions recorded during a run, on machines and cards made for the test."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from benchmarks.conftest import timed_share
from benchmarks.machine.cards import FACTS, READINGS, Sensor, find_card, nvml_card
from benchmarks.machine.cgroups import groups
from benchmarks.machine.conditions import Watch, cpu_seconds, environment, governor, quota_cores


class Machine:
    """A clock and CPU times that pass as the test says, and a card that takes its time."""

    def __init__(self, seconds_to_read: float = 0) -> None:
        self.now, self.everyone, self.mine = 1000.0, 500.0, 20.0
        self.seconds_to_read = seconds_to_read

    def let_pass(self, seconds: float, mine: float = 0, others: float = 0) -> None:
        self.now, self.mine = self.now + seconds, self.mine + mine
        self.everyone += mine + others

    def card(self, sensors: Sequence[Sensor]) -> dict[str, Any]:
        self.let_pass(self.seconds_to_read, others=5)
        return dict.fromkeys((sensor.field for sensor in sensors), 7)

    def watch(self) -> Watch:
        return Watch(lambda: self.card, lambda: self.now, lambda: (self.everyone, self.mine))


def column(watch: Watch, name: str) -> list[Any]:
    return [reading[name] for reading in watch.readings]


def test_the_load_by_other_processes_is_recorded_per_repetition() -> None:
    machine = Machine()
    watch = machine.watch()
    for repetition, others in ((1, 3.0), (2, 0.0), (3, 20.0)):
        for _ in range(2):
            watch.before_case(repetition)
            machine.let_pass(4, mine=8, others=others / 2)
    watch.end()
    assert column(watch, "repetition") == [0, 1, 2, 3]
    assert column(watch, "interval_s") == [0, 8, 8, 8]
    assert column(watch, "others_cores") == pytest.approx([None, 3 / 8, 0, 20 / 8])
    assert column(watch, "gpu_sm_clock_mhz") == [7, 7, 7, 7]


def test_the_load_is_null_where_cpu_time_of_all_processes_is_not_counted() -> None:
    machine = Machine()
    watch = machine.watch()
    watch.before_case(1)
    machine.let_pass(1, mine=2, others=-2)
    watch.end()
    assert column(watch, "others_cores") == [None, None]


def test_the_load_is_never_negative_where_ticks_disagree() -> None:
    machine = Machine()
    watch = machine.watch()
    watch.before_case(1)
    machine.let_pass(1, mine=2, others=-0.01)
    watch.end()
    assert column(watch, "others_cores") == [None, 0]


@pytest.mark.parametrize(("seconds_to_read", "expected"), [(0.01, 10), (3, 300)])
def test_watching_conditions_takes_less_than_a_hundredth_of_the_time(
    seconds_to_read: float, expected: float
) -> None:
    machine = Machine(seconds_to_read)
    watch = machine.watch()
    for _ in range(1000):
        watch.before_case(1)
        machine.let_pass(1, mine=1)
    intervals = column(watch, "interval_s")[1:]
    assert intervals == pytest.approx([expected] * len(intervals), abs=1) and len(intervals) >= 3
    # The second that reading the card takes is not counted as load by other processes.
    assert column(watch, "others_cores")[1:] == [0] * len(intervals)


def test_conditions_of_a_session_without_a_case_are_not_read() -> None:
    watch = Machine().watch()
    watch.end()
    assert watch.readings == [] and watch.card is None


def test_the_cpu_seconds_of_all_processes_include_those_of_this_process() -> None:
    before = cpu_seconds()
    while cpu_seconds()[1] < before[1] + 0.1:
        pass
    everyone, mine = (after - earlier for earlier, after in zip(before, cpu_seconds(), strict=True))
    assert mine >= 0.1 - 1e-9
    # Both counters tick every 10 ms or less, once for each core.
    assert everyone > mine - 0.05


def test_a_clock_that_is_set_back_changes_no_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    session = SimpleNamespace(benchmarks=[SimpleNamespace(stats=SimpleNamespace(total=1e-3))])
    config: Any = SimpleNamespace(_benchmarksession=session)
    before, _ = timed_share(config)
    now = time.time()
    for step in (-86400, 86400):
        monkeypatch.setattr(time, "time", lambda step=step: now + step)
        wall, share = timed_share(config)
        assert before <= wall <= before + 1000 and 0 < share < 1
    assert time.process_time() - 1 <= before


def test_the_environment_record_is_flat_and_has_null_for_a_missing_card() -> None:
    facts = environment()
    assert all(value is None or isinstance(value, str | int | float) for value in facts.values())
    assert facts["usable_cores"] >= 1 and facts["python"] and facts["driver"] is None


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "250000 100000\n"}, 2.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
    ],
)
def test_the_cpu_quota_of_a_container_is_in_cores(
    files: dict[str, str], cores: float | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert quota_cores(groups("cpu", tmp_path)) == cores


def test_cpu_governors_of_all_cores_are_named_once(tmp_path: Path) -> None:
    assert governor(tmp_path) is None
    for core, name in enumerate(("powersave", "performance", "powersave")):
        folder = tmp_path / f"cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(f"{name}\n")
    assert governor(tmp_path) == "performance+powersave"


# A card behind an NVML of a few functions

EXPECTED_READINGS = {
    "gpu_sm_clock_mhz": 1755, "gpu_max_sm_clock_mhz": 1980, "gpu_temperature_c": 61,
    "gpu_throttle_reasons": 0x24, "gpu_utilization_percent": 97, "gpu_memory_used_bytes": 2**32,
}  # fmt: skip
EXPECTED_FACTS = {
    "driver": "580.00.1", "gpu_power_limit_w": 700.0, "gpu_persistence": True, "gpu_ecc": True,
    "gpu_mig": None,
}  # fmt: skip


class NvmlError(Exception):
    """NVML's error for what a card does not support."""


def install_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: Any) -> Any:
        raise NvmlError

    def by_uuid(uuid: str) -> str:
        return uuid if uuid == "GPU-1f" else str(raises())

    nvml = ModuleType("pynvml")
    functions: dict[str, Any] = {
        "Init": lambda: None,
        "SystemGetDriverVersion": lambda: "580.00.1",
        "DeviceGetHandleByUUID": by_uuid,
        "DeviceGetEnforcedPowerLimit": lambda _: 700_000,
        "DeviceGetPersistenceMode": lambda _: 1,
        "DeviceGetEccMode": lambda _: [1, 0],
        "DeviceGetMigMode": raises,
        "DeviceGetClockInfo": lambda _, clock: {1: 1755}[clock],
        "DeviceGetMaxClockInfo": lambda _, clock: {1: 1980}[clock],
        "DeviceGetTemperature": lambda _, sensor: {0: 61}[sensor],
        "DeviceGetCurrentClocksThrottleReasons": lambda _: 0x24,
        "DeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=97, memory=12),
        "DeviceGetMemoryInfo": lambda _, version: SimpleNamespace(used={2: 2**32}[version]),
    }
    for name, function in functions.items():
        monkeypatch.setattr(nvml, f"nvml{name}", function, raising=False)
    for name, value in {"NVML_CLOCK_SM": 1, "NVML_TEMPERATURE_GPU": 0, "nvmlMemory_v2": 2}.items():
        monkeypatch.setattr(nvml, name, value, raising=False)
    monkeypatch.setattr(nvml, "NVMLError", NvmlError, raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)


def test_nvml_sensors_are_null_where_a_card_lacks_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install_nvml(monkeypatch)
    card = nvml_card("GPU-1f")
    assert card(READINGS) == EXPECTED_READINGS and card(FACTS) == EXPECTED_FACTS


def test_an_unknown_card_and_a_missing_nvml_give_nulls(monkeypatch: pytest.MonkeyPatch) -> None:
    nulls = dict.fromkeys(EXPECTED_READINGS)
    install_nvml(monkeypatch)
    assert nvml_card("GPU-2e")(READINGS) == nulls
    monkeypatch.setitem(sys.modules, "pynvml", None)  # makes its import fail
    assert nvml_card("GPU-1f")(READINGS) == nulls


def test_the_installed_nvml_knows_every_name_that_is_asked_for() -> None:
    """A machine without a driver answers with NVML's own error, and knows the names all the same."""
    pynvml = pytest.importorskip("pynvml")
    for sensor in (*FACTS, *READINGS):
        with suppress(pynvml.NVMLError):
            sensor.read(pynvml, None)


def test_nvml_reads_the_card_that_torch_measures_on_whatever_its_index(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: SimpleNamespace(uuid="1f"))
    install_nvml(monkeypatch)
    assert find_card()(READINGS) == EXPECTED_READINGS
