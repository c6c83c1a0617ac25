"""Every kernel against the oracle: dtypes, modes, awkward lengths and widths, feature maps, gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from attention import Case, get_kernel, make_inputs
from attention.case import MODES, PHASES
from attention.kernels.references import REFERENCES, TOLERANCES, errors_against_reference, tolerances
from attention.kernels.registry import _KERNELS
from tests.kernel_cases import LAYOUTS, SMALL, assert_close, usable

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTHS = [(1, 1), (16, 80), (80, 64), (64, 16), (128, 128)]


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
