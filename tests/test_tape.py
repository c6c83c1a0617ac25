"""Tapes: a later call makes the launches of an earlier one on its tensors, and what stood between them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from attention.kernels.triton_common.launch import DirectRepeat, Repeat
from attention.kernels.triton_common.tape import Tape

NUMBERS = 3


def at(address: int) -> Tensor:
    """The numbers at an address, as a launch finds them."""
    return torch.frombuffer((ctypes.c_float * NUMBERS).from_address(address), dtype=torch.float32)


class Direct(DirectRepeat):
    """A launch on addresses, by which one function of numbers writes the last of its tensors."""

    def __init__(self, function: Callable[..., Tensor], launches: bool = True) -> None:
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "launches", launches)

    def __call__(self, tensors: list[Tensor]) -> None:
        *given, out = tensors
        out.copy_(self.function(*given))  # type: ignore[attr-defined]

    def at(self, device: Any, addresses: Sequence[int]) -> bool:
        if self.launches:  # type: ignore[attr-defined]
            self([at(one) for one in addresses])
        return bool(self.launches)  # type: ignore[attr-defined]


def indirect(function: Callable[..., Tensor]) -> Repeat:
    """A launch on tensors, as of Triton's public way."""
    direct = Direct(function)
    return lambda tensors: direct(tensors)


def recorded(made: Callable[..., Any]) -> Tape:
    """A tape of y = 2 x; then r, s = y + 1, y + 2 in between; then out = r s. Results are y and s."""
    tape = Tape((torch.ones(NUMBERS), torch.empty(NUMBERS)))
    x, out = tape.given
    unused, y = (tape.buffer(torch.empty(NUMBERS)) for _ in range(2))
    twice, times = made(lambda x: 2 * x), made(lambda r, s: r * s)
    twice([x, unused])
    tape.launch(twice, [x, unused])
    twice([x, y])
    tape.launch(twice, [x, y])
    r, s = y + 1, y + 2
    tape.between(y, (r, s))
    times([r, s, out])
    tape.launch(times, [r, s, out])
    tape.end([y, s])
    return tape


@pytest.mark.parametrize("made", [indirect, Direct])
def test_a_tape_does_again_what_stood_between_its_launches(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)  # as the index of a CPU
    tape, results = recorded(made), []
    for x, more in ((torch.arange(3.0), 1.0), (torch.tensor([-1.0, 5.0, 0.5]), 7.0)):
        out = torch.full((NUMBERS,), torch.nan)
        y, s = tape.replay((x, out), lambda y, more=more: (y + more, y + 2 * more))  # type: ignore[misc]
        results.append((x, more, y, s))
        assert torch.equal(out, (2 * x + more) * (2 * x + 2 * more))
    for x, more, y, s in results:  # those of each call are its own
        assert torch.equal(y, 2 * x) and torch.equal(s, 2 * x + 2 * more)


def test_where_no_launch_is_made_on_addresses_nothing_in_between_happens_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second collective would wait for ranks that make one."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)
    calls, out = [], torch.empty(NUMBERS)

    def between(y: Tensor) -> Sequence[Tensor]:
        calls.append(y)
        return y + 1, y + 2

    recorded(lambda function: Direct(function, launches=False)).replay((torch.ones(NUMBERS), out), between)
    assert len(calls) == 1 and torch.equal(out, torch.full((NUMBERS,), 12.0))
