"""Gated kernels of flash-linear-attention: their results, their gates, and costs that count the gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from attention import Case, get_kernel, make_inputs
from attention.kernels.external import fla_costs, flash_linear_attention
from attention.kernels.references import errors_against_reference, relative_error
from attention.kernels.registry import _KERNELS, list_kernels
from benchmarks.subjects import SUBJECTS
from tests.stand_ins import chunk_gated_delta_rule, chunk_gla, chunk_kda, chunk_simple_gla, install

GATED = ["gla-fla", "delta-fla", "kda-fla"]
"""Kernels that are held to an oracle of their own."""
WITH_GATES = ["linear-decay-fla", *GATED]


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """flash-linear-attention is installed and registered; it computes with stand-ins."""
    for room, function in (
        ("simple_gla", chunk_simple_gla),
        ("gla", chunk_gla),
        ("gated_delta_rule", chunk_gated_delta_rule),
        ("kda", chunk_kda),
    ):
        install(monkeypatch, f"fla.ops.{room}", **{function.__name__: function})
    monkeypatch.setattr("attention.kernels.registry._KERNELS", dict(_KERNELS))
    if "gla-fla" not in list_kernels():
        flash_linear_attention.register_fla()


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("inputs_in", ["float64", "float32"])
def test_gated_kernels_equal_their_oracles_with_gradients_of_gates(name: str, inputs_in: str) -> None:
    case = Case(name, "causal", 37, "forward_backward", "cpu", inputs_in, 2, 3, 8, 5)
    extra = get_kernel(name).extra_inputs(case)
    assert all(x.requires_grad and x.dtype == case.torch_dtype for x in extra.values())
    errors = errors_against_reference(case)
    # The stand-ins compute in the dtype itself, whatever the package states of float32.
    assert errors.within(case.torch_dtype), errors


@pytest.mark.usefixtures("stand_ins")
def test_decay_is_simple_gated_linear_attention_of_mapped_inputs_without_a_scale() -> None:
    case = Case("linear-decay-fla", "causal", 20, dtype="float64", head_dim=4, value_dim=3)
    kernel, inputs = get_kernel("linear-decay-fla"), make_inputs(case)
    gates = kernel.extra_inputs(case)
    assert kernel.reference == "decay" and set(gates) == {"g"}
    q, k, v = inputs
    phi = [torch.where(x > 0, x + 1, x.exp()) for x in (q, k)]
    sums = gates["g"].cumsum(-1)
    expected = ((phi[0] @ phi[1].mT) * (sums[..., :, None] - sums[..., None, :]).exp()).tril() @ v
    assert relative_error(kernel.function(*inputs, causal=True, **gates), expected) < 1e-14


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("name", WITH_GATES)
def test_gates_are_negative_logarithms_in_float32_of_which_none_forgets_at_once(name: str) -> None:
    case = Case(name, "causal", 500, dtype="bfloat16")
    made, again = (get_kernel(name).extra_inputs(case) for _ in range(2))
    for gate, x in made.items():
        assert x.dtype == torch.float32 and not x.requires_grad and torch.equal(x, again[gate])
        width = (case.head_dim,) if gate == "gk" else ()
        assert x.shape == (case.batch, case.heads, case.seq_len, *width)
        low, high = (0, 1) if gate == "beta" else (-0.5, 0)
        assert low < float(x.min()) and float(x.max()) < high


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("name", WITH_GATES)
def test_no_tokens_have_a_result_and_gradients_of_all_inputs(name: str) -> None:
    case = Case(name, "causal", 0, "forward_backward", value_dim=32)
    inputs, extra = make_inputs(case), get_kernel(name).extra_inputs(case)
    out = get_kernel(name).function(*inputs, causal=True, **extra)
    assert out.shape == inputs[2].shape
    leaves = [*inputs, *extra.values()]
    for x, gradient in zip(leaves, torch.autograd.grad(out.sum(), leaves), strict=True):
        assert gradient.shape == x.shape


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("name", WITH_GATES)
@pytest.mark.parametrize("phase", ["forward", "forward_backward"])
def test_gated_kernels_count_their_gates_in_the_least_bytes(name: str, phase: str) -> None:
    case = Case(name, "causal", 128, phase, dtype="bfloat16", heads=2, value_dim=32)
    costs = get_kernel(name).costs(case)
    # The stand-ins take one dtype only, in which q, k, v and the output are twice as wide.
    prepared = SUBJECTS["operator"].prepare(replace(case, dtype="float32")).min_bytes
    gates = sum(x.nbytes for x in get_kernel(name).extra_inputs(case).values())
    factor = 3 if case.backward else 1
    assert costs.min_bytes == (prepared - factor * gates) // 2 + factor * gates
    assert costs.countable_flops == 0 < costs.flops


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("name", WITH_GATES)
def test_gated_kernels_refuse_a_bidirectional_mode(name: str) -> None:
    case = Case(name, "causal", 3)
    with pytest.raises(ValueError, match="causal only"):
        get_kernel(name).function(*make_inputs(case), causal=False, **get_kernel(name).extra_inputs(case))


COSTS = [fla_costs.decay_costs, fla_costs.gla_costs, fla_costs.delta_costs, fla_costs.kda_costs]


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("phase", ["forward", "forward_backward"])
def test_costs_of_whole_chunks_are_linear_in_the_length(costs: Callable[..., Any], phase: str) -> None:
    case = Case("gla-fla", "causal", 640, phase)
    one, four = costs(case), costs(replace(case, seq_len=2560))
    assert (four.flops, four.min_bytes, four.peak_bytes) == (
        4 * one.flops,
        4 * one.min_bytes,
        4 * one.peak_bytes,
    )
    assert one.peak_bytes > case.heads * case.seq_len * case.value_dim * case.itemsize


def test_flops_are_those_of_the_products_of_one_chunk() -> None:
    case = Case("gla-fla", "causal", 64, heads=1, head_dim=64)
    cube = 64**3
    assert fla_costs.gla_costs(case).macs == fla_costs.decay_costs(case).macs == 4 * cube
    substitution = sum(i - j for i in range(64) for j in range(i))
    assert fla_costs.delta_costs(case).macs == fla_costs.kda_costs(case).macs == 8 * cube + substitution
