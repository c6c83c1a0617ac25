"""Energy on a card, with `--device cuda`: twice the calls cost twice, at a power that the card can have."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from attention.profiler import energy
from attention.profiler.energy import Meter, find_meter, measure_energy
from tests.powered import known


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
    """Products of these sizes take the card longer than the host, so that no waiting card is counted."""
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
