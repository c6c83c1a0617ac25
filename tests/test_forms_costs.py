"""FLOPs, bytes and peak memory of linear attention in every form: closed forms against what torch counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from attention import Case, get_kernel, make_inputs
from attention.costs import cache_bytes
from attention.kernels.forms.linear import step_of
from attention.profiler import count_flops, peak_memory
from attention.state import State

pytestmark = pytest.mark.usefixtures("one_thread")
KERNELS = ["linear-explicit", "linear-chunked", "linear-native"]
OWN_STEP = ["linear-native"]
LENGTHS = [(100, 100), (300, 100), (100, 300), (1, 200), (70, 0)]
"""Queries and keys."""


def call_of(case: Case) -> Callable[[], object]:
    """The call that a case stands for, its inputs made beforehand; a decode is in place."""
    kernel: Any = get_kernel(case.kernel)
    q, k, v = make_inputs(case)
    if case.phase == "decode":
        k, v = k[:, :, -case.queries :], v[:, :, -case.queries :]
        state = State.empty(case.batch, case.key_heads, case.head_dim, case.value_dim)
        step = kernel.step or (lambda *x, **options: step_of(kernel.function, *x, **options))
        return lambda: step(q, k, v, state, in_place=True)
    options = {"causal": case.causal} | ({"return_state": True} if case.phase == "prefill" else {})
    if not case.backward:
        return lambda: kernel.function(q, k, v, **options)
    grad_out = torch.ones(*q.shape[:3], case.value_dim)
    return lambda: torch.autograd.grad(kernel.function(q, k, v, **options), (q, k, v), grad_out)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("phase", ["forward", "forward_backward", "prefill"])
@pytest.mark.parametrize("mode", ["bidirectional", "causal"])
@pytest.mark.parametrize("name", KERNELS)
def test_counted_flops_of_a_form_equal_the_closed_form(
    name: str, mode: str, phase: str, lengths: tuple[int, int]
) -> None:
    shape: Any = {"batch": 2, "heads": 6, "kv_heads": 2, "head_dim": 16, "value_dim": 12}
    case = Case(name, mode, lengths[1], phase, query_len=lengths[0], **shape)
    assert count_flops(call_of(case)) == get_kernel(name).costs(case).countable_flops


@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("name", KERNELS)
def test_counted_flops_of_a_decode_equal_the_closed_form_whatever_the_context(name: str, tokens: int) -> None:
    shape: Any = {"batch": 2, "heads": 6, "kv_heads": 2, "head_dim": 16, "value_dim": 12}
    case = Case(name, "causal", 500, "decode", query_len=tokens, **shape)
    costs, longer = (get_kernel(name).costs(replace(case, seq_len=n)) for n in (500, 10**6))
    assert count_flops(call_of(case)) == costs.countable_flops and costs == longer
    state, rows = 2 * 2 * 16 * (12 + 1) * 4, 2 * tokens * (6 * (16 + 12) + 2 * (16 + 12)) * 4
    assert cache_bytes(case, state=True) == state and costs.min_bytes == 2 * state + rows
    if name != "linear-chunked":  # which computes the scores of the tokens among themselves as well
        assert costs.macs == 2 * tokens * (2 * 16 * 12 + 6 * (16 * 12 + 16))


@pytest.mark.parametrize("name", KERNELS)
def test_heads_that_share_keys_share_their_states(name: str) -> None:
    whole = Case(name, "bidirectional", 1000, heads=8, head_dim=32)
    alone, shared = (get_kernel(name).costs(replace(whole, kv_heads=n)) for n in (8, 2))
    assert shared.terms["states"] == alone.terms["states"] / 4
    assert shared.terms["readout"] == alone.terms["readout"]
    assert alone.min_bytes - shared.min_bytes == 2 * 6 * 1000 * 32 * 4


@pytest.mark.parametrize("lengths", [(2000, 2000), (1000, 2500), (2500, 1000)], ids=str)
@pytest.mark.parametrize("phase", ["forward", "forward_backward", "prefill"])
@pytest.mark.parametrize("mode", ["bidirectional", "causal"])
@pytest.mark.parametrize("name", ["linear-chunked", "linear-native"])
def test_predicted_peak_memory_of_a_form_is_close_to_the_measured(
    name: str, mode: str, phase: str, lengths: tuple[int, int]
) -> None:
    case = Case(name, mode, lengths[1], phase, query_len=lengths[0], heads=8, kv_heads=2, head_dim=32)
    predicted, measured = (
        get_kernel(name).costs(case).peak_bytes,
        peak_memory(call_of(case), "cpu").tensor_bytes,
    )
    assert measured is not None
    assert 0.8 * measured < predicted < 1.35 * measured


@pytest.mark.parametrize("name", OWN_STEP)
def test_a_step_in_place_takes_no_memory_but_for_its_output(name: str) -> None:
    case = Case(name, "causal", 500, "decode", batch=2, heads=6, kv_heads=2, head_dim=64)
    measured = peak_memory(call_of(case), "cpu").tensor_bytes
    assert measured == get_kernel(name).costs(case).peak_bytes == 2 * 6 * 64 * 4
