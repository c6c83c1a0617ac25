"""States of linear attention: a sequence in parts or step by step equals the whole, gradients included."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from attention import linear_attention, linear_attention_step
from attention.kernels.references import relative_error
from attention.state import State
from tests.textbook import BACKENDS, assert_alike, attend, cut, gradients, step, tensors, textbook, wide_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequence_split_anywhere_equals_the_whole(backend: str, seed: int) -> None:
    torch.manual_seed(seed)
    draw, tokens = random.Random(seed), 150
    q, k, v, *_ = tensors(wide_of(backend), 2, (4, 2), (tokens, tokens), (8, 5))
    whole, end = linear_attention(q, k, v, causal=True, return_state=True, backend=backend)
    cuts = sorted(draw.choices(range(tokens + 1), k=draw.choice([1, 3, 6])))  # some twice: parts of no tokens
    state, parts = None, []
    for a, b in pairwise([0, *cuts, tokens]):
        given: Any = {} if state is None else {"initial_state": state}
        some = cut((q, k, v), a, b)
        out, state = attend(*some, causal=True, return_state=True, backend=backend, **given)
        parts.append(out)
    assert state is not None
    joined = (torch.cat(parts, 2), *state)
    assert_alike(joined, [x.double() for x in (whole, *end)], backend)
    upstream = [torch.randn_like(x) for x in joined]
    pairs = [gradients(y, (q, k, v), upstream) for y in (joined, (whole, *end))]
    assert_alike(pairs[0], [x.double() for x in pairs[1]], backend)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("blocks", [(1,) * 9, (4, 1, 3, 1), (0, 20, 2)], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_step_by_step_equals_a_prefill(backend: str, blocks: tuple[int, ...], in_place: bool) -> None:
    tokens, dtype = sum(blocks), wide_of(backend)
    q, k, v, *_ = (x.detach() for x in tensors(dtype, 2, (6, 2), (tokens, tokens), (9, 21)))
    whole, end = linear_attention(q, k, v, causal=True, return_state=True, backend=backend)
    state, parts = State.empty(2, 2, 9, 21, dtype=dtype), []
    first = state  # alive, so that no other tensor takes its place
    for stop, count in zip(torch.tensor(blocks).cumsum(0).tolist(), blocks, strict=True):
        some = cut((q, k, v), stop - count, stop)
        out, state = step(*some, state, in_place=in_place, backend=backend)
        parts.append(out)
    assert_alike((torch.cat(parts, 2), *state), [x.double() for x in (whole, *end)], backend)
    same = [x.data_ptr() == y.data_ptr() for x, y in zip(state, first, strict=True)]
    assert same == [in_place, in_place]


@pytest.mark.parametrize("narrow", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("group", [1, 4])
def test_a_step_of_linear_native_keeps_a_float32_state_of_narrow_tokens(
    narrow: torch.dtype, group: int
) -> None:
    for tokens, widths in ((1, (64, 64)), (3, (7, 33)), (16, (20, 130))):
        q, k, v, S, z = tensors(torch.float32, 2, (2 * group, 2), (tokens, tokens), widths)
        q, k, v = (x.detach().to(narrow) for x in (q, k, v))
        state = State(S.detach(), z.detach())
        out, last = linear_attention_step(q, k, v, state, backend="native")
        expected, *end = textbook(q, k, v, *state, causal=True)
        assert out.dtype == narrow and last.dtype == torch.float32
        assert relative_error(out, expected) < max(1e-5, torch.finfo(narrow).eps)
        assert all(relative_error(a, b) < 1e-6 for a, b in zip(last, end, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_has_gradients_of_its_tokens_and_its_state(backend: str) -> None:
    inputs = tensors(wide_of(backend), 1, (4, 2), (2, 2), (6, 5))
    out, last = step(*inputs[:3], State(*inputs[3:]), backend=backend)
    expected = textbook(*inputs, causal=True)
    upstream = [torch.randn_like(x) for x in expected]
    pairs: Any = [gradients(y, inputs, upstream) for y in ((out, *last), expected)]
    assert_alike(pairs[0], pairs[1], backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_casts_the_tokens_and_not_the_state(backend: str) -> None:
    if backend == "triton":
        pytest.skip("Triton's interpreter computes bfloat16 wrongly")
    q, k, v, S, z = (x.detach() for x in tensors(torch.float32, 1, (4, 2), (30, 30), (8, 8)))
    with torch.autocast("cpu", torch.bfloat16):
        given: dict[str, Any] = {"initial_state": State(S, z), "return_state": True}
        out, last = linear_attention(q, k, v, causal=True, backend=backend, **given)
        one, after = step(*cut((q, k, v), 0, 1), State(S, z), backend=backend)
    expected, end, _ = textbook(q.bfloat16(), k.bfloat16(), v.bfloat16(), S, z, causal=True)
    assert out.dtype == one.dtype == torch.bfloat16 and last.dtype == after.dtype == torch.float32
    assert relative_error(out, expected) < 0.01 and relative_error(last.S, end) < 0.01
    assert relative_error(one, expected[:, :, :1]) < 0.01


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backward_says_that_a_step_in_place_has_overwritten_what_it_saved(backend: str) -> None:
    q, k, v, S, z = (x.detach() for x in tensors(torch.float32, 1, (2, 2), (1, 1), (4, 4)))
    factor = torch.ones((), requires_grad=True)
    loss = (factor * S).sum()
    with torch.no_grad():
        step(q, k, v, State(S, z), in_place=True, backend=backend)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, factor)


def test_a_state_is_a_tuple_that_tells_its_size_and_moves() -> None:
    state = State.empty(2, 3, 4, 5)
    assert state.S.shape == (2, 3, 4, 5) and state.z.shape == (2, 3, 4) and not state.S.any()
    assert state.bytes == 4 * (2 * 3 * 4 * 5 + 2 * 3 * 4)
    assert (state.kv_heads, state.dtype, state.device.type) == (3, torch.float32, "cpu")
    assert State.empty(1, 1, 4).S.shape == (1, 1, 4, 4)
    double = state.to(torch.float64)
    assert isinstance(double, State) and double.dtype == torch.float64 and double.bytes == 2 * state.bytes
    copy = state.clone()
    copy.S.add_(1)
    assert not state.S.any()
    learned = State(state.S.clone().requires_grad_(), state.z)
    assert not learned.detach().S.requires_grad
    again = pytree.tree_map(lambda x: x + 1, state)
    assert isinstance(again, State) and bool((again.z == 1).all())
