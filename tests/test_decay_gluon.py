"""The Gluon pass of linear-decay-triton: on a Hopper card, and planned on a CPU."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attention import Case
from attention.kernels.linear_decay_triton import linear_decay_triton
from attention.kernels.linear_decay_triton.costs import plan_of_case, triton_costs
from attention.kernels.linear_decay_triton.operator import (
    decay_forward,
    decay_gradients,
)
from attention.kernels.references import TOLERANCES, gradient_error, relative_error
from attention.kernels.references.decay import decay_reference
from attention.kernels.triton_common import card as card_at_hand
from attention.kernels.triton_common.launch import Launch, Repeat
from tests.gates import gates
from tests.interpreted import filled_with_nan, forget_every_launch, set_rules

FORWARD, BACKWARD = TOLERANCES[torch.bfloat16]
LONG = Case("linear-decay-triton", "causal", 131072, "forward", "cuda", "bfloat16", 1, 16, 128)


def inputs(device: str, shape: tuple[int, ...], value_dim: int, gate: str = "mild") -> list[Tensor]:
    """q, k, v and g, which require gradients, and do."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(shape[:3], generator=generator)
    q, k, v, do = (
        torch.randn(*shape[:3], width, generator=generator).to(device, torch.bfloat16)
        for width in (shape[3], shape[3], value_dim, value_dim)
    )
    return [x.requires_grad_() for x in (q, k, v, gates(gate, noise).to(device))] + [do]


@pytest.mark.parametrize(
    ("shape", "value_dim", "gate", "feature_map"),
    [
        ((1, 2, 512, 128), 128, "mild", "elu"),
        ((2, 3, 4097, 128), 128, "mixed", "elu"),
        ((1, 2, 1000, 96), 128, "resets", "elu"),
        ((1, 1, 50, 128), 72, "growing", "elu"),
        ((1, 1, 70, 128), 128, "mixed", "elu"),
        ((1, 200, 700, 80), 112, "none", "elu"),
        ((1, 2, 700, 128), 128, "strong", "relu"),
        ((1, 2, 700, 120), 96, "mixed", "identity"),
    ],
)
def test_decay_in_gluon_equals_the_recurrence_with_gradients_and_repeats_its_bits(
    shape: tuple[int, ...], value_dim: int, gate: str, feature_map: str, card: str
) -> None:
    *x, do = inputs(card, shape, value_dim, gate)
    exact = [each.detach().double().clamp(min=-700).requires_grad_() for each in x]
    reference = decay_reference(*exact, feature_map=feature_map)
    wanted = torch.autograd.grad(reference, exact, do.double())
    results = []
    for _ in range(2):
        out = linear_decay_triton(*x[:3], g=x[3], feature_map=feature_map)
        results.append((out, *torch.autograd.grad(out, x, do)))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    assert relative_error(results[0][0], reference) < FORWARD
    assert gradient_error(results[0][1:], wanted) < BACKWARD


def test_decay_in_gluon_does_not_depend_on_segments_being_added_up_or_scanned(
    card: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v, g, do = inputs(card, (1, 2, 3000, 128), 128)
    results = []
    for least, folded in ((4096, 2**17), (128, 2**30), (128, 0)):
        set_rules(monkeypatch, LEAST_TOKENS=least, FOLDED=folded)
        out = linear_decay_triton(q, k, v, g=g)
        results.append((out, torch.autograd.grad(out, (q, k, v, g), do)))
    for out, gradients in results[1:]:
        assert relative_error(out, results[0][0]) < FORWARD
        assert gradient_error(gradients, results[0][1]) < BACKWARD


def test_no_uninitialised_memory_reaches_a_result_of_decay_in_gluon(card: str) -> None:
    *x, do = inputs(card, (1, 3, 1500, 104), 72)

    def results() -> list[Tensor]:
        out = linear_decay_triton(*x[:3], g=x[3])
        return [out, *torch.autograd.grad(out, x, do)]

    clean = results()
    with filled_with_nan():
        poisoned = results()
    assert all(map(torch.equal, clean, poisoned))


def test_a_nan_of_decay_in_gluon_stays_in_its_chunk_and_behind(card: str) -> None:
    for which in range(4):
        x = [each.detach() for each in inputs(card, (1, 2, 1000, 128), 128)[:4]]
        x[which][0, 0, 700] = math.nan
        out = linear_decay_triton(*x[:3], g=x[3])
        assert out[0, 0, 700].isnan().all()
        assert not out[0, 0, :640].isnan().any() and not out[0, 1].isnan().any()


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are those of a Hopper card."""
    monkeypatch.setattr(card_at_hand, "has_gluon", lambda device: device.type == "cuda")


@pytest.mark.usefixtures("planned")
def test_the_output_of_decay_in_gluon_computes_scores_once_in_chunks_of_128() -> None:
    tokens, width = LONG.heads * LONG.seq_len, LONG.head_dim
    assert plan_of_case(LONG).segment_tokens % 128 == 0
    terms = triton_costs(LONG).terms
    assert terms["scores"] == terms["weighted_values"] == tokens * 128 * width
    short = triton_costs(replace(LONG, seq_len=1024)).terms
    assert short["scores"] == 2 * short["weighted_values"]  # two blocks, each with the scores


@pytest.mark.parametrize("backward", [False, True])
def test_a_launch_of_decay_in_gluon_gives_its_pass_as_many_arguments_as_that_takes(
    backward: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Launches are recorded instead of started, on a machine without a card."""
    if device == "cuda":
        pytest.skip("launched, by the other tests")
    pytest.importorskip("triton.experimental.gluon")
    monkeypatch.setattr(card_at_hand, "has_gluon", lambda device: True)
    missing: dict[str, int] = {}

    def note(launch: Launch, tensors: list[Tensor]) -> Repeat:
        taken = launch.kernel.arg_names
        missing[launch.kernel.__name__] = len(taken) - len(tensors) - len(launch.values)
        return lambda tensors: None

    monkeypatch.setattr(Launch, "first", note)
    set_rules(monkeypatch, DESCRIBED=0)
    q, k, v = (torch.zeros(1, 2, 700, 128, dtype=torch.bfloat16) for _ in range(3))
    out, sums, S, totals = decay_forward(q, k, v, torch.zeros(1, 2, 700), "elu", "ieee", True)
    if backward:
        missing.clear()
        decay_gradients(out, q, k, v, sums, S, totals, "elu", "ieee")
    forget_every_launch()
    gates = {"differentiate": 0, "differentiate_gates": 0} if backward else {"cumulate": 0}
    assert missing == {"states": 0, "attend": 0} | gates
