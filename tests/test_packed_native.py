"""linear-native on packed sequences: one call, cut into any segments, for each what it is alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from attention import State
from attention.kernels.linear_native import linear_native
from tests.textbook import assert_alike, cut, gradients, tensors, textbook

LENGTHS = (3, 0, 64, 700, 65, 1, 1500, 0, 63)
"""Tokens of packed sequences: of no, one and several segments, and about a chunk."""
ops: Any = torch.ops.attention


def ends(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def flops(lengths: Sequence[int], causal: bool) -> int:
    q, k, v = (x.requires_grad_() for x in tensors(torch.float64, 1, (4, 2), (sum(lengths),) * 2, (6, 5))[:3])
    with FlopCounterMode(display=False) as counter:
        linear_native(q, k, v, causal=causal, cu_seqlens=ends(lengths)).sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_packed_sequences_of_any_segments_equal_the_textbook(
    threads: int, causal: bool, behind: bool
) -> None:
    torch.set_num_threads(threads)
    total, count = sum(LENGTHS), len(LENGTHS)
    inputs = tensors(torch.float64, 1, (2, 1), (total, total), (6, 5))[:3]
    state = tensors(torch.float64, count, (2, 1), (0, 0), (6, 5))[3:] if behind else []
    options: Any = {"causal": causal, "cu_seqlens": ends(LENGTHS)}
    if behind:
        out, last = linear_native(*inputs, **options, initial_state=State(*state), return_state=True)
        found = out, *last
    else:
        found = (linear_native(*inputs, **options),)
    alone = [
        textbook(*cut(inputs, a, b), *(x[i : i + 1] for x in state), causal=causal)
        for i, (a, b) in enumerate(pairwise(ends(LENGTHS).tolist()))
    ]
    outs, *states = zip(*alone, strict=True)
    expected = (torch.cat(outs, 2), *map(torch.cat, states))[: len(found)]
    assert_alike(found, expected, "native")
    upstream, everything = [torch.randn_like(x) for x in expected], [*inputs, *state]
    wanted: Any = [gradients(y, everything, upstream) for y in (found, expected)]
    assert_alike(wanted[0], wanted[1], "native")


@pytest.mark.parametrize("causal", [False, True])
def test_packed_calls_have_tangents_second_derivatives_and_maps(causal: bool) -> None:
    lengths = (3, 0, 70)
    inputs = tuple(tensors(torch.float64, 1, (2, 1), (73, 73), (3, 2))[:3])
    state = tuple(tensors(torch.float64, 3, (2, 1), (0, 0), (3, 2))[3:])

    def whole(*x: Tensor) -> tuple[Tensor, ...]:
        given: Any = {"initial_state": State(*x[3:]), "return_state": True} if x[3:] else {}
        found: Any = linear_native(*x[:3], causal=causal, cu_seqlens=ends(lengths), eps=1.0, **given)
        return (found[0], *found[1]) if x[3:] else (found,)

    for given in (inputs, inputs + state):
        assert torch.autograd.gradgradcheck(whole, given, fast_mode=True)
        along = tuple(map(torch.randn_like, given))
        tangents = torch.func.jvp(whole, given, along)[1]
        step = 1e-6
        ahead, back = (whole(*(x + s * h for x, h in zip(given, along, strict=True))) for s in (step, -step))
        for tangent, a, b in zip(tangents, ahead, back, strict=True):
            assert torch.allclose(tangent, (a - b) / (2 * step), atol=1e-6)
        mapped = torch.func.vmap(whole)(*(torch.stack([x, 2 * x]) for x in given))
        for place, factor in enumerate((1, 2)):
            for x, y in zip(mapped, whole(*(factor * x for x in given)), strict=True):
                assert torch.allclose(x[place], y)


def test_a_packed_call_compiles_as_a_full_graph() -> None:
    inputs = tensors(torch.float32, 1, (2, 1), (200, 200), (6, 5))[:3]
    compiled: Any = torch.compile(linear_native, backend="aot_eager", fullgraph=True)
    for lengths in ((130, 70), (1, 199)):
        options: Any = {"causal": True, "cu_seqlens": ends(lengths)}
        out, expected = (f(*inputs, **options) for f in (compiled, linear_native))
        assert torch.equal(out, expected)
        pairs = (torch.autograd.grad(x.sum(), inputs) for x in (out, expected))
        assert all(map(torch.equal, *pairs))


@pytest.mark.parametrize("behind", [False, True])
def test_ends_that_change_after_a_forward_change_no_gradient(behind: bool) -> None:
    inputs = tensors(torch.float64, 1, (2, 1), (1500, 1500), (6, 5))[:3]
    state = tensors(torch.float64, 2, (2, 1), (0, 0), (6, 5))[3:]
    given: Any = {"initial_state": State(*state)} if behind else {}
    buffer = ends((700, 800))
    out: Any = linear_native(*inputs, causal=True, cu_seqlens=buffer, **given)
    expected = torch.autograd.grad(out.sum(), inputs, retain_graph=True)
    buffer.copy_(ends((10, 1490)))
    assert all(map(torch.equal, torch.autograd.grad(out.sum(), inputs), expected))


def test_one_graph_serves_every_number_of_packed_sequences() -> None:
    inputs = [x.detach() for x in tensors(torch.float32, 1, (2, 1), (400, 400), (6, 5))[:3]]
    compiled: Any = torch.compile(linear_native, backend="eager", fullgraph=True, dynamic=True)
    for count, stance in ((3, "default"), (7, "fail_on_recompile"), (12, "fail_on_recompile")):
        packed = ends([30] * (count - 1) + [400 - 30 * (count - 1)])
        with torch.compiler.set_stance(stance):
            out = compiled(*inputs, causal=True, cu_seqlens=packed)
        assert torch.equal(out, linear_native(*inputs, causal=True, cu_seqlens=packed))


@pytest.mark.parametrize("wrong", [[0, 5, 3, 9], [0, 12], [1, 9], [-3, 9], [0, 4]], ids=str)
def test_wrong_ends_are_refused_by_the_operator_before_memory_is_read(wrong: list[int]) -> None:
    q, k, v = (x.detach() for x in tensors(torch.float32, 1, (1, 1), (9, 9), (4, 4))[:3])
    with pytest.raises(ValueError, match="cu_seqlens must ascend from 0 to the 9 tokens"):
        ops.linear_native(q, k, v, True, "elu", 1e-6, torch.tensor(wrong), False)


@pytest.mark.parametrize(
    "wrong", [torch.tensor([0.0, 4.5, 9]), torch.tensor(9), torch.tensor([], dtype=torch.int64)]
)
def test_ends_that_are_no_row_of_integers_are_refused_by_the_operator(wrong: Tensor) -> None:
    q, k, v = (x.detach() for x in tensors(torch.float32, 1, (1, 1), (9, 9), (4, 4))[:3])
    with pytest.raises(ValueError, match=r"takes cu_seqlens \[sequences \+ 1\] in int32 or int64"):
        ops.linear_native(q, k, v, True, "elu", 1e-6, wrong, False)


@pytest.mark.parametrize("integers", [torch.int32, torch.int64])
def test_ends_of_any_integers_and_strides_are_read_right(integers: torch.dtype) -> None:
    q, k, v = (x.detach() for x in tensors(torch.float64, 1, (1, 1), (90, 90), (4, 4))[:3])
    plain = ends((20, 0, 70))
    spread = torch.stack([plain, plain + 5], 1).to(integers)[:, 0]
    out, expected = (linear_native(q, k, v, causal=True, cu_seqlens=x) for x in (spread, plain))
    assert torch.equal(out, expected)


@pytest.mark.parametrize("causal", [False, True])
def test_flops_of_packed_sequences_are_those_of_each_by_itself(causal: bool) -> None:
    """On one thread: forward and backward, of which a sequence of one chunk is scores alone."""
    torch.set_num_threads(1)
    assert flops((700, 300), causal) == flops((700,), causal) + flops((300,), causal)
    heads, D, Dv, short = 4, 6, 5, 40
    scores = short * (short + 1) // 2 if causal else short**2
    forward = scores * (D + Dv) + short * D
    backward = scores * (3 * (D + Dv) + 2)
    assert flops((short,), causal) == 2 * heads * (forward + backward)
