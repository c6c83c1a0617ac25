"""Sliding-window attention: both kernels against the oracle, its bounds, and what they refuse.

Windows are small, so that short sequences lie on both sides of them. On a CPU each form of inputs takes
window-flex seconds to compile: its tests keep to few of them.
"""

from __future__ import annotations

import math

import pytest
import torch

from attention import standard_attention, window_attention
from attention.kernels.references import (
    REFERENCES,
    TOLERANCES,
    Head,
    Rows,
    gradient_error,
    relative_error,
    rows,
    window_reference,
)
from attention.kernels.window import window_flex, window_sdpa
from tests.kernel_cases import LAYOUTS
from tests.windows import exact, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTHS = (1, 2, 63, 64, 65, 130, 300)
WINDOWS = (1, 2, 7, 64, 65, 129, 300, 1000)


@pytest.mark.parametrize("seq_len", [1, 40, 41, 200])
def test_the_oracle_of_a_window_is_softmax_of_the_keys_it_holds(seq_len: int) -> None:
    """Query by query: torch's softmax over its own slice of the keys."""
    q, k, v = inputs_of(seq_len, "float64", "cpu")
    out = window_reference(q, k, v, window=40)
    for i in range(seq_len):
        keys = slice(max(0, i - 39), i + 1)
        weights = torch.softmax(q[:, :, i : i + 1] @ k[:, :, keys].mT / math.sqrt(16), dim=-1)
        assert relative_error(out[:, :, i : i + 1], weights @ v[:, :, keys]) < 1e-14


@pytest.mark.parametrize("window", WINDOWS)
def test_window_sdpa_equals_the_oracle_around_its_window_with_gradients(
    window: int, dtype: str, device: str
) -> None:
    for seq_len in sorted({*LENGTHS, window, window + 1} - {1000, 1001}):
        inputs = inputs_of(seq_len, dtype, device, "forward_backward")
        out = window_sdpa(*inputs, window=window)
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out)
        expected, gradients = exact(inputs, window, grad)
        forward, backward = TOLERANCES[inputs[0].dtype]
        assert relative_error(out, expected) <= forward, seq_len
        # A single key has the weight one, whatever the query: dq and dk are roundings.
        if min(window, seq_len) > 1:
            assert gradient_error(torch.autograd.grad(out, inputs, grad), gradients) <= backward, seq_len


@pytest.mark.parametrize(("head_dim", "value_dim"), [(1, 1), (5, 3), (16, 80), (80, 64)])
def test_window_sdpa_equals_the_oracle_at_every_width_with_gradients(
    head_dim: int, value_dim: int, device: str
) -> None:
    inputs = inputs_of(200, "float32", device, "forward_backward", head_dim=head_dim, value_dim=value_dim)
    out = window_sdpa(*inputs, window=30)
    expected, gradients = exact(inputs, 30, torch.ones_like(out))
    assert relative_error(out, expected) <= 1e-5
    assert gradient_error(torch.autograd.grad(out, inputs, torch.ones_like(out)), gradients) <= 5e-5


def test_derivatives_of_window_sdpa_are_true_in_float64(device: str) -> None:
    inputs = inputs_of(150, "float64", device, "forward_backward", batch=1, heads=1, head_dim=2)
    assert torch.autograd.gradcheck(
        lambda *x: window_sdpa(*x, window=5), inputs, nondet_tol=1e-12, check_forward_ad=True, fast_mode=True
    )


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
def test_a_key_outside_of_the_window_changes_nothing_and_one_inside_does(backend: str, device: str) -> None:
    q, k, v = inputs_of(400, "float32", device)
    window, changed = 70, 120
    before = window_attention(q, k, v, window=window, backend=backend)
    v[:, :, changed] = 9.0
    k[:, :, changed] += 1.0
    after = window_attention(q, k, v, window=window, backend=backend)
    moved = (after != before).any(-1).all(1).all(0).nonzero().flatten().tolist()
    assert moved == list(range(changed, changed + window))


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
def test_a_window_of_all_keys_is_causal_softmax_attention(backend: str, device: str) -> None:
    q, k, v = inputs_of(300, "float32", device)
    found = window_attention(q, k, v, window=300, scale=0.3, backend=backend)
    expected = standard_attention(q, k, v, causal=True, scale=0.3)
    assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
def test_strides_do_not_change_a_window(backend: str, device: str) -> None:
    for layout in LAYOUTS.values():
        strided = [layout(x) for x in inputs_of(200, "float32", device)]
        plain = [x.contiguous() for x in strided]
        found, expected = (window_attention(*x, window=50, backend=backend) for x in (strided, plain))
        assert relative_error(found, expected) < 1e-6


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
def test_a_window_compiles_into_one_graph(backend: str, device: str) -> None:
    """torch's code of a CPU fuses nothing behind flex_attention, so that nothing stands there."""
    inputs = inputs_of(300, "float32", device)
    compiled = torch.compile(lambda *x: window_attention(*x, window=40, backend=backend), fullgraph=True)
    assert relative_error(compiled(*inputs), exact(inputs, 40)[0]) < 1e-5


