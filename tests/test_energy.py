"""Energy of a call is power times time within its stated error, for counters of any pace, or unknown."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from attention import profile
from attention.profiler import energy
from attention.profiler.counters import CounterError
from attention.profiler.energy import Energy, find_meter, measure_energy
from tests.metered import WATTS
from tests.powered import IDLE_W, WORKING_W, Device, known
from tests.sessions import TINY, rows, run


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
    energy._learned_meter.cache_clear()
    assert measure_energy(lambda: None, find_meter("cpu"), "cpu") == Energy(None, reason="no counter here")
    energy._learned_meter.cache_clear()


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
