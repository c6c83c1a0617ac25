"""Packed sequences of torch's FakeTensorMode, whose ends hold no numbers, are refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from attention import get_kernel, linear_attention, list_kernels, profile, standard_attention

PACKING = [
    name for name in (*list_kernels("standard"), *list_kernels("linear"))
    if name.startswith("standard-sdpa")
    or name in ("standard-explicit", "linear-explicit", "linear-chunked", "linear-native", "linear-triton")
]  # fmt: skip
IN_ONE_OPERATOR = ("linear-native", "linear-triton")
SENTENCE = r"^packed sequences are asked for, and cu_seqlens holds no numbers, .* call it on real tensors"
BESIDE = "and q beside cu_seqlens that does holds no numbers"


def fakes() -> tuple[FakeTensorMode, list[torch.Tensor], torch.Tensor]:
    with FakeTensorMode() as mode:
        return mode, [torch.randn(1, 2, 100, 16) for _ in range(3)], torch.tensor([0, 40, 100])


@pytest.mark.parametrize("name", PACKING)
def test_flops_of_packed_sequences_without_numbers_are_refused(name: str) -> None:
    mode, inputs, ends = fakes()
    function = get_kernel(name).function
    for trained in (False, True):
        with mode, FlopCounterMode(display=False), pytest.raises(ValueError, match=SENTENCE):
            function(*(x.clone().requires_grad_(trained) for x in inputs), cu_seqlens=ends)


@pytest.mark.parametrize("name", [name for name in PACKING if get_kernel(name).has_costs])
def test_real_ends_beside_fake_inputs_are_counted_one_by_one_or_refused(name: str) -> None:
    mode, inputs, _ = fakes()
    function, ends = get_kernel(name).function, torch.tensor([0, 40, 100])
    with mode, FlopCounterMode(display=False) as counter:
        if name in IN_ONE_OPERATOR:
            with pytest.raises(ValueError, match=BESIDE):
                function(*inputs, cu_seqlens=ends)
            return
        try:
            function(*inputs, cu_seqlens=ends)
        except ValueError as error:
            pytest.skip(str(error))  # a backend of torch's that is none of the CPU
    found = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        function(*(torch.randn(x.shape) for x in inputs), cu_seqlens=ends)
    assert found == counter.get_total_flops() > 0


@pytest.mark.parametrize("attend", [linear_attention, standard_attention])
def test_a_profile_of_packed_sequences_without_numbers_is_refused(attend: Callable[..., Any]) -> None:
    mode, inputs, ends = fakes()
    with mode, pytest.raises(ValueError, match=SENTENCE):
        profile(lambda *x: attend(*x, cu_seqlens=ends), *inputs, rounds=1)
