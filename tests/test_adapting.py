"""Functions as their authors write them become kernels, or are refused when they are registered."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attention import Case, get_kernel, list_kernels, make_inputs, register_kernel
from attention.kernels.references import linear_reference
from attention.kernels.registry import _KERNELS

pytestmark = pytest.mark.usefixtures("one_thread")

CASE = Case("mine", "causal", 40, heads=2, head_dim=8)


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attention.kernels.registry._KERNELS", dict(_KERNELS))


def softmax(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    scores = q @ k.mT
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
    return scores.softmax(-1) @ v


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
        return softmax(q * self.scale, k, v, is_causal)


class Called:
    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
        return softmax(q, k, v, causal)


def by_name(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    return softmax(q, k, v, causal)


def by_position(q: Tensor, k: Tensor, v: Tensor, causal: bool, /) -> Tensor:
    return softmax(q, k, v, causal)


def by_any_name(*args: Any, **named: Any) -> Tensor:
    return softmax(*args, **named)


FORMS: list[Any] = [softmax, by_name, by_position, by_any_name, Attention(), Called()]


@pytest.mark.parametrize("function", FORMS, ids=lambda f: getattr(f, "__name__", type(f).__name__))
@pytest.mark.parametrize("mode", ["bidirectional", "causal"])
def test_a_function_gets_its_mode_however_it_takes_it(function: Any, mode: str) -> None:
    kernel = register_kernel("mine", function)
    case = Case("mine", mode, 40, heads=2, head_dim=8)
    q, k, v = make_inputs(case)
    assert kernel.supports(case) is None
    assert torch.equal(kernel.function(q, k, v, causal=case.causal), softmax(q, k, v, case.causal))


def test_a_module_is_copied_to_the_dtype_of_its_inputs() -> None:
    module = Attention()
    kernel = register_kernel("mine", module)
    q, k, v = make_inputs(Case("mine", "causal", 40, dtype="float64", heads=1, head_dim=8))
    assert kernel.function(q, k, v, causal=True).dtype == torch.float64
    assert module.scale.dtype == torch.float32


@pytest.mark.parametrize("causal", [False, True])
def test_a_function_without_a_mode_serves_the_one_that_it_has(causal: bool) -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return softmax(q, k, v, causal)

    kernel = register_kernel("mine", attend)
    has, lacks = ("causal", "bidirectional") if causal else ("bidirectional", "causal")
    assert kernel.supports(Case("mine", has, 100)) is None
    refusal = kernel.supports(Case("mine", lacks, 100))
    assert refusal is not None and f"it is {has}" in refusal


def test_a_function_that_fails_is_not_refused_for_its_mode() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise RuntimeError("no such device")

    kernel = register_kernel("mine", attend)
    assert [kernel.supports(Case("mine", mode, 100)) for mode in ("bidirectional", "causal")] == [None, None]


def test_rounding_and_warnings_do_not_make_a_causal_function_look_ahead() -> None:
    def stable(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        warnings.warn("slow", stacklevel=1)
        scores = (q @ k.mT).masked_fill(torch.ones(q.shape[2], q.shape[2]).triu(1).bool(), -torch.inf)
        weights = (scores - scores.amax()).exp()  # the largest of all, which a later token moves
        return weights / weights.sum(-1, keepdim=True) @ v

    kernel = register_kernel("mine", stable)
    assert kernel.supports(Case("mine", "causal", 100, head_dim=4)) is None
    assert kernel.supports(Case("mine", "bidirectional", 100, head_dim=4)) is not None


def test_a_compiled_function_that_tells_no_arguments_gets_its_mode() -> None:
    kernel = register_kernel("mine", torch.nn.functional.scaled_dot_product_attention)
    q, k, v = make_inputs(CASE)
    for causal in (False, True):
        torch.testing.assert_close(kernel.function(q, k, v, causal=causal), softmax(q / 8**0.5, k, v, causal))


def test_a_mode_that_is_bound_already_is_not_chosen_anew() -> None:
    kernel = register_kernel("mine", partial(softmax, causal=True))
    assert kernel.supports(Case("mine", "causal", 100)) is None
    refusal = kernel.supports(Case("mine", "bidirectional", 100))
    assert refusal is not None and "it is causal" in refusal


def gated(q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, causal: bool) -> Tensor:
    return softmax(q, k, v * g[..., None], causal)


def test_extra_inputs_have_the_shapes_asked_for_and_are_the_same_on_every_call() -> None:
    kernel = register_kernel("mine", gated, inputs={"g": "[B, H, N]"})
    case = Case("mine", "causal", 40, "forward_backward", batch=3, heads=2, head_dim=8)
    (first,), (second,) = (kernel.extra_inputs(case).values() for _ in range(2))
    assert first.shape == (3, 2, 40) and first.requires_grad and torch.equal(first, second)


def test_inputs_that_are_drawn_are_the_same_on_every_call_and_leave_random_numbers_alone() -> None:
    kernel = register_kernel("mine", gated, make_inputs=lambda case: {"g": torch.randn(1, 2, case.seq_len)})
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, other = (kernel.extra_inputs(CASE)["g"] for _ in range(2))
    assert torch.equal(one, other) and torch.equal(torch.rand(1), expected)


def wrong() -> Iterator[tuple[dict[str, Any], type[Exception], str]]:
    yield {"function": 3}, TypeError, "mine must be a function"
    yield {"function": lambda x: x}, TypeError, "must take q, k and v first"
    yield {"function": gated}, TypeError, "takes g beside q, k and v, and nothing gives it"
    yield {"function": gated, "inputs": {"g": "[B, X]"}}, ValueError, "holds 'X'"
    yield {"function": gated, "inputs": {"g": [1, 2]}}, TypeError, "must map arguments to shapes"
    yield {"function": softmax, "inputs": {"g": "[B]"}}, TypeError, "takes no g"
    yield {"function": gated, "inputs": {"g": "[B]"}, "make_inputs": len}, TypeError, "one of them says all"
    yield {"function": softmax, "costs": {}}, TypeError, "costs of mine must be a function of a Case"
    yield {"function": softmax, "supports": "no"}, TypeError, "supports of mine must be a function"
    yield {"function": softmax, "reference": "gated"}, ValueError, "must be a function or one of standard"
    yield {"function": softmax, "name": "a/b"}, ValueError, "must be up to 60 letters"
    yield {"function": softmax, "name": "linear-chunked"}, ValueError, "is registered already"


@pytest.mark.parametrize(("given", "error", "words"), list(wrong()))
def test_what_is_wrong_with_a_registration_is_said_at_registration(
    given: dict[str, Any], error: type[Exception], words: str
) -> None:
    before = list_kernels()
    with pytest.raises(error, match=words) as raised:
        register_kernel(**{"name": "mine", **given})
    assert "\n" not in str(raised.value) and list_kernels() == before


def test_make_inputs_that_return_no_mapping_are_refused_by_name() -> None:
    kernel = register_kernel("mine", gated, make_inputs=lambda case: torch.ones(3))  # type: ignore[return-value, arg-type]
    with pytest.raises(TypeError, match="make_inputs of mine must return the inputs beside q, k and v"):
        kernel.extra_inputs(CASE)


def test_kernels_with_other_inputs_or_functions_are_no_backends_of_their_family() -> None:
    def other(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, **_: Any) -> Tensor:
        return linear_reference(q, k, v, causal=causal, feature_map="relu", dtype=q.dtype)

    register_kernel("linear-relu", other, reference="none")
    with pytest.raises(ValueError, match="backend 'relu' does not exist for linear attention"):
        torch_call("relu")


def torch_call(backend: str) -> Tensor:
    from attention import linear_attention

    q, k, v = make_inputs(CASE)
    return linear_attention(q, k, v, backend=backend)


def test_a_kernel_without_costs_has_none_and_says_so() -> None:
    kernel = register_kernel("mine", softmax)
    assert kernel.known_costs(CASE) is None
    with pytest.raises(ValueError, match="mine was registered without costs"):
        kernel.costs(CASE)
    assert get_kernel("linear-chunked").known_costs(Case("linear-chunked", "causal", 40)) is not None


def test_the_family_of_any_name_is_what_stands_before_its_dash() -> None:
    names: dict[str, Callable[..., Tensor]] = {"mine": softmax, "gate-fast": softmax}
    assert [register_kernel(name, f).family for name, f in names.items()] == ["mine", "gate"]
