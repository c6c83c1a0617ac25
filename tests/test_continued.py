"""What linear-triton refuses to serve or to continue from, in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attention import Case, get_kernel
from attention.kernels.linear_triton.kernel import linear_triton_with_state

X = torch.ones(1, 2, 3, 4)
S, Z = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4)


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.mark.parametrize("state", [3, (S,), (S, None), (S, Z.to_sparse()), "Sz"])
def test_a_state_that_is_no_pair_of_dense_tensors_is_a_type_error(state: Any) -> None:
    with pytest.raises(TypeError, match="a state is a pair of dense tensors"):
        linear_triton_with_state(X, X, X, state)


@pytest.mark.parametrize("state", [(S.int(), Z), (S.to("meta"), Z), (S, Z.to("meta")), (S[:, :1], Z)])
def test_a_state_of_another_shape_device_or_kind_is_a_value_error(state: Any) -> None:
    with pytest.raises(ValueError, match="a state is "):
        linear_triton_with_state(X, X, X, state)


@pytest.mark.parametrize("options", [{"eps": None}, {"eps": -1.0}, {"causal": 1}])
def test_options_are_checked_as_those_of_linear_attention(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"eps must be|causal must be"):
        linear_triton_with_state(X, X, X, **options)


def test_a_state_continued_by_no_tokens_is_the_state_in_float32() -> None:
    none = X[:, :, :0]
    _, (last, normaliser) = linear_triton_with_state(none, none, none, (S.double() + 1, Z.double() + 2))
    assert torch.equal(last, S + 1) and torch.equal(normaliser, Z + 2)


def test_bfloat16_is_refused_where_the_interpreter_computes() -> None:
    case = Case("linear-triton", "causal", 64, dtype="bfloat16")
    assert "bfloat16" in (get_kernel("linear-triton").supports(case) or "")
