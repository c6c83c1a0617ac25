"""The oracles of gated linear attention and of the delta rules: what they equal, remember and forget."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from attention.kernels.references import (
    GATED_DELTA,
    GLA,
    KDA,
    gated_delta_reference,
    gla_reference,
    kda_reference,
    relative_error,
)
from attention.kernels.registry import Reference

N, D, DV = 12, 16, 5
EXACT = 1e-13
"""Sums of some hundred terms in float64."""


class Inputs(NamedTuple):
    """Random inputs in float64, and gates of both kinds."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    gk: Tensor
    beta: Tensor


@pytest.fixture
def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(0)
    q, k, gk = (torch.randn(2, 3, N, D, generator=generator, dtype=torch.float64) for _ in range(3))
    v = torch.randn(2, 3, N, DV, generator=generator, dtype=torch.float64)
    g, beta = (torch.randn(2, 3, N, generator=generator, dtype=torch.float64) for _ in range(2))
    return Inputs(q, k, v, -g.exp() / 4, -gk.exp() / 4, beta.sigmoid())


@pytest.fixture
def orthonormal(inputs: Inputs) -> Inputs:
    """Keys that are orthogonal to one another, and so long that nothing is lost where they are normalised."""
    directions = torch.linalg.qr(inputs.k.mT).Q.mT
    return inputs._replace(q=1e6 * directions, k=1e6 * directions, beta=torch.ones_like(inputs.beta))


def of_all_columns(g: Tensor) -> Tensor:
    return g[..., None].expand(*g.shape, D)


def decayed(g: Tensor) -> Tensor:
    """exp(g_(j+1) + ... + g_i) at (i, j), 0 for j > i."""
    sums = g.cumsum(-1)
    return (sums[..., :, None] - sums[..., None, :]).exp().tril()


def test_gates_equal_in_all_columns_are_those_of_simple_gated_attention(inputs: Inputs) -> None:
    q, k, v, g, *_ = inputs
    out = gla_reference(q, k, v, of_all_columns(g), scale=0.3)
    assert relative_error(out, 0.3 * ((q @ k.mT) * decayed(g)) @ v) < EXACT


def test_attention_with_vector_gates_is_a_sum_over_columns_with_a_gate_each(inputs: Inputs) -> None:
    q, k, v, _, gk, _ = inputs
    columns = [(q[..., [d]] @ k[..., [d]].mT) * decayed(gk[..., d]) for d in range(D)]
    assert relative_error(gla_reference(q, k, v, gk), torch.stack(columns).sum(0) @ v / D**0.5) < EXACT


def test_without_forgetting_attention_with_gates_is_linear_attention(inputs: Inputs) -> None:
    q, k, v, *_ = inputs
    out = gla_reference(q, k, v, torch.zeros_like(k), scale=1)
    assert relative_error(out, (q @ k.mT).tril() @ v) < EXACT


def test_kda_with_gates_equal_in_all_columns_is_the_gated_delta_rule(inputs: Inputs) -> None:
    q, k, v, g, _, beta = inputs
    out = kda_reference(q, k, v, of_all_columns(g), beta)
    assert relative_error(out, gated_delta_reference(q, k, v, g, beta)) < EXACT


def test_a_delta_rule_that_writes_at_rate_zero_remembers_nothing(inputs: Inputs) -> None:
    q, k, v, g, gk, beta = inputs
    for out in (gated_delta_reference(q, k, v, g, 0 * beta), kda_reference(q, k, v, gk, 0 * beta)):
        assert out.shape == v.shape and not out.any()


def test_orthogonal_keys_are_written_beside_one_another_as_in_gated_attention(orthonormal: Inputs) -> None:
    """Nothing is read with a key that is orthogonal to all before, so that the rule adds what it is given."""
    q, k, v, g, _, beta = orthonormal
    rates = beta * torch.linspace(0.1, 1, N).double()
    out = gated_delta_reference(q, k, v, g, rates, scale=1)
    expected = gla_reference(q / 1e6, k / 1e6, rates[..., None] * v, of_all_columns(g), scale=1)
    assert relative_error(out, expected) < EXACT
    rotated = q.flip(2)
    later = gated_delta_reference(rotated, k, v, g, rates, scale=1)
    read = gla_reference(rotated / 1e6, k / 1e6, rates[..., None] * v, of_all_columns(g), scale=1)
    assert relative_error(later, read) < EXACT and relative_error(later, out) > 0.1


