"""What linear-triton refuses to serve or to continue from, in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attention import Case, State, get_kernel
from tests.interpreted import continued

X = torch.ones(1, 2, 3, 4)
S, Z = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4)


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.mark.parametrize("state", [3, (S,), (S, None), (S, Z.to_sparse()), "Sz"])
def test_a_state_that_is_no_pair_of_dense_tensors_is_a_type_error(state: Any) -> None:
    with pytest.raises(TypeError, match="initial_state must be a State, two dense tensors"):
        continued(X, X, X, state)


@pytest.mark.parametrize("state", [(S.int(), Z), (S.to("meta"), Z), (S, Z.to("meta")), (S[:, :1], Z)])
def test_a_state_of_another_shape_device_or_kind_is_a_value_error(state: Any) -> None:
    with pytest.raises(ValueError, match="initial_state must "):
        continued(X, X, X, state)


def test_a_state_continued_by_no_tokens_is_the_state_in_float32() -> None:
    none = X[:, :, :0]
    _, (last, normaliser) = continued(none, none, none, State(S.double() + 1, Z.double() + 2))
    assert torch.equal(last, S + 1) and torch.equal(normaliser, Z + 2)


def test_bfloat16_is_refused_where_the_interpreter_computes() -> None:
    case = Case("linear-triton", "causal", 64, dtype="bfloat16")
    assert "bfloat16" in (get_kernel("linear-triton").supports(case) or "")
