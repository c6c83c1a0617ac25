"""What a kernel's results have in common with each other, whatever they are.

Strides, chunks, later tokens and other sequences change nothing, and of nothing comes nothing.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attention import Case, get_kernel, make_inputs
from attention.case import MODES
from attention.kernels import blocks
from attention.kernels.references import TOLERANCES, linear_reference
from tests.kernel_cases import LAYOUTS, SMALL, assert_close, attention_of, usable

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("causal", [True, False])
def test_the_oracle_of_an_empty_sequence_is_empty(causal: bool) -> None:
    q = torch.ones(1, 2, 0, 4)
    assert linear_reference(q, q, torch.ones(1, 2, 0, 3), causal=causal).shape == (1, 2, 0, 3)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", MODES)
def test_strides_do_not_change_the_result_of_a_kernel(
    kernel: str, mode: str, layout: str, device: str
) -> None:
    case = usable(Case(kernel, mode, 130, device=device, **SMALL))
    inputs = [LAYOUTS[layout](x) for x in make_inputs(case)]
    attend = attention_of(case)
    if kernel in ("standard-sdpa-flash", "standard-sdpa-efficient") and layout == "transposed last axes":
        with pytest.raises(ValueError, match=r"torch refuses [A-Z]+_ATTENTION here: .*stride"):
            attend(*inputs)
        return
    strided, contiguous = attend(*inputs), attend(*(x.contiguous() for x in inputs))
    assert_close(strided, contiguous, TOLERANCES[torch.float32][0], layout)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunk_size", [1, 2, 63, 64, 100, 1000])
def test_chunk_size_does_not_change_the_result_of_linear_chunked(
    chunk_size: int, mode: str, device: str
) -> None:
    case = Case("linear-chunked", mode, 300, "forward_backward", device, "float64", **SMALL)
    kernel = get_kernel(case.kernel).function
    results = []
    for size in (chunk_size, 300):
        inputs = make_inputs(case)
        out = kernel(*inputs, causal=case.causal, chunk_size=size)
        results.append([out.detach(), *torch.autograd.grad(out.sin().sum(), inputs)])
    for got, expected in zip(*results, strict=True):
        assert_close(got, expected, 1e-12, f"chunks of {chunk_size}")


def test_block_size_does_not_change_the_result_of_linear_chunked(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running sums carry over between many small blocks as within one block of all chunks."""
    case = Case("linear-chunked", "causal", 500, "forward_backward", device, "float64", **SMALL)
    results = []
    for rows in (1, 2**30):
        monkeypatch.setitem(blocks.BLOCK_ROWS, device, rows)
        inputs = make_inputs(case)
        out = get_kernel(case.kernel).function(*inputs, causal=True)
        results.append([out.detach(), *torch.autograd.grad(out.sin().sum(), inputs)])
    for got, expected in zip(*results, strict=True):
        assert_close(got, expected, 1e-12, "blocks")


def test_a_causal_output_does_not_change_with_later_tokens(kernel: str, device: str) -> None:
    case = usable(Case(kernel, "causal", 200, device=device, **SMALL))
    attend = attention_of(case)
    q, k, v = make_inputs(case)
    before = attend(q, k, v)[:, :, :120]
    for x in (q, k, v):
        x[:, :, 120:] = 7.0
    after = attend(q, k, v)[:, :, :120]
    # Operations and numbers are equal, except for how they are grouped into blocks.
    assert_close(after, before, TOLERANCES[torch.float32][0], "outputs before the change")


def test_bidirectional_equals_causal_at_the_last_token(kernel: str, device: str) -> None:
    case = usable(Case(kernel, "causal", 333, device=device, dtype="float64", **SMALL))
    usable(replace(case, mode="bidirectional"))
    function, inputs = get_kernel(kernel).function, make_inputs(case)
    causal, bidirectional = (function(*inputs, causal=flag)[:, :, -1] for flag in (True, False))
    assert_close(causal, bidirectional, TOLERANCES[torch.float64][0], "last token")


@pytest.mark.parametrize("mode", MODES)
def test_linear_kernels_of_values_of_one_give_den_over_den_plus_eps(
    linear_kernel: str, mode: str, device: str
) -> None:
    case = usable(Case(linear_kernel, mode, 100, device=device, dtype="float64", value_dim=3, **SMALL))
    q, k, v = make_inputs(case)
    eps = 5.0
    out = get_kernel(linear_kernel).function(q, k, torch.ones_like(v), causal=case.causal, eps=eps)
    phi_q, phi_k = ((torch.nn.functional.elu(x) + 1) for x in (q, k))
    sums = phi_k.cumsum(2) if case.causal else phi_k.sum(2, keepdim=True)
    den = (phi_q * sums).sum(-1, keepdim=True)
    assert_close(out, (den / (den + eps)).expand_as(out), 1e-12, "den / (den + eps)")


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_equals_calls_of_its_single_sequences(kernel: str, mode: str, device: str) -> None:
    case = usable(Case(kernel, mode, 100, device=device, dtype="float64", batch=3, heads=2))
    attend, inputs = get_kernel(kernel).function, make_inputs(case)
    extra = get_kernel(kernel).extra_inputs(case)
    batched = attend(*inputs, causal=case.causal, **extra)
    singles = [
        attend(
            *(x[i : i + 1] for x in inputs),
            causal=case.causal,
            **{name: x[i : i + 1] for name, x in extra.items()},
        )
        for i in range(3)
    ]
    assert_close(batched, torch.cat(singles), TOLERANCES[torch.float64][0], "batch")


@pytest.mark.parametrize("mode", MODES)
def test_every_kernel_of_an_empty_sequence_is_empty(kernel: str, mode: str, device: str) -> None:
    case = usable(Case(kernel, mode, 0, device=device, **SMALL))
    out = attention_of(case)(*make_inputs(case))
    assert out.shape == (2, 2, 0, case.value_dim)


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_batch_and_an_empty_sequence_have_empty_gradients(
    kernel: str, mode: str, device: str
) -> None:
    for batch, seq_len in ((0, 150), (2, 0)):
        case = Case(kernel, mode, seq_len, "forward_backward", device, batch=batch, heads=2, head_dim=16)
        if get_kernel(kernel).supports(case):
            continue
        inputs, extra = make_inputs(case), get_kernel(kernel).extra_inputs(case)
        out = get_kernel(kernel).function(*inputs, causal=case.causal, **extra)
        leaves = (*inputs, *extra.values())
        gradients = torch.autograd.grad(out.sum(), leaves)
        assert [x.shape for x in gradients] == [x.shape for x in leaves]
