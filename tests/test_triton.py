"""linear-triton: compiled on CUDA, and under Triton's interpreter on a CPU.

The interpreter must be chosen before Triton is imported, so on a CPU the last test runs all others, and those
of linear-decay-triton, in a process of their own. Inputs are small, because the interpreter takes tens of
milliseconds a chunk: segments of 64 tokens and chunks of 32 cross every boundary within a hundred tokens.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attention import Case, State
from attention.case import MODES
from attention.kernels.linear_explicit import linear_explicit
from attention.kernels.linear_triton.kernel import linear_triton
from attention.kernels.references import (
    TOLERANCES,
    errors_against_reference,
    gradient_error,
    linear_reference,
    relative_error,
)
from attention.kernels.triton_common.checks import supports
from tests.interpreted import (
    INTERPRETED,
    continued,
    filled_with_nan,
    inputs,
    set_rules,
)

pytestmark = pytest.mark.usefixtures("triton_passes")


@pytest.mark.parametrize(("inputs_in", "head_dim", "value_dim"), [("float32", 16, 40), ("float16", 24, 16)])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("moved_by", ["pointers", "descriptors"])
def test_linear_triton_equals_the_oracle_with_gradients(
    moved_by: str, mode: str, inputs_in: str, head_dim: int, value_dim: int, device: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Inputs have a ragged length of two segments, and widths that are no power of two."""
    set_rules(monkeypatch, DESCRIBED=0 if moved_by == "descriptors" else 2**62)
    case = Case("linear-triton", mode, 100, "forward_backward", device, inputs_in, 1, 1, head_dim, value_dim)
    errors = errors_against_reference(case)
    assert errors.within(case.torch_dtype), errors


@pytest.mark.parametrize("feature_map", ["relu", "identity"])
def test_linear_triton_of_relu_and_identity_equals_the_oracle_with_gradients(
    feature_map: str, device: str
) -> None:
    q, k, v = inputs(device)
    out = linear_triton(q, k, v, causal=True, feature_map=feature_map, eps=30.0)
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    reference = linear_reference(*exact, causal=True, feature_map=feature_map, eps=30.0)
    weights = torch.randn_like(out)
    got = torch.autograd.grad(out, (q, k, v), weights)
    wanted = torch.autograd.grad(reference, exact, weights.double())
    assert relative_error(out, reference) < TOLERANCES[torch.float32][0]
    assert gradient_error(got, wanted) < TOLERANCES[torch.float32][1]


@pytest.mark.parametrize("mode", MODES)
def test_linear_triton_of_values_of_one_gives_den_over_den_plus_eps(mode: str, device: str) -> None:
    q, k, v = (x.detach() for x in inputs(device))
    causal, phi = mode == "causal", torch.nn.functional.elu
    den = ((phi(q) + 1) * (phi(k) + 1).cumsum(2)).sum(-1, keepdim=True)
    den = den if causal else ((phi(q) + 1) @ (phi(k) + 1).sum(2).unsqueeze(-1))
    out = linear_triton(q, k, torch.ones_like(v), causal=causal, eps=100.0)
    assert relative_error(out, (den / (den + 100)).expand_as(out)) < TOLERANCES[torch.float32][0]


def test_gradients_of_linear_triton_reach_the_parameters_of_a_callable_feature_map(device: str) -> None:
    q, k, v = inputs(device)
    layer = torch.nn.Linear(16, 12, device=device)

    def phi(x: Tensor) -> Tensor:
        return torch.nn.functional.softplus(layer.to(x.dtype)(x))

    weights = torch.randn_like(v)
    got = torch.autograd.grad(linear_triton(q, k, v, feature_map=phi), layer.weight, weights)
    wanted = torch.autograd.grad(
        linear_reference(q, k, v, feature_map=phi, dtype=q.dtype), layer.weight, weights
    )
    assert gradient_error(got, wanted) < TOLERANCES[torch.float32][1]


