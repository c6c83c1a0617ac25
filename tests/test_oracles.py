"""The oracles of standard and linear attention in all forms, against what they must equal."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from attention import Case, State, get_kernel, register_kernel
from attention.kernels.feature_maps import elu
from attention.kernels.forms.masks import sequences
from attention.kernels.references import errors_against_reference, linear_reference, standard_reference
from attention.kernels.registry import _KERNELS

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTHS = ((6, 6), (1, 6), (4, 9), (9, 4), (3, 0), (0, 3))


def drawn(queries: int, keys: int, kv_heads: int = 2, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Standard normal q of four heads, k and v in float64."""
    generator = torch.Generator().manual_seed(queries + 100 * keys)
    shapes = (batch, 4, queries, 5), (batch, kv_heads, keys, 5), (batch, kv_heads, keys, 3)
    q, k, v = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return q, k, v


def weights_seen(family: str, q: Tensor, k: Tensor) -> Tensor:
    """The weights of all pairs before any is hidden, of a head."""
    return (q @ k.mT / math.sqrt(q.shape[-1])).exp() if family == "standard" else elu(q) @ elu(k).mT


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("family", ["standard", "linear"])
def test_an_oracle_sums_over_the_pairs_of_an_explicit_mask(
    family: str, lengths: tuple[int, int], causal: bool, padded: bool
) -> None:
    """A pair at a time: key j is seen where Nq - 1 - i, from the end, is at most Nk - 1 - j."""
    (queries, keys), kv_heads = lengths, 2
    q, k, v = drawn(*lengths)
    padding = torch.rand(2, keys, generator=torch.Generator().manual_seed(0)) < 0.5
    reference = standard_reference if family == "standard" else linear_reference
    out = reference(q, k, v, causal=causal, key_padding_mask=padding if padded else None)
    for b, h, i in ((b, h, i) for b in range(2) for h in range(4) for i in range(queries)):
        shared = h // (4 // kv_heads)
        weights = weights_seen(family, q[b, h, i : i + 1], k[b, shared])[0]
        for j in range(keys):
            if (causal and queries - i > keys - j) or (padded and padding[b, j]):
                weights[j] = 0
        total = weights.sum() + (0 if family == "standard" else 1e-6)
        expected = weights @ v[b, shared] / total if total > 0 else torch.zeros(3, dtype=torch.float64)
        torch.testing.assert_close(out[b, h, i], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("family", ["standard", "linear"])
def test_of_packed_sequences_an_oracle_is_that_of_each(family: str, causal: bool) -> None:
    q, k, v = drawn(9, 9, batch=1)
    reference = standard_reference if family == "standard" else linear_reference
    packed = reference(q, k, v, causal=causal, cu_seqlens=torch.tensor([0, 0, 4, 5, 5, 9]))
    each = [reference(*(x[:, :, a:b] for x in (q, k, v)), causal=causal) for a, b in ((0, 4), (4, 5), (5, 9))]
    torch.testing.assert_close(packed, torch.cat(each, 2), rtol=1e-13, atol=0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("split", [0, 1, 5, 8])
def test_the_linear_oracle_goes_on_behind_its_own_state(split: int, causal: bool) -> None:
    q, k, v = drawn(8, 8)
    whole, last = linear_reference(q, k, v, causal=causal, return_state=True)
    parts = [tuple(x[:, :, place] for x in (q, k, v)) for place in (slice(split), slice(split, None))]
    first, state = linear_reference(*parts[0], causal=causal, return_state=True)
    second, end = linear_reference(*parts[1], causal=causal, initial_state=state, return_state=True)
    for got, wanted in zip(end, last, strict=True):
        torch.testing.assert_close(got, wanted)
    # Bidirectional, the first queries do not see what came later.
    torch.testing.assert_close(second, whole[:, :, split:])
    if causal:
        torch.testing.assert_close(first, whole[:, :, :split])
    torch.testing.assert_close(last.S, elu(k).mT @ v)
    torch.testing.assert_close(last.z, elu(k).sum(2))


def test_packed_sequences_of_the_linear_oracle_have_a_state_each() -> None:
    q, k, v = drawn(9, 9, batch=1)
    begun = State(torch.rand(3, 2, 5, 3, dtype=torch.float64), torch.rand(3, 2, 5, dtype=torch.float64))
    out, last = linear_reference(
        q, k, v, causal=True, cu_seqlens=torch.tensor([0, 4, 4, 9]), initial_state=begun, return_state=True
    )
    for i, place in enumerate((slice(0, 4), slice(4, 4), slice(4, 9))):
        own = State(begun.S[i : i + 1], begun.z[i : i + 1])
        parts = (x[:, :, place] for x in (q, k, v))
        one, end = linear_reference(*parts, causal=True, initial_state=own, return_state=True)
        torch.testing.assert_close(out[:, :, place], one)
        torch.testing.assert_close((last.S[i : i + 1], last.z[i : i + 1]), tuple(end))


@pytest.mark.parametrize("phase", ["forward", "forward_backward", "prefill", "decode"])
@pytest.mark.parametrize("name", ["standard-explicit", "standard-sdpa", "linear-explicit"])
def test_a_kernel_is_compared_at_the_shapes_of_its_case(name: str, phase: str) -> None:
    for kv_heads, query_len in ((2, None), (4, 5), (1, 90)):
        case = Case(name, "causal", 400, phase, heads=4, head_dim=16, kv_heads=kv_heads, query_len=query_len)
        assert errors_against_reference(case).within(case)


@pytest.mark.parametrize(("phase", "part"), [("prefill", "S"), ("prefill", "z"), ("decode", "S")])
def test_a_wrong_state_is_found(phase: str, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attention.kernels.registry._KERNELS", dict(_KERNELS))
    right = get_kernel("linear-explicit").function

    def attend(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Any:
        found = right(q, k, v, **options)
        if not options.get("return_state"):
            return found
        out, state = found
        return out, state._replace(**{part: 1.01 * getattr(state, part)})

    register_kernel("linear-forgetful", attend)
    case = Case("linear-forgetful", "causal", 40, phase)
    assert not errors_against_reference(case).within(case)


@pytest.mark.parametrize("ends", [[1, 6], [0, 7, 5], [0, 4]])
def test_ends_that_had_to_be_waited_for_are_checked_as_well(ends: list[int]) -> None:
    with pytest.raises(ValueError, match="cu_seqlens must ascend from 0 to the 5 tokens"):
        sequences(torch.tensor(ends), 5)
