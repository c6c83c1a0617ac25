"""Every kernel against the oracle: dtypes, modes, awkward lengths and widths, strides, gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from attention import Case, get_kernel, make_inputs
from attention.case import MODES, PHASES
from attention.kernels import blocks
from attention.kernels.references import (
    REFERENCES,
    TOLERANCES,
    errors_against_reference,
    linear_reference,
    relative_error,
    tolerances,
)
from attention.kernels.registry import _KERNELS

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = {"batch": 2, "heads": 2}
WIDTHS = [(1, 1), (16, 80), (80, 64), (64, 16), (128, 128)]


def usable(case: Case) -> Case:
    """The case; the test is skipped with the kernel's reason where that does not serve it."""
    reason = get_kernel(case.kernel).supports(case)
    if reason:
        pytest.skip(reason)
    return case


def attention_of(case: Case) -> Callable[..., Tensor]:
    """The kernel of a case, in its mode and with its inputs beside q, k and v."""
    kernel = get_kernel(case.kernel)
    return partial(kernel.function, causal=case.causal, **kernel.extra_inputs(case))


def assert_close(got: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    error = relative_error(got, expected)
    assert error <= tolerance, f"{what}: relative error {error:.2g}, allowed {tolerance:.2g}"


@pytest.mark.parametrize(
    "seq_len", [1, 2, 63, 500, 512, *(pytest.param(n, marks=pytest.mark.slow) for n in (1000, 1024))]
)
@pytest.mark.parametrize("mode", MODES)
def test_every_kernel_equals_the_oracle_at_every_length(
    kernel: str, mode: str, seq_len: int, dtype: str, device: str
) -> None:
    case = usable(Case(kernel, mode, seq_len, device=device, dtype=dtype, batch=1, heads=2, head_dim=16))
    errors = errors_against_reference(case, seq_len=seq_len)
    assert errors.within(case), (errors, tolerances(case))


@pytest.mark.rivals
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("mode", MODES)
def test_installed_rivals_are_right_in_the_precision_that_they_state(
    kernel: str, mode: str, phase: str, dtype: str, device: str
) -> None:
    case = usable(Case(kernel, mode, 150, phase, device, dtype, 2, 2, 64))
    errors = errors_against_reference(case)
    assert errors.within(case), (errors, tolerances(case))


@pytest.mark.parametrize(("head_dim", "value_dim"), WIDTHS)
@pytest.mark.parametrize("mode", MODES)
def test_every_kernel_equals_the_oracle_at_every_width_with_gradients(
    kernel: str, mode: str, head_dim: int, value_dim: int, dtype: str, device: str
) -> None:
    # dq at D = 1 is the rest of terms that cancel, below the rounding of a narrow precision.
    narrow = get_kernel(kernel).precision_of(dtype) not in ("float64", "float32")
    cancels = head_dim == 1 and narrow
    phase = "forward" if cancels else "forward_backward"
    case = usable(Case(kernel, mode, 150, phase, device, dtype, 1, 2, head_dim, value_dim))
    errors = errors_against_reference(case)
    # Roundings at D = 1 do not average out: four of half an eps in a row, at the worst.
    room = 2 if cancels else 1
    assert errors.within(case, room=room), (errors, tolerances(case))


@pytest.mark.parametrize("mode", MODES)
def test_linear_kernels_stay_within_half_an_eps_where_sums_are_in_float32(
    linear_kernel: str, mode: str, device: str
) -> None:
    """Bounds without the room that the general tolerance leaves for scores rounded to the dtype."""
    for dtype, forward, gradients in (("float16", 8e-4, 2e-3), ("bfloat16", 4e-3, 8e-3)):
        case = usable(Case(linear_kernel, mode, 400, "forward_backward", device, dtype, batch=1, heads=1))
        errors = errors_against_reference(case, seq_len=400)
        assert errors.output <= forward, (dtype, errors)
        assert errors.gradients <= gradients, (dtype, errors)


@pytest.fixture
def textbook_form(monkeypatch: pytest.MonkeyPatch) -> str:
    """Linear attention by its textbook form in the dtype of its inputs; torch sums products in float32."""

    def function(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
        weights = (F.elu(q) + 1) @ (F.elu(k) + 1).mT
        weights = weights.tril() if causal else weights
        return weights @ v / (weights.sum(-1, keepdim=True) + 1e-6)

    kernel = replace(get_kernel("linear-explicit"), name="linear-plain", function=function)
    monkeypatch.setitem(_KERNELS, kernel.name, kernel)
    return kernel.name


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("inputs_in", ["float16", "bfloat16"])
def test_no_linear_kernel_errs_twice_as_much_as_the_textbook_form_in_its_dtype(
    linear_kernel: str, textbook_form: str, mode: str, inputs_in: str, device: str
) -> None:
    """Errors are bounded by FlashAttention's rule, gradients included."""
    case = usable(Case(linear_kernel, mode, 400, "forward_backward", device, inputs_in, batch=1, heads=1))
    ours, allowed = (
        errors_against_reference(replace(case, kernel=name), seq_len=400)
        for name in (linear_kernel, textbook_form)
    )
    assert ours.output <= 2 * allowed.output
    assert ours.gradients <= 2 * allowed.gradients


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "tokens before heads": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "transposed last axes": lambda x: x.mT.contiguous().mT,
    "every second token of a longer tensor": lambda x: x.repeat_interleave(2, dim=2)[:, :, ::2],
    "one head expanded to all": lambda x: x[:, :1].expand(-1, x.shape[1], -1, -1),
}


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
def test_gradients_of_every_kernel_pass_gradcheck_in_float64(kernel: str, mode: str, device: str) -> None:
    case = usable(Case(kernel, mode, 7, "forward_backward", device, "float64", 1, 2, 3, 3))
    attend, extra = get_kernel(kernel).function, get_kernel(kernel).extra_inputs(case)

    def function(q: Tensor, k: Tensor, v: Tensor, *others: Tensor) -> Tensor:
        return attend(q, k, v, causal=case.causal, **dict(zip(extra, others, strict=True)))

    # Kernels on CUDA may add in another order each time.
    inputs = (*make_inputs(case), *extra.values())
    assert torch.autograd.gradcheck(function, inputs, nondet_tol=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("feature_map", ["elu", "relu", "identity"])
def test_every_feature_map_equals_the_oracle_with_gradients(
    linear_kernel: str, feature_map: str, mode: str, device: str
) -> None:
    case = usable(Case(linear_kernel, mode, 140, "forward_backward", device, "float64", **SMALL))
    inputs = make_inputs(case)
    exact = [x.detach().clone().requires_grad_() for x in inputs]
    # A large eps, because a normaliser of signed scores near zero would hide all other errors.
    options = {"causal": case.causal, "feature_map": feature_map, "eps": 300.0}
    out = get_kernel(linear_kernel).function(*inputs, **options)
    expected = REFERENCES["linear"](*exact, **options)
    assert_close(out, expected, 1e-11, "output")
    grad_out = torch.randn_like(out)
    for what, got, wanted in zip(
        "qkv",
        torch.autograd.grad(out, inputs, grad_out),
        torch.autograd.grad(expected, exact, grad_out),
        strict=True,
    ):
        assert_close(got, wanted, 1e-10, f"d{what}")


def test_gradients_of_linear_kernels_reach_the_parameters_of_a_callable_feature_map(
    linear_kernel: str, device: str
) -> None:
    case = usable(Case(linear_kernel, "causal", 90, device=device, dtype="float64", **SMALL))
    layer = torch.nn.Linear(case.head_dim, 12, dtype=torch.float64, device=device)

    def feature_map(x: Tensor) -> Tensor:
        return torch.exp(layer(x) / 4)

    inputs = make_inputs(case)
    gradients = []
    for function in (get_kernel(linear_kernel).function, REFERENCES["linear"]):
        out = function(*inputs, causal=True, feature_map=feature_map)
        gradients.append(torch.autograd.grad(out.square().sum(), layer.weight)[0])
    assert_close(gradients[0], gradients[1], 1e-11, "gradient of the layer's weight")


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
def test_linear_chunked_keeps_the_tiny_normalisers_of_strongly_negative_keys(mode: str, device: str) -> None:
    """elu(x) + 1 = e^x below zero: at x = -30 it is 1e-13, which elu(x) + 1 rounds to zero in float32."""
    case = Case("linear-chunked", mode, 80, device=device, **SMALL)
    q, k, v = make_inputs(case)
    k = k - 30
    out = get_kernel(case.kernel).function(q, k, v, causal=case.causal, eps=1e-30)
    expected = REFERENCES["linear"](q, k, v, causal=case.causal, eps=1e-30)
    assert_close(out, expected, 1e-5, "output")


@pytest.mark.parametrize("mode", MODES)
def test_float16_sums_of_linear_chunked_do_not_overflow(mode: str, device: str) -> None:
    """A normaliser of 70000 tokens is above float16's largest number, 65504."""
    case = Case("linear-chunked", mode, 70000, device=device, dtype="float16", batch=1, heads=1, head_dim=16)
    q, k, v = make_inputs(case)
    out = get_kernel(case.kernel).function(q.abs(), k.abs(), torch.ones_like(v), causal=case.causal)
    assert_close(out, torch.ones_like(out), TOLERANCES[torch.float16][0], "weights that sum to one")


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


@pytest.mark.parametrize("layout", ["tokens before heads", "one head expanded to all"])
@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_linear_kernels_reach_strided_and_expanded_inputs(
    linear_kernel: str, mode: str, layout: str, device: str
) -> None:
    case = usable(Case(linear_kernel, mode, 130, device=device, dtype="float64", **SMALL))
    gradients = []
    for function in (get_kernel(linear_kernel).function, REFERENCES["linear"]):
        leaves = [x.requires_grad_() for x in make_inputs(case)]
        out = function(*(LAYOUTS[layout](x) for x in leaves), causal=case.causal)
        gradients.append(torch.autograd.grad(out.sin().sum(), leaves))
    for got, expected in zip(*gradients, strict=True):
        assert_close(got, expected, 1e-11, layout)