@pytest.mark.parametrize("mode", MODES)
def test_linear_triton_does_not_depend_on_segments_being_added_up_or_scanned(
    mode: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results are equal for one segment, three added up by each program, and three scanned."""
    results = []
    for least, folded in ((1024, 2**17), (64, 2**17), (64, 0)):
        set_rules(monkeypatch, LEAST_TOKENS=least, FOLDED=folded)
        q, k, v = inputs(device, (1, 1, 130, 16))
        out = linear_triton(q, k, v, causal=mode == "causal")
        results.append([out, *torch.autograd.grad(out, (q, k, v), torch.ones_like(out))])
    for other in results[1:]:
        for x, y in zip(results[0], other, strict=True):
            # A hundred float32 are summed in another order.
            assert relative_error(y, x) < 1e-5


@pytest.mark.parametrize("mode", ["causal", pytest.param("bidirectional", marks=pytest.mark.slow)])
def test_no_uninitialised_memory_reaches_a_result_of_linear_triton(mode: str, device: str) -> None:
    def results() -> list[Tensor]:
        q, k, v = inputs(device, (1, 2, 70, 12), value_dim=5)
        out = linear_triton(q, k, v, causal=mode == "causal")
        other, state = continued(q, k, v, causal=mode == "causal")
        loss = (out + other).sum() + state[0].sum() + state[1].sum()
        return [out, other, *state, *torch.autograd.grad(loss, (q, k, v))]

    clean = results()
    with filled_with_nan():
        poisoned = results()
    assert all(map(torch.equal, poisoned, clean))


def test_two_calls_of_linear_triton_give_the_same_bits(device: str) -> None:
    q, k, v = inputs(device)
    first, second = (linear_triton(q, k, v, causal=True) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("moved_by", ["pointers", "descriptors"])
def test_linear_triton_continued_from_a_state_equals_one_call_with_gradients(
    moved_by: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_rules(monkeypatch, DESCRIBED=0 if moved_by == "descriptors" else 2**62)
    q, k, v = inputs(device, value_dim=24)
    one_call = linear_triton(q, k, v, causal=True)
    head, state = continued(q[:, :, :37], k[:, :, :37], v[:, :, :37])
    tail, (S, z) = continued(q[:, :, 37:], k[:, :, 37:], v[:, :, 37:], state)
    joined = torch.cat([head, tail], dim=2)
    assert relative_error(joined, one_call) < 1e-5
    weights = torch.randn_like(one_call)
    expected = torch.autograd.grad(one_call, (q, k, v), weights)
    # A gradient of the last state, zero here, must reach the keys and values of both parts.
    got = torch.autograd.grad((joined * weights).sum() + 0 * S.sum() + 0 * z.sum(), (q, k, v))
    for x, y in zip(got, expected, strict=True):
        assert relative_error(x, y) < 1e-5


def test_the_last_state_of_linear_triton_and_its_gradients_are_those_of_the_sums(device: str) -> None:
    q, k, v = inputs(device)
    _, (S, z) = continued(q, k, v)
    phi = torch.nn.functional.elu(k) + 1
    S_wanted, z_wanted = phi.mT @ v, phi.sum(2)
    assert relative_error(S, S_wanted) < 1e-5
    assert relative_error(z, z_wanted) < 1e-5
    w, u = torch.randn_like(S), torch.randn_like(z)
    got = torch.autograd.grad((S * w).sum() + (z * u).sum(), (k, v))
    wanted = torch.autograd.grad((S_wanted * w).sum() + (z_wanted * u).sum(), (k, v))
    for x, y in zip(got, wanted, strict=True):
        assert relative_error(x, y) < 1e-5


def test_strides_do_not_change_the_bits_of_linear_triton(device: str) -> None:
    q, k, v = (x.detach() for x in inputs(device, (1, 2, 70, 16)))
    expected = linear_triton(q, k, v, causal=True)
    turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    assert torch.equal(linear_triton(*turned, causal=True), expected)
    one = [x[:, :1].expand(-1, 2, -1, -1) for x in (q, k, v)]
    assert torch.equal(linear_triton(*one, causal=True)[:, 1], expected[:, 0])


def test_linear_triton_of_an_empty_sequence_is_empty(device: str) -> None:
    q = torch.randn(1, 2, 0, 16, device=device, requires_grad=True)
    out = linear_triton(q, q, q)
    assert out.shape == (1, 2, 0, 16)
    assert torch.autograd.grad(out.sum(), q)[0].shape == q.shape
    out, (S, z) = continued(q, q, q)
    assert out.numel() == 0
    assert not S.any() and S.shape == (1, 2, 16, 16)
    assert not z.any() and z.shape == (1, 2, 16)


@pytest.mark.slow
def test_linear_triton_compiled_as_a_full_graph_gives_the_same_bits_with_gradients(device: str) -> None:
    q, k, v = inputs(device)
    compiled = torch.compile(linear_triton, backend="aot_eager", fullgraph=True)
    for causal in (True, False):
        weights = torch.randn_like(v)
        out, expected = (f(q, k, v, causal=causal) for f in (compiled, linear_triton))
        assert torch.equal(out, expected)
        got, wanted = (torch.autograd.grad(x, (q, k, v), weights) for x in (out, expected))
        assert all(torch.equal(x, y) for x, y in zip(got, wanted, strict=True))
    with torch.no_grad():
        assert torch.equal(compiled(q, k, v), linear_triton(q, k, v))


def test_gradients_of_linear_triton_by_torch_func_equal_those_by_autograd(device: str) -> None:
    q, k, v = inputs(device)
    weights = torch.randn_like(v)

    def loss(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        found: Tensor = (linear_triton(q, k, v, causal=True) * weights).sum()
        return found

    got = torch.func.grad(loss, (0, 1, 2))(*(x.detach() for x in (q, k, v)))
    wanted = torch.autograd.grad(loss(q, k, v), (q, k, v))
    assert all(torch.equal(x, y) for x, y in zip(got, wanted, strict=True))


@pytest.mark.slow
def test_second_derivatives_tangents_and_maps_of_linear_triton_are_those_of_the_textbook_form(
    device: str,
) -> None:
    x = tuple(t.detach()[:, :, :70] for t in inputs(device))
    many = tuple(torch.stack([t, -t]) for t in x)

    def derived(attend: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        def loss(*x: Tensor) -> Tensor:
            return attend(*x, causal=True).sin().sum()

        gradients = torch.func.grad(loss, (0, 1, 2))
        pull = torch.func.vjp(partial(attend, causal=True), *x)[1]
        return (
            *torch.func.jvp(gradients, x, x)[1],
            *torch.func.vjp(gradients, *x)[1](x),
            *torch.vmap(gradients)(*many),
            *torch.vmap(pull)(many[2]),
        )

    for found, wanted in zip(derived(linear_triton), derived(linear_explicit), strict=True):
        assert relative_error(found, wanted) < 1e-4


def test_linear_triton_with_a_state_refuses_tangents_maps_and_second_derivatives(device: str) -> None:
    q, k, v = inputs(device)
    (first,) = torch.autograd.grad(continued(q, k, v)[0].sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="linear-triton with a state is differentiated once"):
        torch.autograd.grad(first.sum() + q.sum(), q)
    x = tuple(t.detach() for t in (q, k, v))
    with pytest.raises(RuntimeError, match="use linear_attention"):
        torch.func.jvp(lambda *x: continued(*x)[0], x, x)


def test_a_launch_of_linear_triton_is_remembered_by_lengths_widths_and_alignment(device: str) -> None:
    """A kernel compiled for one alignment, length and width must not run for another."""
    for N, D, offset in ((70, 16, 0), (64, 16, 0), (70, 16, 1), (70, 24, 0), (70, 16, 0)):
        generator = torch.Generator().manual_seed(5)
        flat = torch.randn(3 * N * D + offset, generator=generator).to(device)[offset:]
        q, k, v = flat.view(3, 1, 1, N, D)
        for _ in range(2):
            out = linear_triton(q, k, v, causal=True)
            assert relative_error(out, linear_reference(q, k, v, causal=True)) < TOLERANCES[torch.float32][0]


def test_the_feature_map_of_linear_triton_passes_a_nan_on(device: str) -> None:
    q, k, v = (x.detach() for x in inputs(device))
    k[0, 0, 50, 3] = float("nan")
    out = linear_triton(q, k, v, causal=True)
    assert out[0, 0, 50:].isnan().all()
    assert not out[0, 0, :32].isnan().any()


def test_linear_triton_refuses_wrong_arguments_in_one_sentence(device: str) -> None:
    q, k, v = inputs(device)
    with pytest.raises(
        ValueError, match="input_precision 'exact' does not exist; choose one of ieee, tf32x3"
    ):
        linear_triton(q, k, v, input_precision="exact")
    with pytest.raises(ValueError, match=r"initial_state must be S \[B, Hkv, D, Dv\] = \[1, 1, 16, 16\]"):
        continued(q, k, v, State(q, k))
    with pytest.raises(ValueError, match="it computes in float32, bfloat16, float16, not float64"):
        linear_triton(q.double(), k.double(), v.double())


def test_linear_triton_gives_a_reason_for_a_case_that_it_does_not_serve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    case = Case("linear-triton", "causal", 64, dtype="float64", head_dim=512)
    assert supports(case) == "Triton compiles for CUDA devices only, and the case is on cpu"
    assert "not float64" in str(supports(replace(case, device="cuda")))
    assert supports(replace(case, device="cuda", dtype="float32")) == (
        "head_dim and value_dim may be 256 at most, got 512"
    )


def test_an_undefined_gradient_of_the_output_of_linear_triton_gives_no_gradients(device: str) -> None:
    q, k, v = inputs(device)
    undefined: Callable[[Tensor], Tensor] = torch._C._functions.UndefinedGrad()  # type: ignore[assignment]
    out = undefined(linear_triton(q, k, v, causal=True))
    assert all(x is None for x in torch.autograd.grad(out.sum(), (q, k, v), allow_unused=True))


@pytest.mark.skipif(INTERPRETED, reason="this is the process of its own")
@pytest.mark.parametrize(
    ("chosen", "skipped"), [("not slow", 1), pytest.param("slow", 1, marks=pytest.mark.slow)]
)
def test_all_tests_of_kernels_in_triton_pass_in_the_interpreter(
    chosen: str, skipped: int, device: str
) -> None:
    """Skipped in the interpreter are this test and, being not slow, that of compiled passes."""
    if device == "cuda":
        pytest.skip("compiled, on the card")
    assert find_spec("triton"), "the tests need Triton's interpreter: pip install triton"
    here = Path(__file__).parent
    files = [
        str(here / name)
        for name in (
            "test_triton.py",
            "test_triton_forms.py",
            "test_triton_range.py",
            "test_fast_path.py",
            "test_decay_triton.py",
        )
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", chosen, *files],
        capture_output=True, text=True, check=False, cwd=here.parent,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(rf"(?<!\d){skipped} skipped", done.stdout), done.stdout[-500:]
