"""Linear attention with decay: every kernel equals the recurrence, whatever its gates, gradients included."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from attention import Case, decay_attention, get_kernel, make_inputs
from attention.case import DTYPES
from attention.kernels.feature_maps import elu
from attention.kernels.references import TOLERANCES, decay_reference, relative_error
from attention.kernels.references.errors import BY_PRECISION
from tests.kernel_cases import usable

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("output", "dq", "dk", "dv", "dg")
HALF = math.log(0.5)


def now_and_then(g: Tensor, value: float) -> Tensor:
    """The gates, but for a tenth of them."""
    chosen = torch.rand(g.shape, generator=torch.Generator().manual_seed(5)) < 0.1
    return torch.where(chosen.to(g.device), value, g)


GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "weak": lambda g: g,
    "none": lambda g: 0 * g,
    "constant": lambda g: 0 * g + HALF,
    "strong": lambda g: 0 * g - 50,
    "sudden": lambda g: now_and_then(g, -1000),
    "huge": lambda g: now_and_then(g, -1e30),
    "resets": lambda g: now_and_then(g, -math.inf),
    "resets alone": lambda g: 0 * g - math.inf,
    "growing": lambda g: g.abs() / 2,
    "up and down": lambda g: torch.where(torch.arange(g.shape[-1], device=g.device) % 2 == 0, 30 + g, g - 30),
}


def inputs(
    tokens: int, dtype: str = "float32", device: str = "cpu", gates: str = "weak", **sizes: int
) -> list[Tensor]:
    """q, k, v and g of two sequences of two heads, which require gradients."""
    shape = {"batch": 2, "heads": 2, "head_dim": 16, "value_dim": 24} | sizes
    case = Case("linear-decay-x", "causal", tokens, "forward_backward", device, dtype, **shape)  # type: ignore[arg-type]
    g = get_kernel("linear-decay-explicit").extra_inputs(case)["g"]
    return [*make_inputs(case), GATES[gates](g.detach()).requires_grad_()]


def in_widest_dtype(kernel: str, tokens: int, device: str, gates: str = "weak") -> list[Tensor]:
    """Inputs in float64, in float32 for a kernel that does not have it."""
    refusal = get_kernel(kernel).supports(Case(kernel, "causal", tokens, device=device, dtype="float64"))
    return inputs(tokens, "float32" if refusal else "float64", device, gates)


def roundings(x: Tensor, count: float) -> float:
    """So many of what rounding to the dtype of x takes off at most, of numbers near 1."""
    return count * torch.finfo(x.dtype).eps


def upstream(out: Tensor) -> Tensor:
    """A gradient of the output whose numbers every dtype has."""
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    return grad.bfloat16().to(out)


def results(attend: Callable[..., Tensor], x: list[Tensor], **options: Any) -> list[Tensor]:
    """The output, dq, dk, dv and dg."""
    out = attend(*x[:3], g=x[3], causal=True, **options)
    return [out.detach(), *torch.autograd.grad(out, x, upstream(out))]


def exact(x: list[Tensor], **options: Any) -> list[Tensor]:
    return results(decay_reference, [each.detach().double().requires_grad_() for each in x], **options)


@lru_cache(maxsize=256)
def exact_of(tokens: int, dtype: str, device: str, gates: str, **sizes: int) -> list[Tensor]:
    """What `exact` gives of `inputs`, once for all kernels."""
    return exact(inputs(tokens, dtype, device, gates, **sizes))


def compare(got: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    for name, a, b in zip(NAMES[: len(got)], got, wanted, strict=True):
        error = relative_error(a, b)
        assert error <= tolerance, f"{name}: relative error {error:.2g}, allowed {tolerance:.2g}"


@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("storage", ["float32", "float64"])
def test_any_gates_give_the_recurrence_and_its_gradients(
    decay_kernel: str, storage: str, gates: str, device: str
) -> None:
    """Each gradient is held against its own norm: behind gates of -50 dg is below 1e-20."""
    usable(Case(decay_kernel, "causal", 200, device=device, dtype=storage))
    for tokens in (1, 2, 63, 64, 65, 200):
        x = inputs(tokens, storage, device, gates)
        dtype = getattr(torch, storage)
        wanted = exact_of(tokens, storage, device, gates)
        compare(results(get_kernel(decay_kernel).function, x), wanted, TOLERANCES[dtype][0])


@pytest.mark.parametrize("tokens", [1000, pytest.param(4000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("gates", ["weak", "none", "strong", "resets"])
def test_the_error_of_gradients_of_gates_does_not_grow_with_the_sequence(
    decay_kernel: str, gates: str, tokens: int, device: str
) -> None:
    """A sum over all later tokens of q.dq - k.dk loses more digits with each of them."""
    attend = get_kernel(decay_kernel).function
    x = inputs(tokens, "float32", device, gates, batch=1, heads=1)
    wanted = exact_of(tokens, "float32", device, gates, batch=1, heads=1)
    compare(results(attend, x), wanted, 20 * torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("storage", DTYPES)
def test_gates_may_have_float32_or_the_dtype_of_the_queries(
    decay_kernel: str, storage: str, device: str
) -> None:
    """Their gradients lose nothing beside narrow queries, unless the operands of products are as narrow."""
    kernel = get_kernel(usable(Case(decay_kernel, "causal", 100, device=device, dtype=storage)).kernel)
    attend, dtype, precision = kernel.function, getattr(torch, storage), kernel.precision_of(storage)
    *x, g = inputs(100, storage, device)
    for gates in (g.float(), g.to(dtype)):
        given = [*x, gates.detach().requires_grad_()]
        got, wanted = results(attend, given), exact(given)
        assert [a.dtype for a in got] == [dtype] * 4 + [gates.dtype]
        compare(got[:4], wanted[:4], BY_PRECISION[precision][1])
        narrow = decay_kernel == "linear-decay-triton"
        allowed = BY_PRECISION[precision] if narrow else TOLERANCES[gates.dtype]
        assert relative_error(got[4], wanted[4]) < allowed[0]


def test_without_gates_it_is_linear_attention_that_is_not_normalised(decay_kernel: str, device: str) -> None:
    q, k, v, g = in_widest_dtype(decay_kernel, 150, device, "none")
    out = get_kernel(decay_kernel).function(q, k, v, g=g, causal=True)
    q, k, v = q.double(), k.double(), v.double()
    assert relative_error(out, (elu(q) @ elu(k).mT).tril() @ v) < roundings(g, 50)


def test_a_constant_gate_gives_retention(decay_kernel: str, device: str) -> None:
    """Sun et al. 2023, eq. 5: D_ij = gamma^(i - j), a gamma for each head, without a feature map."""
    q, k, v, like = in_widest_dtype(decay_kernel, 150, device)
    gamma = 1 - 2.0 ** -torch.arange(5.0, 7.0, dtype=torch.float64, device=device)
    g = gamma.log().to(like)[None, :, None].expand(2, -1, 150)
    out = get_kernel(decay_kernel).function(q, k, v, g=g, causal=True, feature_map="identity")
    place = torch.arange(150, device=device)
    powers = (gamma[:, None, None] ** (place[:, None] - place)).tril()
    q, k, v = q.double(), k.double(), v.double()
    assert relative_error(out, (q @ k.mT * powers) @ v) < roundings(like, 50)


@pytest.mark.parametrize("cut", [1, 64, 77, 199])
def test_a_gate_of_minus_infinity_cuts_a_sequence_in_two(decay_kernel: str, cut: int, device: str) -> None:
    attend, x = get_kernel(decay_kernel).function, in_widest_dtype(decay_kernel, 200, device)
    with torch.no_grad():
        x[3][:, :, cut] = -math.inf
    whole = results(attend, x)
    assert bool((whole[4][:, :, cut] == 0).all())
    grad = upstream(whole[0])
    for part in (slice(0, cut), slice(cut, 200)):
        y = [each.detach()[:, :, part].requires_grad_() for each in x]
        out = attend(*y[:3], g=y[3], causal=True)
        found = [out.detach(), *torch.autograd.grad(out, y, grad[:, :, part])]
        compare([each[:, :, part] for each in whole], found, roundings(x[0], 50))


@pytest.mark.parametrize("cut", [1, 64, 77, 199])
def test_the_second_part_of_a_sequence_sees_the_first_through_its_state(
    decay_kernel: str, cut: int, device: str
) -> None:
    attend = get_kernel(decay_kernel).function
    q, k, v, g = (x.detach() for x in in_widest_dtype(decay_kernel, 200, device))
    kept = g[:, :, 1:cut].flip(-1).cumsum(-1).flip(-1).exp()
    weights = torch.cat([kept, torch.ones_like(kept[:, :, :1] if cut > 1 else g[:, :, :1])], -1)
    state = (weights[..., None] * elu(k[:, :, :cut])).mT @ v[:, :, :cut]
    second = attend(*(x[:, :, cut:] for x in (q, k, v)), g=g[:, :, cut:], causal=True)
    second = second + g[:, :, cut:].cumsum(-1).exp()[..., None] * elu(q[:, :, cut:]) @ state
    assert relative_error(second, attend(q, k, v, g=g, causal=True)[:, :, cut:]) < roundings(q, 50)


@pytest.mark.parametrize("first", [-math.inf, -1e4, 200.0])
def test_the_first_gate_has_nothing_to_keep(decay_kernel: str, first: float, device: str) -> None:
    """e^200 is beyond float32, and no number of the result."""
    attend, x = get_kernel(decay_kernel).function, inputs(100, "float32", device)
    before = results(attend, x)
    with torch.no_grad():
        x[3][:, :, 0] = first
    after = results(attend, x)
    assert all(map(torch.equal, before, after)) and bool((after[4][:, :, 0] == 0).all())


@pytest.mark.parametrize("feature_map", ["relu", "identity", lambda x: torch.cat([x, x.square()], -1)])
def test_other_feature_maps(decay_kernel: str, feature_map: Any, device: str) -> None:
    x = in_widest_dtype(decay_kernel, 100, device)
    got = results(get_kernel(decay_kernel).function, x, feature_map=feature_map)
    compare(got, exact(x, feature_map=feature_map), roundings(x[0], 100))


def test_gates_may_lie_in_memory_in_any_way(decay_kernel: str, device: str) -> None:
    attend, (q, k, v, g) = get_kernel(decay_kernel).function, inputs(130, "float32", device)
    expected = attend(q, k, v, g=g, causal=True)
    for other in (
        g.transpose(1, 2).contiguous().transpose(1, 2),  # as a layer makes them
        g.repeat_interleave(2, -1)[..., ::2],
        torch.stack([g, g], 0)[1],
    ):
        assert torch.equal(attend(q, k, v, g=other, causal=True), expected)
    one = g[:, :1, :1].expand_as(g)  # one number for all, whose gradient is that of all
    y = [q, k, v, one.detach().clone().requires_grad_()]
    leaf = g[:, :1, :1].detach().clone().requires_grad_()
    out = attend(q, k, v, g=leaf.expand_as(g), causal=True)
    (found,) = torch.autograd.grad(out.sum(), leaf)
    whole = torch.autograd.grad(attend(*y[:3], g=y[3], causal=True).sum(), y[3])[0]
    assert relative_error(found, whole.sum((1, 2), keepdim=True)) < 1e-6


def test_two_calls_give_the_same_bits(decay_kernel: str, device: str) -> None:
    if device != "cpu":
        pytest.skip("products on a card may be added in another order")
    attend = get_kernel(decay_kernel).function
    first, second = (results(attend, inputs(700, batch=1)) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("chunk_size", [1, 2, 63, 64, 100, 1000])
def test_chunk_size_does_not_change_the_result_of_linear_decay_chunked(chunk_size: int, device: str) -> None:
    x, attend = inputs(300, "float64", device, "sudden"), get_kernel("linear-decay-chunked").function
    compare(results(attend, x, chunk_size=chunk_size), exact(x), 1e-12)


def test_float16_states_beyond_its_range_stay_finite(decay_kernel: str, device: str) -> None:
    """Sums of 3000 products of 16 terms near 1 are 48000 a value, of 5000 beyond the 65504 of float16."""
    q, k, v = (torch.ones(1, 1, 5000, width, dtype=torch.float16, device=device) for width in (16, 16, 2))
    g = torch.zeros(1, 1, 5000, device=device)
    g[..., 1::1000] = -math.inf
    out = get_kernel(decay_kernel).function(q / 4, k / 4, v, g=g, causal=True)
    assert bool(out.isfinite().all())


def test_decay_attention_gives_the_bits_of_the_backend_that_it_names() -> None:
    q, k, v, g = inputs(100)
    for backend, name in (("auto", "native"), ("native", "native"), ("chunked", "chunked")):
        expected = get_kernel(f"linear-decay-{name}").function(q, k, v, g=g, causal=True)
        assert torch.equal(decay_attention(q, k, v, g, backend=backend), expected)
