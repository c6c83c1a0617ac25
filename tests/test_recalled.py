"""Which calls are taken for ones like an earlier call: none that its checks or kernel would not follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from attention import fast_path

OPTIONS = ("auto", True, "elu", 1e-6)


def prepared(*_: Any) -> Callable[..., str]:
    return lambda *_: "again"


def kernel() -> None:
    """A kernel that can be called again."""


kernel.prepared = prepared  # type: ignore[attr-defined]


def tensors(**options: Any) -> tuple[Tensor, Tensor]:
    return torch.ones(2, 3, 8, 16, **options), torch.ones(2, 3, 8, 4, **options)


@pytest.fixture(autouse=True)
def remembered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One call is remembered: of two plain tensors on a CPU."""
    monkeypatch.setattr(fast_path, "DEVICES", ["cpu"])
    fast_path.forget_calls()
    fast_path.remember(kernel, tensors(), OPTIONS)
    assert fast_path.recalled(tensors(), *OPTIONS) is not None
    yield
    fast_path.forget_calls()


def misaligned() -> tuple[Tensor, Tensor]:
    q, k = tensors()
    return torch.empty(q.numel() + 1)[1:].view(q.shape), k


def without_memory() -> tuple[Tensor, Tensor]:
    q, k = tensors()
    q.untyped_storage().resize_(0)
    return q, k


def one_twice() -> tuple[Tensor, Tensor]:
    q, _ = tensors()
    return q, q


@pytest.mark.parametrize(
    "others",
    [
        lambda: tensors(dtype=torch.float64),
        lambda: tensors(device="meta"),
        lambda: tensors(requires_grad=True),
        lambda: (tensors()[0], tensors()[1][:, :, :4]),
        lambda: (tensors()[0].mT.contiguous().mT, tensors()[1]),
        lambda: (torch.nn.Parameter(tensors()[0], requires_grad=False), tensors()[1]),
        lambda: (tensors()[0]._neg_view(), tensors()[1]),
        lambda: (tensors()[0].to_sparse(), tensors()[1]),
        lambda: (tensors()[0], None),
        lambda: (None, tensors()[1]),
        misaligned,
        without_memory,
        one_twice,
    ],
)
def test_other_tensors_are_not_alike(others: Callable[[], Any]) -> None:
    assert fast_path.recalled(others(), *OPTIONS) is None


@pytest.mark.parametrize(
    "options", [("auto", 1, "elu", 1e-6), ("auto", True, "relu", 1e-6), ("auto", True, ["elu"], 1e-6)]
)
def test_other_options_are_not_alike(options: tuple[Any, ...]) -> None:
    """True equals 1, and a list has no hash."""
    assert fast_path.recalled(tensors(), *options) is None


class Looking(TorchFunctionMode):
    """A mode that looks at functions."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that looks at operators."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "around",
    [
        Looking,
        Watching,
        torch.autograd.forward_ad.dual_level,
        torch.autograd.profiler.profile,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    ],
)
def test_a_call_that_is_observed_or_changed_is_not_recalled(
    around: Callable[[], AbstractContextManager[Any]],
) -> None:
    with around():
        assert fast_path.recalled(tensors(), *OPTIONS) is None
    assert fast_path.recalled(tensors(), *OPTIONS) is not None


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.vmap])
def test_a_call_within_a_transform_is_not_recalled(transform: Callable[..., Any]) -> None:
    found = []

    def function(x: Tensor) -> Tensor:
        found.append(fast_path.recalled(tensors(), *OPTIONS))
        return x.sum()

    transform(function)(torch.ones(3))
    assert found == [None]


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("then", [torch.no_grad, torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("now", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_a_call_is_recalled_where_gradients_are_recorded_as_they_were(
    now: Any, then: Any, requires_grad: bool
) -> None:
    fast_path.forget_calls()
    with then():
        fast_path.remember(kernel, tensors(requires_grad=requires_grad), OPTIONS)
    with now():
        found = fast_path.recalled(tensors(requires_grad=requires_grad), *OPTIONS)
    assert (found is not None) == (now is then)


@pytest.mark.parametrize(
    ("around", "given"),
    [
        (nullcontext, lambda: (torch.nn.Parameter(tensors()[0]), tensors()[1])),
        (nullcontext, misaligned),
        (Watching, tensors),
        (lambda: torch.autocast("cpu", dtype=torch.bfloat16), tensors),
    ],
)
def test_what_is_not_recalled_is_not_remembered_either(
    around: Callable[[], AbstractContextManager[Any]], given: Callable[[], Any]
) -> None:
    fast_path.forget_calls()
    with around():
        fast_path.remember(kernel, given(), OPTIONS)
    assert not fast_path._CALLS


def test_few_calls_are_remembered_of_each_shape() -> None:
    """Strides that never come again push out the oldest, and no more memory is taken."""
    for step in range(40):
        q = torch.ones(2, 3, 8, 16 + 4 * step)[..., :16]
        fast_path.remember(kernel, (q, tensors()[1]), OPTIONS)
    (calls,) = fast_path._CALLS.values()
    assert len(calls) == fast_path.MOST_ALIKE
    assert fast_path.recalled((torch.ones(2, 3, 8, 172)[..., :16], tensors()[1]), *OPTIONS) is not None
