"""Single rows of the oracles equal the rows of the whole oracles, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attention import Case, make_inputs
from attention.case import MODES
from attention.kernels.gates import make_gates
from attention.kernels.references import (
    REFERENCES,
    Head,
    key_gradient_rows,
    output_rows,
    query_gradient_rows,
    relative_error,
    rows,
    summed,
)
from attention.kernels.registry import FAMILIES

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTHS = (1, 2, 70, 150)


def whole(family: str, mode: str, seq_len: int, dtype: str = "float64") -> tuple[Head, Tensor, list[Tensor]]:
    """A head, a gradient of its output, and the oracle's output, dq, dk and dv."""
    case = Case(
        f"{family}-x", mode, seq_len, "forward_backward", dtype=dtype, heads=1, head_dim=5, value_dim=3
    )
    inputs = [x.detach().double().requires_grad_() for x in make_inputs(case)]
    extra = make_gates(case) if family == "decay" else {}
    out = REFERENCES[family](*inputs, causal=case.causal, **{name: x.double() for name, x in extra.items()})
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = torch.autograd.grad(out, inputs, grad)
    q, k, v = (x[0, 0].detach() for x in make_inputs(case))
    head = Head(family, case.causal, q, k, v, {name: x[0, 0].detach() for name, x in extra.items()})
    return head, grad[0, 0], [x[0, 0].detach() for x in (out, *gradients)]


@pytest.mark.parametrize("block", [1, 64, 2048])
@pytest.mark.parametrize("seq_len", LENGTHS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", (*FAMILIES, "decay"))
def test_rows_equal_those_of_the_whole_oracle(
    family: str, mode: str, seq_len: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BLOCK", block)
    monkeypatch.setattr(rows, "BLOCK_SCORES", block)
    if mode == "bidirectional" and REFERENCES[family].causal_only:
        pytest.skip("the function is causal")
    head, grad, (out, dq, dk, dv) = whole(family, mode, seq_len)
    reference = REFERENCES[family]
    assert reference.output_rows and reference.query_gradient_rows and reference.key_gradient_rows
    places = torch.tensor(sorted({0, seq_len // 3, seq_len - 1}))
    found = (
        reference.output_rows(head, places),
        reference.query_gradient_rows(head, places, grad),
        *reference.key_gradient_rows(head, places, grad, out),
    )
    for one, exact in zip(found, (out, dq, dk, dv), strict=True):
        assert float(one.errors(exact[places]).max()) < 1e-13
        # An error of a hundredth is found, where terms do not cancel as those of one token do.
        assert float(one.errors(1.01 * one.values).max()) > 1e-3 or seq_len == 1


@pytest.mark.parametrize("block", [7, *(pytest.param(one, marks=pytest.mark.slow) for one in (1, 2048))])
@pytest.mark.parametrize(("queries", "keys"), [(20, 20), (1, 9), (9, 1), (20, 33), (33, 20)])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_unequal_lengths_and_shared_keys_equal_those_of_the_whole_oracle(
    family: str, mode: str, queries: int, keys: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BLOCK", block)
    monkeypatch.setattr(rows, "BLOCK_SCORES", block)
    case = Case(
        f"{family}-x",
        mode,
        keys,
        "forward_backward",
        dtype="float64",
        heads=4,
        kv_heads=2,
        query_len=queries,
        head_dim=5,
        value_dim=3,
    )
    inputs = make_inputs(case)
    whole_out = REFERENCES[family](*inputs, causal=case.causal)
    grad = torch.randn(whole_out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    dq, dk, dv = torch.autograd.grad(whole_out, inputs, grad)
    q, k, v = (x.detach()[0] for x in inputs)
    out, of_queries, of_keys = whole_out.detach()[0], torch.arange(queries), torch.arange(keys)
    heads = [Head(family, case.causal, q[h], k[h // 2], v[h // 2]) for h in range(4)]
    for h, head in enumerate(heads):
        assert float(output_rows(head, of_queries).errors(out[h]).max()) < 1e-13
        assert float(query_gradient_rows(head, of_queries, grad[0, h]).errors(dq[0, h]).max()) < 1e-13
    for shared, first in ((0, 0), (1, 2)):
        pairs = [key_gradient_rows(heads[h], of_keys, grad[0, h], out[h]) for h in (first, first + 1)]
        for several, exact in zip(zip(*pairs, strict=True), (dk, dv), strict=True):
            assert float(summed(several).errors(exact[0, shared]).max()) < 1e-13


@pytest.mark.parametrize("family", FAMILIES)
def test_the_norm_of_a_row_is_that_of_terms_that_do_not_cancel(family: str) -> None:
    head, grad, (out, *_) = whole(family, "causal", 40)
    first, places = torch.tensor([0]), torch.arange(40)
    # The first query of a causal sequence sees one key: dq is the rest of terms that cancel.
    lonely = query_gradient_rows(head, first, grad)
    assert float(lonely.values.abs().max()) < 1e-5 < float(lonely.norms[0])
    for one in (output_rows(head, places), *key_gradient_rows(head, places, grad, out)):
        assert bool((one.norms >= torch.linalg.vector_norm(one.values, dim=-1)).all())


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_is_infinitely_wrong(wrong: float) -> None:
    head, _, (out, *_) = whole("linear", "causal", 9)
    found = output_rows(head, torch.tensor([3, 8]))
    bad = out[[3, 8]].clone()
    bad[1, 0] = wrong
    assert found.errors(bad).isinf().tolist() == [False, True]


@pytest.mark.parametrize("given", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_narrow_inputs_are_computed_in_float64(family: str, given: str) -> None:
    head, _, (out, *_) = whole(family, "bidirectional", 70, given)
    assert head.q.dtype == getattr(torch, given)
    assert relative_error(output_rows(head, torch.arange(70)).values, out) < 1e-13
