"""linear-decay-triton: compiled on CUDA, and under Triton's interpreter on a CPU.

The last test of test_triton.py runs these in a process of their own on a CPU; segments of 64 tokens cross
every boundary within a few hundred tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from attention import Case, get_kernel
from attention.kernels.feature_maps import FEATURE_MAPS
from attention.kernels.gates import CAUSAL_ONLY
from attention.kernels.linear_decay_explicit import linear_decay_explicit
from attention.kernels.linear_decay_triton import linear_decay_triton
from attention.kernels.linear_decay_triton.costs import triton_costs
from attention.kernels.linear_decay_triton.kernel import supports
from attention.kernels.references import TOLERANCES, gradient_error, linear_reference, relative_error
from attention.kernels.references.decay import decay_reference
from attention.kernels.references.errors import BY_PRECISION
from attention.kernels.tensors import dtype_name
from tests.gates import gates
from tests.interpreted import filled_with_nan, set_rules

ops = torch.ops.attention


pytestmark = pytest.mark.usefixtures("triton_passes")


def inputs(
    device: str, tokens: int = 100, width: int = 16, value_dim: int = 16, *, heads: int = 1,
    gate: str = "mild", dtype: torch.dtype = torch.float32,
) -> list[Tensor]:  # fmt: skip
    """q, k, v and g, which require gradients."""
    generator = torch.Generator().manual_seed(3)
    sizes = [(1, heads, tokens, size) for size in (width, width, value_dim)]
    qkv = [torch.randn(size, generator=generator).to(device, dtype) for size in sizes]
    noise = torch.randn(1, heads, tokens, generator=generator)
    return [x.requires_grad_() for x in (*qkv, gates(gate, noise).to(device))]


def errors(x: list[Tensor], *, feature_map: str = "elu") -> tuple[float, float, float]:
    """Norm ratios against the recurrence in float64: of the output, of all gradients, and of dg alone."""
    exact = [each.detach().double() for each in x]
    exact[3] = exact[3].clamp(min=-700)  # the gradient of exp at -inf is 0 times infinity in autograd
    exact = [each.requires_grad_() for each in exact]
    q, k, v, g = exact
    reference = decay_reference(q, k, v, g, feature_map=feature_map)
    q, k, v, g = x
    out = linear_decay_triton(q, k, v, g=g, feature_map=feature_map)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(4)).to(out)
    got = torch.autograd.grad(out, x, weights)
    wanted = torch.autograd.grad(reference, exact, weights.double())
    gates = relative_error(got[3], wanted[3])
    return relative_error(out, reference), gradient_error(got, wanted), gates


def within(found: tuple[float, float, float], dtype: torch.dtype) -> bool:
    forward, backward = BY_PRECISION[get_kernel("linear-decay-triton").precision_of(dtype_name(dtype))]
    return found[0] <= forward and max(found[1:]) <= backward


@pytest.mark.parametrize("tokens", [1, 63, 65, 500])
def test_linear_decay_triton_equals_the_recurrence_with_gradients_at_odd_lengths(
    tokens: int, device: str
) -> None:
    found = errors(inputs(device, tokens))
    assert within(found, torch.float32), found


@pytest.mark.parametrize(
    ("inputs_in", "width", "value_dim"),
    [
        (torch.float32, 16, 40),
        (torch.float16, 24, 16),
        (torch.float32, 1, 5),
        (torch.float32, 80, 16),
        (torch.float32, 16, 136),
        pytest.param(torch.float16, 136, 72, marks=pytest.mark.slow),
        pytest.param(torch.float32, 16, 256, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("moved_by", ["pointers", "descriptors"])
def test_linear_decay_triton_equals_the_recurrence_with_gradients_at_any_widths(
    moved_by: str, inputs_in: torch.dtype, width: int, value_dim: int, device: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    set_rules(monkeypatch, DESCRIBED=0 if moved_by == "descriptors" else 2**62)
    found = errors(inputs(device, 100, width, value_dim, dtype=inputs_in))
    assert within(found, inputs_in), found


@pytest.mark.parametrize(
    ("inputs_in", "gate"),
    [
        *((torch.float32, gate) for gate in ("none", "strong", "growing", "mixed", "resets")),
        (torch.float16, "mixed"),
        *(
            pytest.param(torch.float16, gate, marks=pytest.mark.slow)
            for gate in ("none", "strong", "growing", "resets")
        ),
    ],
)
def test_no_gate_costs_linear_decay_triton_its_digits(gate: str, inputs_in: torch.dtype, device: str) -> None:
    """Where every gate is -50, its gradient of e^-50 is held against its own norm too."""
    found = errors(inputs(device, 130, gate=gate, dtype=inputs_in))
    assert within(found, inputs_in), found


@pytest.mark.parametrize("feature_map", ["relu", "identity"])
def test_linear_decay_triton_of_relu_and_identity_equals_the_recurrence(
    feature_map: str, device: str
) -> None:
    found = errors(inputs(device, 100, 24), feature_map=feature_map)
    assert within(found, torch.float32), found


@pytest.mark.parametrize("tokens", [500, pytest.param(2100, marks=pytest.mark.slow)])
def test_gradients_of_the_gates_keep_their_digits_at_great_length(tokens: int, device: str) -> None:
    """The error of many tokens is that of 100, not what five or twenty times as many make."""
    short, long = (errors(inputs(device, n, gate="none"))[2] for n in (100, tokens))
    assert long < 2 * short + 1e-7, (short, long)


def test_linear_decay_triton_without_decay_is_linear_attention_without_its_normaliser(device: str) -> None:
    q, k, v, _ = (x.detach() for x in inputs(device))
    phi = FEATURE_MAPS["elu"]
    normaliser = (phi(q) * phi(k).cumsum(2)).sum(-1, keepdim=True)
    out = linear_decay_triton(q, k, v, g=q.new_zeros(q.shape[:3]))
    assert relative_error(out, linear_reference(q, k, v, causal=True) * normaliser) < 1e-5


def test_a_token_of_which_the_gate_is_minus_infinity_forgets_all_before_it(device: str) -> None:
    q, k, v, g = (x.detach() for x in inputs(device, 130))
    g[:, :, 70] = -math.inf
    alone = linear_decay_triton(q[:, :, 70:], k[:, :, 70:], v[:, :, 70:], g=g[:, :, 70:])
    k[:, :, :70] *= 1e4  # what is forgotten does not matter
    found = linear_decay_triton(q, k, v, g=g)[:, :, 70:]
    assert relative_error(found, alone) < 1e-6


def test_linear_decay_triton_does_not_depend_on_segments_being_added_up_or_scanned(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for least, folded in ((1024, 2**17), (64, 2**17), (64, 0)):
        set_rules(monkeypatch, LEAST_TOKENS=least, FOLDED=folded)
        q, k, v, g = x = inputs(device, 130)
        out = linear_decay_triton(q, k, v, g=g)
        results.append([out, *torch.autograd.grad(out, x, torch.ones_like(out))])
    for other in results[1:]:
        for one, another in zip(results[0], other, strict=True):
            assert relative_error(another, one) < 1e-5


@pytest.mark.parametrize(("tokens", "heads"), [(130, 1), pytest.param(200, 2, marks=pytest.mark.slow)])
def test_no_uninitialised_memory_reaches_a_result_of_linear_decay_triton_and_bits_repeat(
    tokens: int, heads: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def results() -> list[Tensor]:
        q, k, v, g = x = inputs(device, tokens, 72, 5, heads=heads)
        out = linear_decay_triton(q, k, v, g=g)
        return [out, *torch.autograd.grad(out.square().sum(), x)]

    for folded in (2**17, 0):
        set_rules(monkeypatch, FOLDED=folded)
        clean = results()
        with filled_with_nan():
            poisoned = results()
        assert all(map(torch.equal, poisoned, clean))


def test_strides_do_not_change_the_bits_of_linear_decay_triton(device: str) -> None:
    q, k, v, g = (x.detach() for x in inputs(device, 70, heads=2))
    expected = linear_decay_triton(q, k, v, g=g)
    turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v, g)]
    assert torch.equal(linear_decay_triton(*turned[:3], g=turned[3]), expected)
    last = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in (q, k, v)]
    assert torch.equal(linear_decay_triton(*last, g=g), expected)


def test_a_gate_of_each_head_serves_all_tokens_with_its_gradient(device: str) -> None:
    """A constant decay is a view; the gradient of the constant is the sum over the tokens."""
    q, k, v, _ = inputs(device, heads=2)
    rate = torch.tensor([-0.1, -0.5], device=device, requires_grad=True)
    out = linear_decay_triton(q, k, v, g=rate[None, :, None].expand(1, 2, 100))
    exact = rate.detach().double().requires_grad_()
    q, k, v = (x.detach().double() for x in (q, k, v))
    reference = decay_reference(q, k, v, exact[None, :, None].expand(1, 2, 100))
    (got,), (wanted,) = (torch.autograd.grad(x.sum(), r) for x, r in ((out, rate), (reference, exact)))
    assert relative_error(got, wanted) < TOLERANCES[torch.float32][1]


def test_a_nan_of_linear_decay_triton_stays_in_its_chunk_and_behind(device: str) -> None:
    for which in range(4):
        q, k, v, g = x = [x.detach() for x in inputs(device)]
        x[which][0, 0, 50] = math.nan
        out = linear_decay_triton(q, k, v, g=g)
        assert out[0, 0, 50].isnan().all()
        assert not out[0, 0, :32].isnan().any()


@pytest.mark.parametrize("empty", [(slice(0), slice(None)), (slice(None), slice(0))])
def test_linear_decay_triton_of_no_sequence_or_an_empty_one_has_empty_gradients(
    empty: tuple[slice, slice], device: str
) -> None:
    batch, tokens = empty
    x = [each.detach()[batch, :, tokens].requires_grad_() for each in inputs(device, dtype=torch.float16)]
    out = linear_decay_triton(*x[:3], g=x[3])
    assert out.shape == x[2].shape and out.dtype is torch.float16
    assert [y.shape for y in torch.autograd.grad(out.sum(), x)] == [y.shape for y in x]


def test_the_first_gate_of_linear_decay_triton_has_nothing_to_keep(device: str) -> None:
    """2^288 is infinite in float32, and infinity times the zero before a sequence is NaN."""
    results = []
    for first in (0.0, 200.0, -math.inf):
        q, k, v, g = x = inputs(device)
        with torch.no_grad():
            g[:, :, 0] = first
        out = linear_decay_triton(q, k, v, g=g)
        results.append([out, *torch.autograd.grad(out.sum(), x)])
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))


@pytest.mark.slow
def test_linear_decay_triton_compiled_as_a_full_graph_gives_the_same_bits_with_gradients(device: str) -> None:
    q, k, v, g = x = inputs(device)
    compiled = torch.compile(linear_decay_triton, backend="aot_eager", fullgraph=True)
    weights = torch.randn_like(v)
    out, expected = (f(q, k, v, g=g) for f in (compiled, linear_decay_triton))
    assert torch.equal(out, expected)
    got, wanted = (torch.autograd.grad(y, x, weights) for y in (out, expected))
    assert all(map(torch.equal, got, wanted))
    with torch.no_grad():
        assert torch.equal(compiled(q, k, v, g=g), linear_decay_triton(q, k, v, g=g))


def test_the_operators_of_linear_decay_triton_are_sound(device: str) -> None:
    x = inputs(device, 70, 24, 8)
    arguments = (*x, "elu", "tf32x3", True)
    torch.library.opcheck(ops.linear_decay_triton.default, arguments)
    out, *kept = ops.linear_decay_triton(*arguments)
    given = (torch.ones_like(out), *(y.detach() for y in (*x[:3], *kept)), "elu", "tf32x3")
    torch.library.opcheck(ops.linear_decay_triton_backward.default, given)


@pytest.mark.slow
def test_second_derivatives_tangents_and_maps_of_linear_decay_triton_are_those_of_the_textbook_form(
    device: str,
) -> None:
    x = tuple(t.detach()[:, :, :70] for t in inputs(device))
    many = tuple(torch.stack([t, t / 2]) for t in x)

    def derived(attend: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        def loss(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
            return (attend(q, k, v, g=g, causal=True) / 100).sin().sum()

        gradients = torch.func.grad(loss, (0, 1, 2, 3))
        return *torch.func.jvp(gradients, x, x)[1], *torch.vmap(gradients)(*many)

    for found, wanted in zip(derived(linear_decay_triton), derived(linear_decay_explicit), strict=True):
        assert relative_error(found, wanted) < 1e-4


def test_linear_decay_triton_refuses_wrong_arguments_in_one_sentence(device: str) -> None:
    q, k, v, g = inputs(device)
    with pytest.raises(ValueError, match="cannot serve a bidirectional mode: decay is causal only"):
        linear_decay_triton(q, k, v, g=g, causal=False)
    with pytest.raises(ValueError, match=r"takes g \(1, 1, 100\) \[B, H, N\] in float32 on"):
        linear_decay_triton(q, k, v, g=g[..., :99])
    with pytest.raises(ValueError, match=r"got \(1, 1, 100\) in int64"):
        linear_decay_triton(q, k, v, g=g.long())
    with pytest.raises(TypeError, match="takes a dense tensor for g; got "):
        linear_decay_triton(q, k, v, g=-0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="input_precision 'exact' does not exist"):
        linear_decay_triton(q, k, v, g=g, input_precision="exact")
    with pytest.raises(ValueError, match="it computes in float32, bfloat16, float16, not float64"):
        linear_decay_triton(q.double(), k.double(), v.double(), g=g)


def test_the_operators_of_linear_decay_triton_refuse_what_no_pass_can_read(device: str) -> None:
    q, k, v, g = (x.detach() for x in inputs(device, 70))
    out, sums, S, totals = ops.linear_decay_triton(q, k, v, g, "elu", "tf32x3", True)
    with pytest.raises(ValueError, match=r"takes g \(1, 1, 70\) in float32"):
        ops.linear_decay_triton(q, k, v, g[..., :5].contiguous(), "elu", "tf32x3", True)
    with pytest.raises(ValueError, match="takes a contiguous g"):
        ops.linear_decay_triton(q, k, v, g[..., :1].expand(1, 1, 70), "elu", "tf32x3", True)
    for name, wrong in (
        ("do", out[:, :, :9]),
        ("sums", sums[:, :9]),
        ("S", S[..., :1]),
        ("totals", totals[:, :0]),
    ):
        given = {"do": out, "sums": sums, "S": S, "totals": totals} | {name: wrong}
        do, *kept = given.values()
        with pytest.raises(ValueError, match=f"takes {name} "):
            ops.linear_decay_triton_backward(do, q, k, v, *kept, "elu", "tf32x3")


@pytest.mark.parametrize(("width", "value_dim"), [(16, 16), pytest.param(80, 72, marks=pytest.mark.slow)])
def test_the_counted_flops_of_linear_decay_triton_are_those_of_its_costs(
    width: int, value_dim: int, device: str
) -> None:
    x = inputs(device, 130, width, value_dim, heads=2)
    with FlopCounterMode(display=False) as counter:
        out = linear_decay_triton(*x[:3], g=x[3])
        torch.autograd.grad(out.sum(), x)
    case = Case(
        "linear-decay-triton", "causal", 130, "forward_backward", device, "float32", 1, 2, width, value_dim
    )
    costs = triton_costs(case)
    assert counter.get_total_flops() == costs.countable_flops == costs.flops
    assert 0 < triton_costs(replace(case, phase="forward")).flops < costs.flops


def test_linear_decay_triton_serves_no_other_mode_than_causal(device: str) -> None:
    case = Case("linear-decay-triton", "causal", 64, device=device)
    assert supports(case) is None
    assert supports(replace(case, mode="bidirectional")) == CAUSAL_ONLY
