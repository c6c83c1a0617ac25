"""Which function a kernel computes is found out, or checked where it claims one, at every length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from attention import Case, get_kernel, register_kernel
from attention.kernels.references import linear_reference
from attention.kernels.registry import _KERNELS
from benchmarks.computed import compute_long, compute_short
from tests.own import elu_attention, relu_attention, softmax_attention, window_attention

pytestmark = pytest.mark.usefixtures("one_thread")

Attend = Callable[..., Tensor]
SHORT, LONG = 100, 700
CASE = Case("mine", "causal", LONG, heads=2, head_dim=16)


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attention.kernels.registry._KERNELS", dict(_KERNELS))


def function_of(attend: Attend, case: Case = CASE, **options: Any) -> str | None:
    """The name of the function that a case computes; None where it is none that is known."""
    register_kernel("mine", attend, **options)
    short = compute_short(replace(case, seq_len=SHORT), case)
    assert short.fault is None
    found = compute_long(case, short)
    return found and found.reference.name


@pytest.mark.parametrize("phase", ["forward", "forward_backward"])
@pytest.mark.parametrize("mode", ["bidirectional", "causal"])
@pytest.mark.parametrize(
    ("attend", "name"),
    [
        (softmax_attention, "softmax attention"),
        (elu_attention, "linear attention with elu + 1"),
        (relu_attention, None),
    ],
)
def test_the_function_of_a_kernel_is_found_out(
    attend: Attend, name: str | None, mode: str, phase: str
) -> None:
    assert function_of(attend, replace(CASE, mode=mode, phase=phase)) == name


def test_a_function_that_is_another_one_beyond_some_length_is_called_so_there() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        return window_attention(q, k, v, 300)

    case = replace(CASE, seq_len=200)
    assert function_of(attend, case) == "softmax attention"
    assert compute_long(CASE, compute_short(replace(CASE, seq_len=SHORT), CASE)) is None


def test_a_kernel_that_claims_a_function_and_misses_it_fails() -> None:
    register_kernel("mine", relu_attention, reference="linear")
    found = compute_short(replace(CASE, seq_len=SHORT), CASE)
    assert found.fault is not None and found.fault.startswith("wrong result at N = 100: relative error")


def test_a_kernel_that_claims_a_function_and_leaves_it_at_some_length_fails_there() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        return elu_attention(q, k, v, causal) * (2 if q.shape[2] == LONG else 1)

    register_kernel("mine", attend, reference="linear")
    short = compute_short(replace(CASE, seq_len=SHORT), CASE)
    with pytest.raises(AssertionError, match=f"wrong result at N = {LONG}"):
        compute_long(CASE, short)


def relu_reference(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    return linear_reference(q, k, v, causal=causal, feature_map="relu")


@pytest.mark.parametrize("mode", ["bidirectional", "causal"])
def test_a_kernel_is_held_to_an_oracle_of_its_own(mode: str) -> None:
    assert function_of(relu_attention, replace(CASE, mode=mode), reference=relu_reference) == "relu_reference"


def test_a_causal_kernel_that_leaves_its_own_oracle_at_some_length_fails_there() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        return relu_attention(q, k, v, causal) * (1.01 if q.shape[2] == LONG else 1)

    register_kernel("mine", attend, reference=relu_reference)
    short = compute_short(replace(CASE, seq_len=SHORT), CASE)
    with pytest.raises(AssertionError, match=f"wrong result at N = {LONG}"):
        compute_long(CASE, short)


def test_an_oracle_of_its_own_gets_float64_and_the_extra_inputs() -> None:
    seen: list[torch.dtype] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, bias: Tensor) -> Tensor:
        return softmax_attention(q, k, v + bias[..., None], causal)

    def oracle(q: Tensor, k: Tensor, v: Tensor, causal: bool, bias: Tensor) -> Tensor:
        seen.extend(x.dtype for x in (q, k, v, bias))
        return softmax_attention(q, k, v + bias[..., None], causal)

    options = {"reference": oracle, "inputs": {"bias": "[B, H, N]"}}
    case = replace(CASE, phase="forward_backward")
    assert function_of(attend, case, **options) == oracle.__qualname__
    assert set(seen) == {torch.float64}


def test_inputs_that_only_some_lengths_have_are_made_at_lengths_that_are_measured() -> None:
    def make(case: Case) -> dict[str, Tensor]:
        assert case.seq_len in (SHORT, LONG)
        return {"bias": torch.zeros(case.heads, 1, 1)}

    def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, bias: Tensor) -> Tensor:
        return softmax_attention(q, k, v, causal) + bias

    assert function_of(attend, make_inputs=make) == "softmax attention"


def test_a_function_that_has_no_oracle_is_looked_at_all_the_same() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        out = relu_attention(q, k, v, causal)
        return out * torch.nan if q.shape[2] == LONG else out

    register_kernel("mine", attend, reference="none")
    short = compute_short(replace(CASE, seq_len=SHORT), CASE)
    with pytest.raises(AssertionError, match="numbers of the output are not finite"):
        compute_long(CASE, short)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda out: (out, None), "is no tensor but tuple"),
        (lambda out: out[..., :3], "has shape (1, 2, 100, 3)"),
    ],
)
def test_a_result_of_another_kind_or_shape_is_told(result: Callable[[Tensor], Any], words: str) -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Any:
        return result(softmax_attention(q, k, v, causal))

    register_kernel("mine", attend)
    with pytest.raises(AssertionError) as raised:
        compute_short(replace(CASE, seq_len=SHORT, batch=1), CASE)
    assert words in str(raised.value)


def test_a_kernel_that_changes_its_inputs_fails() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        out = softmax_attention(q, k, v, causal)
        k.mul_(0.5)
        return out

    register_kernel("mine", attend)
    with pytest.raises(AssertionError, match="it changes k in place"):
        compute_short(replace(CASE, seq_len=SHORT), CASE)


def test_the_nearest_function_is_told_of_one_that_misses_it() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        q, k, v = (x.bfloat16() for x in (q, k, v))
        return softmax_attention(q, k, v, causal).float()

    register_kernel("mine", attend)
    found = compute_short(replace(CASE, seq_len=SHORT), CASE)
    assert not found.candidates and found.nearest is not None
    assert found.nearest.reference.name == "softmax attention" and 1e-3 < found.nearest.errors.output < 1e-1


def test_an_oracle_that_returns_no_tensor_is_told() -> None:
    register_kernel("mine", softmax_attention, reference=lambda q, k, v, causal: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(AssertionError, match="returns no tensor but NoneType"):
        compute_short(replace(CASE, seq_len=SHORT), CASE)


def test_built_in_kernels_claim_the_functions_of_their_families() -> None:
    for name in ("standard-sdpa", "linear-chunked"):
        case = replace(CASE, kernel=name)
        (found,) = compute_short(replace(case, seq_len=SHORT), case).candidates
        assert get_kernel(name).reference == case.family and found.errors.within(case)