@pytest.mark.parametrize("block", [1, 64, 2048])
@pytest.mark.parametrize("seq_len", [1, 2, 70, 150])
def test_rows_of_a_window_equal_those_of_the_whole_oracle(
    seq_len: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BLOCK", block)
    monkeypatch.setattr(rows, "BLOCK_SCORES", block)
    inputs = inputs_of(seq_len, "float64", "cpu", batch=1, heads=1, head_dim=5, value_dim=3)
    grad = torch.randn(1, 1, seq_len, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out, gradients = exact(inputs, 20, grad)
    q, k, v = (x[0, 0] for x in inputs)
    head = Head("window", True, q, k, v, window=20)
    places = torch.tensor(sorted({0, seq_len // 3, seq_len - 1}))
    found = (
        rows.output_rows(head, places),
        rows.query_gradient_rows(head, places, grad[0, 0]),
        *rows.key_gradient_rows(head, places, grad[0, 0], out[0, 0]),
    )
    for one, whole in zip(found, (out, *gradients), strict=True):
        assert float(one.errors(whole[0, 0, places]).max()) < 1e-13
        assert float(one.errors(1.01 * one.values).max()) > 1e-3 or seq_len == 1


def test_rows_of_the_registered_reference_have_the_window_of_the_kernels() -> None:
    inputs = inputs_of(1100, "float64", "cpu", batch=1, heads=1)
    q, k, v = (x[0, 0] for x in inputs)
    head, places = Head("window", True, q, k, v), torch.tensor([1099])
    of_rows = REFERENCES["window"].output_rows
    assert of_rows is not None
    found: Rows = of_rows(head, places)
    assert relative_error(found.values, exact(inputs, 1024)[0][0, 0, places]) < 1e-13
    assert relative_error(found.values, exact(inputs, 1025)[0][0, 0, places]) > 1e-5


def test_what_is_no_window_is_refused_in_a_sentence() -> None:
    x = torch.ones(1, 1, 3, 4)
    for wrong in (1.5, "8", None, True):
        with pytest.raises(TypeError, match="window must be an integer, the keys that a query sees; got"):
            window_attention(x, x, x, window=wrong)  # type: ignore[arg-type]
    for none in (0, -3):
        with pytest.raises(ValueError, match=f"window must be at least 1, the query's own key; got {none}"):
            window_attention(x, x, x, window=none)
    for function in (window_sdpa, window_flex):
        with pytest.raises(ValueError, match="it is causal only; ask for causal=True"):
            function(x, x, x, causal=False)
    with pytest.raises(ValueError, match="for window attention; choose auto or one of flex, sdpa"):
        window_attention(x, x, x, backend="triton")


def test_a_named_backend_of_a_window_is_used_or_refused() -> None:
    x = torch.ones(1, 1, 30, 4, requires_grad=True)
    with pytest.raises(ValueError, match=r"window-flex cannot serve .* no backward on the CPU"):
        window_attention(x, x, x, backend="flex")
    with pytest.raises(ValueError, match=r"no transforms of torch\.func"):
        torch.func.vmap(lambda q: window_flex(q, q, q))(torch.ones(2, 1, 1, 30, 4))
    assert window_attention(x, x, x, window=5).requires_grad


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
def test_a_window_of_nothing_is_empty(backend: str) -> None:
    for shape in ((2, 2, 0, 4), (0, 2, 5, 4)):
        assert window_attention(*[torch.ones(shape)] * 3, backend=backend).shape == shape


@pytest.mark.parametrize("shape", [(0, 8, 65, 16), (2, 0, 65, 16), (0, 8, 1025, 16)])
def test_a_window_of_no_sequence_is_empty(shape: tuple[int, ...], device: str) -> None:
    x = torch.zeros(shape, device=device)
    assert window_sdpa(x, x, x, window=8).shape == shape


def test_a_window_over_tokens_that_share_memory_equals_one_over_copies(device: str) -> None:
    """torch writes an output in the layout of its queries, over its own rows where these overlap."""
    shared = torch.randn(4000, device=device).as_strided((1, 2, 64, 8), (128, 64, 1, 1))
    k, v = torch.randn(2, 1, 2, 64, 8, device=device).unbind()
    for window in (2, 100):
        found, expected = (window_sdpa(q, k, v, window=window) for q in (shared, shared.contiguous()))
        assert relative_error(found, expected) < 1e-6
