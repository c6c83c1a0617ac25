"""A compiled graph serves every length, whether torch is told so or finds it out from a second length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from attention import (
    MultiheadAttention,
    SelfAttention,
    linear_attention,
    standard_attention,
    window_attention,
)
from attention.state import State
from tests.samples import sampled

pytestmark = pytest.mark.usefixtures("one_thread")
Inputs = Callable[[int], list[Tensor]]


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def assert_serves_every_length(function: Callable[..., Any], inputs: Inputs, dynamic: bool | None) -> None:
    """Outputs and gradients of the compiled function are its own, and a third length compiles nothing.

    Lengths are symbols where ``dynamic``; where that is None, from the second length on. All are beyond a
    chunk: up to one linear-chunked takes another way, which has a graph of its own.
    """
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for tokens, stance in ((100, "default"), (113, "default"), (126, "fail_on_recompile")):
        given = inputs(tokens)
        with torch.compiler.set_stance(stance):
            got = compiled(*given)
        expected = function(*given)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        wanted = [x for x in given if x.requires_grad]
        pairs = [torch.autograd.grad(y.sin().sum(), wanted) for y in (got, expected)]
        torch.testing.assert_close(*pairs, rtol=1e-3, atol=1e-4)


def padding(tokens: int) -> Tensor:
    return torch.arange(tokens) >= torch.tensor([[tokens - 7], [tokens]])


def drawn(heads: tuple[int, int], queries: int, keys: int) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = (2, heads[0], queries, 8), (2, heads[1], keys, 8), (2, heads[1], keys, 8)
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def with_state(tokens: int) -> list[Tensor]:
    S, z = torch.randn(2, 2, 8, 8), torch.rand(2, 2, 8) + 0.5
    return [*drawn((4, 2), tokens, tokens), S.requires_grad_(), z.requires_grad_()]


FORMS: dict[str, Inputs] = {
    "plain": lambda n: drawn((4, 4), n, n),
    "few": lambda n: drawn((4, 2), n - 30, n),
    "padded": lambda n: [*drawn((4, 2), n - 30, n), padding(n)],
    "state": with_state,
}


@pytest.mark.parametrize(
    ("backend", "form", "dynamic"),
    [
        ("sdpa-math", "plain", True),
        ("sdpa-flash", "few", None),
        pytest.param("sdpa-math", "padded", None, marks=pytest.mark.slow),
        pytest.param("sdpa-flash", "padded", True, marks=pytest.mark.slow),
    ],
)
def test_a_graph_of_standard_attention_serves_every_length(
    backend: str, form: str, dynamic: bool | None
) -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return standard_attention(q, k, v, causal=True, key_padding_mask=mask, backend=backend)

    assert_serves_every_length(attend, FORMS[form], dynamic)


@pytest.mark.parametrize(("backend", "form"), sampled(["chunked", "native"], ["padded", "state"], quick=[]))
def test_a_graph_of_linear_attention_serves_every_length(backend: str, form: str) -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return linear_attention(q, k, v, causal=True, key_padding_mask=mask, backend=backend)

    def behind(q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor) -> Tensor:
        out, last = linear_attention(
            q, k, v, causal=True, initial_state=State(S, z), return_state=True, backend=backend
        )
        return torch.cat([out.flatten(), last.S.flatten(), last.z.flatten()])

    assert_serves_every_length(behind if form == "state" else attend, FORMS[form], True)


@pytest.mark.parametrize(("name", "layers"), sampled(["linear", "standard"], [1, 2], quick=[("linear", 1)]))
def test_a_graph_of_layers_with_padding_serves_every_length(name: str, layers: int) -> None:
    every = torch.nn.ModuleList(SelfAttention(32, 4, num_kv_heads=2, kernel=name) for _ in range(layers))

    def run(x: Tensor, mask: Tensor) -> Tensor:
        for layer in every:
            x = layer(x, mask)
        return x

    def inputs(tokens: int) -> list[Tensor]:
        return [torch.randn(2, tokens, 32, requires_grad=True), padding(tokens)]

    assert_serves_every_length(run, inputs, True)


@pytest.mark.slow
def test_a_graph_of_a_layer_in_the_place_of_torchs_serves_every_length() -> None:
    layer = MultiheadAttention(32, 4, batch_first=True)

    def run(x: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = layer(x, x, x, mask)[0]
        return out

    def inputs(tokens: int) -> list[Tensor]:
        return [torch.randn(2, tokens, 32, requires_grad=True), padding(tokens)]

    assert_serves_every_length(run, inputs, True)


@pytest.mark.slow
def test_a_graph_of_a_window_serves_every_length() -> None:
    attend = partial(window_attention, window=16, backend="sdpa")
    assert_serves_every_length(lambda *x: attend(*x), FORMS["plain"], None)


@pytest.mark.parametrize("function", [partial(linear_attention, backend="chunked"), standard_attention])
def test_packed_sequences_are_refused_in_a_whole_graph_and_right_beside_one(function: Any) -> None:
    ends = torch.tensor([0, 20, 70])
    tensors = [x[:1].detach() for x in drawn((4, 2), 70, 70)]

    def attend(*x: Tensor) -> Tensor:
        found: Tensor = function(*x, causal=True, cu_seqlens=ends) + 1
        return found

    with pytest.raises(Exception, match="a graph has no values of cu_seqlens"):
        torch.compile(attend, backend="eager", fullgraph=True)(*tensors)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(attend, backend="eager")(*tensors), attend(*tensors))
