"""Dispatch: an operator is called past torch's dispatcher, but not while something observes operators."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd.profiler import profile
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from attention.kernels.dispatch import implements
from attention.kernels.linear_native import linear_native
from attention.torch_internals.dispatcher import FOREIGN_KEYS, needs_dispatcher

torch.library.define("attention::test_double", "(Tensor q, Tensor k, Tensor v) -> Tensor")
Mode = Callable[[], AbstractContextManager[object]]
Key = torch._C.DispatchKey


@implements("test_double", "cpu")
def double(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return 2 * v


@torch.library.register_fake("attention::test_double")  # type: ignore[untyped-decorator]
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.empty_like(v)


class Kind(Tensor):
    """A subclass of Tensor."""


@pytest.mark.parametrize(
    "mode", [nullcontext, torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_plain_tensors_are_called_without_dispatch(mode: Mode) -> None:
    with mode():
        x = torch.ones(2)
        assert not needs_dispatcher(x, x, x)


def test_plain_tensors_on_a_card_are_called_without_dispatch() -> None:
    """A fake tensor stands for one on a card: it has the dispatch keys of its device and two of fakes."""
    with FakeTensorMode():
        keys = torch._C._dispatch_keys(torch.ones(2, device="cuda"))
    for of_fakes in (Key.Python, Key.PythonTLSSnapshot):
        keys = keys.remove(of_fakes)
    assert FOREIGN_KEYS is not None
    assert keys.has(Key.CUDA) and keys.raw_repr() & FOREIGN_KEYS == 0


@pytest.mark.parametrize(
    "mode", [lambda: FlopCounterMode(display=False), TorchFunctionMode, lambda: profile(use_cpu=True)]
)
def test_counters_modes_and_profilers_ask_for_dispatch(mode: Mode) -> None:
    x = torch.ones(2)
    with mode():
        assert needs_dispatcher(x, x, x)


@pytest.mark.parametrize("place", range(4))
def test_tensors_that_are_not_plain_ask_for_dispatch_at_every_argument_place(place: int) -> None:
    x = torch.ones(2)
    zeros = torch._efficientzerotensor(2)
    for odd in (x.as_subclass(Kind), torch._neg_view(x), zeros, x.to_sparse(), x.to("meta")):
        arguments = [x] * 4
        arguments[place] = odd
        assert needs_dispatcher(*arguments)


def test_a_backward_without_dispatch_takes_the_sign_of_a_negated_view() -> None:
    """Values come after do, q and k in a backward, and are handed on as addresses."""
    q, k, x, do = (torch.randn(1, 2, 70, 8) for _ in range(4))
    q.requires_grad_()
    got, wanted = (
        torch.autograd.grad(linear_native(q, k, v, causal=True), q, do)[0]
        for v in (torch._neg_view(x), x.neg())
    )
    assert torch.equal(got, wanted)


def test_dispatch_shows_the_operator_to_a_profiler() -> None:
    x = torch.ones(2)
    with profile(use_cpu=True) as profiled:
        double(x, x, x)
    assert "attention::test_double" in [event.name for event in profiled.function_events or []]


@pytest.mark.parametrize("pre_dispatch", [False, True])
def test_dispatch_shows_the_operator_to_a_tracer(pre_dispatch: bool) -> None:
    x = torch.ones(2)
    traced = make_fx(double, pre_dispatch=pre_dispatch)(x, x, x)
    assert "attention.test_double" in traced.code
    assert torch.equal(torch.compile(double, backend="eager", fullgraph=True)(x, x, x), 2 * x)