def test_a_key_reads_what_it_has_just_written_whatever_was_there(orthonormal: Inputs) -> None:
    _, k, v, g, gk, beta = orthonormal
    # Keys that are neither new nor orthogonal to others.
    k = k[:, :, torch.tensor([0, 1, 0, 2, 1, 0, 3, 3, 2, 0, 1, 3])] + 0.3 * k[:, :, :1]
    for out in (
        gated_delta_reference(k, k, v, g, beta, scale=1),
        kda_reference(k, k, v, gk, beta, scale=1),
    ):
        assert relative_error(out, v) < 1e-11
    half = gated_delta_reference(k, k, v, g, beta / 2, scale=1)
    assert relative_error(half, v) > 0.1


def test_a_delta_rule_overwrites_where_attention_adds(orthonormal: Inputs) -> None:
    _, k, v, g, _, beta = orthonormal
    still, k = 0 * g, k[:, :, :1].expand_as(k)
    assert relative_error(gated_delta_reference(k, k, v, still, beta, scale=1), v) < EXACT
    added = gla_reference(k / 1e6, k / 1e6, v, of_all_columns(still), scale=1)
    assert relative_error(added, v.cumsum(2)) < EXACT


def test_what_is_never_overwritten_fades_with_the_gates(orthonormal: Inputs) -> None:
    q, k, v, g, gk, beta = orthonormal
    first = q[:, :, :1].expand_as(q)
    out = gated_delta_reference(first, k, v, g, beta, scale=1)
    faded = (g.cumsum(-1) - g[..., :1]).exp()
    assert relative_error(out, faded[..., None] * v[:, :, :1]) < EXACT
    # Unit vectors as keys: their columns fade one by one.
    units = 1e6 * torch.eye(D).double()[:N].expand_as(k)
    out = kda_reference(units[:, :, :1].expand_as(q), units, v, gk, beta, scale=1)
    faded = (gk[..., 0].cumsum(-1) - gk[..., :1, 0]).exp()
    assert relative_error(out, faded[..., None] * v[:, :, :1]) < EXACT


def test_the_gated_delta_rule_is_a_product_of_its_transitions(inputs: Inputs) -> None:
    """The equation as the paper writes it, with the matrix exp(g) (I - beta k k') of each token."""
    q, k, v, g, _, beta = (x[0, 0] for x in inputs)
    k = k / k.norm(dim=-1, keepdim=True)
    state, outputs = torch.zeros(D, DV).double(), []
    for query, key, value, gate, rate in zip(q / q.norm(dim=-1, keepdim=True), k, v, g, beta, strict=True):
        transition = gate.exp() * (torch.eye(D).double() - rate * torch.outer(key, key))
        state = transition @ state + rate * torch.outer(key, value)
        outputs.append(query @ state / D**0.5)
    out = gated_delta_reference(*(x[:1, :1] for x in (inputs.q, inputs.k, inputs.v, inputs.g, inputs.beta)))
    # 1e-6 beside squared norms of about D.
    assert relative_error(out[0, 0], torch.stack(outputs)) < 1e-6


@pytest.mark.parametrize("reference", [GLA, GATED_DELTA, KDA])
def test_gated_oracles_are_causal_only_and_take_the_inputs_that_they_name(
    reference: Reference, inputs: Inputs
) -> None:
    extra = {name: getattr(inputs, name) for name in reference.inputs or ()}
    assert reference.causal_only
    before = reference(*inputs[:3], causal=True, **extra)
    last = torch.tensor([N - 1])
    changed = {name: x.index_fill(2, last, -1) for name, x in extra.items()}
    after = reference(*(x.index_fill(2, last, 3) for x in inputs[:3]), causal=True, **changed)
    assert torch.equal(before[:, :, :-1], after[:, :, :-1]) and not torch.equal(before, after)
    with pytest.raises(ValueError, match="causal only"):
        reference(*inputs[:3], causal=False, **extra)
