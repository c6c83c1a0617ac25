"""Packed sequences in the Gluon passes of linear-triton, on a Hopper card: as each of them alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from attention import linear_attention
from attention.kernels.linear_triton.gluon.launches import GluonLaunches
from attention.kernels.linear_triton.plan_cache import launches
from attention.kernels.references import TOLERANCES, gradient_error, linear_reference, relative_error

FORWARD, BACKWARD = TOLERANCES[torch.bfloat16]
LENGTHS = {
    "one": [1000],
    "of each kind": [0, 1, 130, 0, 700, 127, 128, 129, 0, 3, 900, 1, 1, 250, 0],
    "whole chunks": [128, 256, 128, 512, 384, 128],
    "short": [7] * 90,
    "long between short": [5, 20, 4000, 3, 90, 2000, 11],
}


def inputs(card: str, heads: int, kv_heads: int, total: int, width: int, value_dim: int) -> list[Tensor]:
    """q, k, v and do, ``[1, H, total, D]`` in the memory layout of a layer's projections."""
    generator = torch.Generator().manual_seed(3)
    shapes = (heads, width), (kv_heads, width), (kv_heads, value_dim), (heads, value_dim)
    made = [
        torch.randn(1, total, count, wide, generator=generator).to(card, torch.bfloat16).transpose(1, 2)
        for count, wide in shapes
    ]
    return [x.requires_grad_() for x in made[:3]] + made[3:]


def alone(cu_seqlens: list[int], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The oracle of each sequence by itself."""
    group = q.shape[1] // k.shape[1]
    parts = [
        linear_reference(
            *(x[:, :, begin:end] for x in (q, *(y.repeat_interleave(group, 1) for y in (k, v)))), causal=True
        )
        for begin, end in pairwise(cu_seqlens)
        if begin < end
    ]
    return torch.cat(parts, 2)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "width", "value_dim"), [(2, 2, 128, 128), (3, 3, 80, 112), (4, 2, 128, 128)]
)
@pytest.mark.parametrize("kind", LENGTHS)
def test_packed_sequences_equal_the_oracle_of_each_alone_and_repeat_their_bits(
    kind: str, heads: int, kv_heads: int, width: int, value_dim: int, card: str
) -> None:
    cu_seqlens = torch.tensor([0, *LENGTHS[kind]]).cumsum(0).to(card, torch.int32)
    q, k, v, do = inputs(card, heads, kv_heads, sum(LENGTHS[kind]), width, value_dim)
    planned = launches(q, k, v, True, "elu", "ieee", others=(do,), cu_seqlens=cu_seqlens)
    assert isinstance(planned, GluonLaunches)
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    reference = alone(cu_seqlens.tolist(), *exact)
    wanted = torch.autograd.grad(reference, exact, do.double())
    results = []
    for _ in range(2):
        out = linear_attention(q, k, v, causal=True, cu_seqlens=cu_seqlens, backend="triton")
        results.append((out, *torch.autograd.grad(out, (q, k, v), do)))
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))
    with torch.no_grad():
        inferred = linear_attention(q, k, v, causal=True, cu_seqlens=cu_seqlens, backend="triton")
    assert relative_error(inferred, reference) < FORWARD
    assert relative_error(results[0][0], reference) < FORWARD
    assert gradient_error(results[0][1:], wanted) < BACKWARD


def test_nothing_of_one_sequence_reaches_another(card: str) -> None:
    """Other queries, keys and values of a sequence change no bit of the results of all others."""
    lengths = [300, 200, 1, 500]
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).to(card, torch.int32)
    q, k, v, do = inputs(card, 2, 2, sum(lengths), 128, 128)

    def of_others() -> list[Tensor]:
        out = linear_attention(q, k, v, causal=True, cu_seqlens=cu_seqlens, backend="triton")
        found = [out, *torch.autograd.grad(out, (q, k, v), do)]
        return [torch.cat([x[:, :, :300], x[:, :, 500:]], 2) for x in found]

    before = of_others()
    with torch.no_grad():
        for x in (q, k, v):
            x[:, :, 300:500] *= -3
    assert all(torch.equal(x, y) for x, y in zip(before, of_others(), strict=True))
