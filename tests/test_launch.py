"""A launch of a compiled kernel is direct where Triton's launcher is known, else left to Triton."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attention.kernels.triton_common.launch import DirectRepeat, Launch
from attention.torch_internals.launcher import direct_launch

triton = pytest.importorskip("triton")


class Compiled:
    """A compiled kernel that records its launches."""

    function, packed_metadata = "function", "metadata"

    def __init__(self, run: Callable[..., None]) -> None:
        self.run = run


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    active = SimpleNamespace(get_current_stream=lambda device: f"stream of {device}")
    monkeypatch.setattr(triton.runtime.driver, "_active", active)
    monkeypatch.setattr(triton, "__version__", "3.6.0")
    return []


def known(seen: list[Any]) -> Compiled:
    def run(gridX: int, gridY: int, gridZ: int, stream: str, function: str, *arguments: Any) -> None:
        seen.append((gridX, gridY, gridZ, stream, function, *arguments))

    return Compiled(run)


def test_a_launch_by_a_known_launcher_is_direct_and_on_the_current_stream(seen: list[Any]) -> None:
    direct = direct_launch(known(seen), 7, (1.5, True))
    assert direct is not None and direct(2, [10, 20])
    assert seen == [(7, 1, 1, "stream of 2", "function", "metadata", None, None, None, 10, 20, 1.5, True)]


def test_a_launch_is_left_to_triton_while_a_launch_hook_is_set(
    seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = direct_launch(known(seen), 7, (1.5,))
    assert direct is not None
    for hook in ("launch_enter_hook", "launch_exit_hook"):
        with monkeypatch.context() as listening:
            listening.setattr(triton.knobs.runtime, hook, lambda metadata: None)
            assert not direct(0, [10])
        assert seen == []
        assert direct(0, [10])
        assert seen.pop()[3] == "stream of 0"


def test_a_launch_is_left_to_triton_where_the_launcher_has_other_parameters(seen: list[Any]) -> None:
    def run(stream: str, gridX: int, *arguments: Any) -> None:
        raise AssertionError

    assert direct_launch(Compiled(run), 7, (1.5,)) is None


@pytest.mark.parametrize("missing", ["run", "function", "packed_metadata"])
def test_a_launch_is_left_to_triton_where_the_compiled_kernel_lacks_the_names_of_the_launcher(
    missing: str, seen: list[Any]
) -> None:
    kernel = known(seen)
    members = {name: getattr(kernel, name) for name in ("run", "function", "packed_metadata")}
    assert direct_launch(SimpleNamespace(**members), 7, ()) is not None
    del members[missing]
    assert direct_launch(SimpleNamespace(**members), 7, ()) is None


def test_a_launch_is_left_to_triton_of_an_unchecked_version(
    seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton, "__version__", "3.60.0")
    assert direct_launch(known(seen), 7, (1.5,)) is None


def test_a_launcher_that_wraps_another_is_left_out_where_a_kernel_takes_no_scratch_memory(
    seen: list[Any],
) -> None:
    def wrapped(gridX: int, gridY: int, gridZ: int, stream: str, function: str, *arguments: Any) -> None:
        raise AssertionError

    kernel = known(seen)
    run: Any = wrapped
    run.launch, run.launch_cooperative_grid, run.launch_pdl = kernel.run, False, True
    run.global_scratch_size = run.profile_scratch_size = 0
    direct = direct_launch(Compiled(run), 7, (1.5,))
    assert direct is not None and direct(2, [10])
    added = (False, True, None, None)
    assert seen == [(7, 1, 1, "stream of 2", "function", *added, "metadata", None, None, None, 10, 1.5)]
    run.global_scratch_size = 128
    direct = direct_launch(Compiled(run), 7, (1.5,))
    with pytest.raises(AssertionError):
        assert direct is not None and direct(2, [10])


def test_a_repeated_launch_describes_the_first_tensors_by_address_shape_and_strides() -> None:
    given: list[Any] = []
    launch = Launch(None, 7, [[1, 16]], (), 4, lasting=True)

    def direct(device: int, pointers: Sequence[Any]) -> bool:
        given.extend(pointers)
        return True

    repeat = DirectRepeat(direct, launch, [([3, 32], [64, 1])])
    x, y = torch.empty(3, 64)[:, :32], torch.empty(5)
    assert repeat.at(0, [x.data_ptr(), y.data_ptr()])
    described, pointer = given
    assert (described.data_ptr(), described.base.data_ptr()) == (x.data_ptr(), x.data_ptr())
    assert (described.shape, described.strides) == (list(x.shape), list(x.stride()))
    assert described.padding == "zero" and pointer == y.data_ptr()
