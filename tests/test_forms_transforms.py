"""Forms of linear attention compile as one graph, and have derivatives of any mode and order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from attention import linear_attention, linear_attention_step
from attention.kernels.references import relative_error
from attention.state import State
from tests.samples import sampled
from tests.textbook import BACKENDS, assert_alike, attend, gradients, tensors

pytestmark = pytest.mark.usefixtures("one_thread")


def grouped_and_padded(backend: str) -> tuple[Callable[..., Any], list[Tensor]]:
    mask = torch.zeros(2, 70, dtype=torch.bool)
    mask[0, 60:] = True
    inputs = tensors(torch.float32, 2, (4, 2), (40, 70), (8, 6))[:3]
    return lambda q, k, v: linear_attention(
        q, k, v, causal=True, key_padding_mask=mask, backend=backend
    ), inputs


def behind_a_state(backend: str) -> tuple[Callable[..., Any], list[Tensor]]:
    def run(q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor) -> Any:
        given: dict[str, Any] = {"initial_state": State(S, z), "return_state": True}
        out, last = linear_attention(q, k, v, causal=True, backend=backend, **given)
        return (out, *last)

    return run, tensors(torch.float32, 2, (4, 2), (70, 70), (8, 6))


def stepping(backend: str) -> tuple[Callable[..., Any], list[Tensor]]:
    def run(q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor) -> Any:
        out, last = linear_attention_step(q, k, v, State(S, z), backend=backend)
        return (out, *last)

    return run, tensors(torch.float32, 2, (4, 2), (1, 1), (8, 6))


@pytest.mark.parametrize(
    ("backend", "form"),
    sampled(
        BACKENDS,
        (grouped_and_padded, behind_a_state, stepping),
        quick=[("native", behind_a_state)],
    ),
)
def test_a_form_compiles_as_a_full_graph_with_gradients(backend: str, form: Callable[..., Any]) -> None:
    run, inputs = form(backend)
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    got, expected = (pytree.tree_leaves(function(*inputs)) for function in (compiled, run))
    upstream = [torch.randn_like(x) for x in expected]
    pairs = [(*y, *gradients(y, inputs, upstream)) for y in (got, expected)]
    assert all(relative_error(a, b) < 1e-5 for a, b in zip(*pairs, strict=True))
    with torch.no_grad():
        plain = [pytree.tree_leaves(function(*inputs)) for function in (compiled, run)]
    assert all(relative_error(a, b) < 1e-5 for a, b in zip(*plain, strict=True))


@pytest.mark.parametrize(
    ("backend", "causal"),
    sampled(["chunked", "native"], [False, True], quick=[("native", True)]),
)
def test_derivatives_of_any_mode_and_order_flow_through_states(backend: str, causal: bool) -> None:
    def run(q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        given: dict[str, Any] = {"initial_state": State(S, z), "return_state": True}
        out, last = linear_attention(q, k, v, causal=causal, backend=backend, **given)
        return out, *last

    inputs = tensors(torch.float64, 1, (2, 1), (2, 2), (2, 2))
    assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run, inputs, check_fwd_over_rev=True)
    many = [torch.stack([x.detach(), -x.detach().abs(), x.detach() ** 2]) for x in inputs[:4]]
    many.append(torch.rand(3, *inputs[4].shape, dtype=torch.float64))
    mapped = torch.vmap(run)(*many)
    for i, found in enumerate(zip(*mapped, strict=True)):
        assert_alike(found, run(*(x[i] for x in many)), backend)


@pytest.mark.parametrize(
    ("backend", "causal"),
    sampled(["chunked", "native"], [False, True], quick=[("chunked", False)]),
)
def test_derivatives_of_grouped_heads_are_right_in_any_mode_and_order(backend: str, causal: bool) -> None:
    inputs = tensors(torch.float64, 1, (2, 1), (2, 2 if causal else 3), (2, 2))[:3]

    def run(*x: Tensor) -> Tensor:
        found: Tensor = attend(*x, causal=causal, backend=backend)
        return found

    assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize(
    ("name", "causal", "kept"),
    sampled(("native", "chunked"), [False, True], [False, True], quick=[("native", True, True)]),
)
def test_the_operators_of_states_are_as_torch_wants_them(name: str, causal: bool, kept: bool) -> None:
    operator = getattr(torch.ops.attention, f"linear_{name}_with_state").default
    options = (causal, "elu", 1e-6, 32 if name == "chunked" else None, kept)
    inputs = tensors(torch.float32, 2, (4, 2), (70, 70), (8, 6))
    if not (kept and name == "native"):
        inputs = [x.detach() for x in inputs]
    torch.library.opcheck(operator, (*inputs, *options))


def test_the_operators_of_steps_are_as_torch_wants_them() -> None:
    one = [x.detach() for x in tensors(torch.float32, 2, (4, 2), (3, 3), (8, 6))]
    for name in ("linear_native_step", "linear_native_step_"):
        torch.library.opcheck(getattr(torch.ops.attention, name).default, (*one, "elu", 1e-6))
