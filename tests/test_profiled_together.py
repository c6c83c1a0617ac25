"""A profile beside, around or inside another: right, or known to be unknown, and the other is left whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from attention import profile

X = torch.ones(64, 64)
BYTES = 64 * 64 * 4


def product() -> torch.Tensor:
    return torch.mm(X, X)


def test_profiles_in_several_threads_are_those_of_each_alone() -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: profile(product, rounds=2), range(16)))
    assert {(each.peak_bytes, each.flops) for each in found} == {(BYTES, 2 * 64**3)}


def test_a_profile_inside_of_torch_profiler_leaves_that_whole_and_says_that_memory_is_unknown() -> None:
    with (
        torch.autograd.profiler.profile() as outer,
        pytest.warns(UserWarning, match="the peak memory of tensors is unknown: another profile is active"),
    ):
        found = profile(product, rounds=2)
    assert found.peak_bytes is None and found.flops == 2 * 64**3
    assert found.asdict()["peak_bytes"] is None
    assert "-" in str(found).split()
    assert sum(event.name == "aten::mm" for event in outer.function_events or []) >= 5


def test_a_profile_while_torch_profiler_warms_up_leaves_that_whole_and_has_an_unknown_peak() -> None:
    with torch.profiler.profile(schedule=torch.profiler.schedule(wait=0, warmup=1, active=1)) as outer:
        with pytest.warns(UserWarning, match="another profile is active"):
            assert profile(product, rounds=1).peak_bytes is None
        outer.step()
        product()
    assert any(event.name == "aten::mm" for event in outer.events())
    assert profile(product, rounds=1).peak_bytes == BYTES


def test_a_function_that_profiles_itself_has_an_unknown_peak() -> None:
    def profiled() -> torch.Tensor:
        with torch.autograd.profiler.profile():
            return product()

    with pytest.warns(UserWarning, match="the function ended the profile, as it profiles itself"):
        assert profile(profiled, rounds=1).peak_bytes is None
    assert profile(product, rounds=1).peak_bytes == BYTES


def test_a_function_that_raises_is_raised_and_leaves_the_profiler_free() -> None:
    calls = iter(range(3))

    def broken() -> None:
        if next(calls) == 2:  # the call under torch's profiler
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        profile(broken, rounds=1)
    assert profile(product, rounds=1).peak_bytes == BYTES


def test_a_profile_in_inference_mode_reads_what_it_reads_outside() -> None:
    with torch.inference_mode():
        found = profile(product, rounds=1)
    assert (found.peak_bytes, found.flops) == (BYTES, 2 * 64**3)


@pytest.mark.parametrize("where", ["cpu", "cpu:0", torch.device("cpu"), None])
def test_a_device_is_named_by_a_string_or_by_torch(where: str | torch.device | None) -> None:
    assert profile(product, device=where, rounds=1).device == "cpu"


def test_a_device_that_is_not_there_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for absent in ("cuda", "cuda:1", torch.device("cuda")):
        with pytest.raises(ValueError, match="is a CUDA device, and torch finds none here"):
            profile(product, device=absent)
    for unknown in ("tpu", "", "meta"):
        with pytest.raises(ValueError, match="device must be cpu or cuda"):
            profile(product, device=unknown)
    with pytest.raises(TypeError, match="profile\\(\\) measures a function; got an object of type int"):
        profile(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [True, "3", None, 2.5])
def test_a_count_or_a_device_of_another_type_is_a_type_error(wrong: Any) -> None:
    for name in ("rounds", "warmup"):
        with pytest.raises(TypeError, match=f"{name} must be an integer"):
            profile(product, **{name: wrong})
    with pytest.raises(TypeError, match="device must be the name of a device"):
        profile(product, device=[wrong])  # type: ignore[arg-type]
