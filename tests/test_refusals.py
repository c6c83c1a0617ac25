"""What no kernel takes is refused in a sentence: TypeError for a kind of object, ValueError for a value."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from attention import SelfAttention, linear_attention, standard_attention
from attention.kernels.references import relative_error

pytestmark = pytest.mark.usefixtures("one_thread")

X = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
FUNCTIONS = (linear_attention, standard_attention)
KINDS: dict[str, Callable[[], Any]] = {
    "list": X.tolist,
    "ndarray": X.numpy,
    "None": lambda: None,
    "str": lambda: "q",
    "sparse_coo": X.to_sparse,
    "nested": lambda: torch.nested.as_nested_tensor([X[0], X[0]]),
    "jagged": lambda: torch.nested.as_nested_tensor([X[0, 0], X[0, 0]], layout=torch.jagged),
}
DTYPES = (torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attend", FUNCTIONS)
def test_what_is_no_strided_tensor_is_a_type_error_that_names_it(
    attend: Callable[..., Tensor], kind: str, place: int
) -> None:
    x: list[Any] = [X, X, X]
    x[place] = KINDS[kind]()
    with pytest.raises(TypeError, match=f"q, k and v must be strided tensors.*got.*{kind}"):
        attend(*x)


@pytest.mark.parametrize("foreign", DTYPES)
@pytest.mark.parametrize("attend", FUNCTIONS)
def test_a_dtype_that_no_kernel_has_is_a_value_error(
    attend: Callable[..., Tensor], foreign: torch.dtype
) -> None:
    for x in ((X.to(foreign),) * 3, (X, X, X.to(foreign))):
        with pytest.raises(ValueError, match=r"must share one dtype out of float64, float32"):
            attend(*x)


@pytest.mark.parametrize("attend", FUNCTIONS)
@pytest.mark.parametrize(
    ("option", "values"),
    [("causal", (None, "yes", 1, torch.tensor(True))), ("backend", (None, 3, ["sdpa"]))],
)
def test_an_option_of_another_type_is_a_type_error(
    attend: Callable[..., Tensor], option: str, values: tuple[object, ...]
) -> None:
    for value in values:
        with pytest.raises(TypeError, match=f"{option} must be"):
            attend(X, X, X, **{option: value})


@pytest.mark.parametrize(("attend", "name"), [(linear_attention, "eps"), (standard_attention, "scale")])
def test_a_number_that_is_none_or_not_finite_is_refused(attend: Callable[..., Tensor], name: str) -> None:
    for value in ("x", True, torch.tensor(0.1), [1.0]):
        with pytest.raises(TypeError, match=f"{name} must be a number"):
            attend(X, X, X, **{name: value})
    for number in (float("nan"), float("inf"), 10**400):
        with pytest.raises(ValueError, match=f"{name} must be finite"):
            attend(X, X, X, **{name: number})
    assert torch.equal(attend(X, X, X, **{name: 1}), attend(X, X, X, **{name: 1.0}))


def test_eps_is_neither_none_nor_negative() -> None:
    with pytest.raises(TypeError, match="eps must be a number, got NoneType"):
        linear_attention(X, X, X, eps=None)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="eps must be finite and at least 0, got -1"):
        linear_attention(X, X, X, eps=-1)


BACKENDS = [
    *((linear_attention, name) for name in ("auto", "native", "chunked", "explicit")),
    *((standard_attention, name) for name in ("auto", "explicit", "sdpa-math", "sdpa-flash")),
]


@pytest.mark.parametrize(("attend", "backend"), BACKENDS)
def test_autocast_casts_what_is_not_float64_as_it_does_for_sdpa(
    attend: Callable[..., Tensor], backend: str
) -> None:
    q = X.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(q, X.bfloat16(), X.half(), backend=backend)
        wide = attend(X.double(), X.double(), X.double(), backend=backend)
        theirs = torch.nn.functional.scaled_dot_product_attention(q, X.bfloat16(), X.half())
    assert out.dtype == theirs.dtype == torch.bfloat16 and wide.dtype == torch.float64
    exact = X.double().requires_grad_()
    expected = attend(exact, X.double(), X.double(), backend="explicit")
    assert relative_error(out, expected) < 2**-6
    (got,) = torch.autograd.grad(out.float().sin().sum(), q)
    (wanted,) = torch.autograd.grad(expected.sin().sum(), exact)
    assert got.dtype == torch.float32 and relative_error(got, wanted) < 0.1


@pytest.mark.parametrize(("attend", "backend"), BACKENDS)
def test_empty_batches_and_sequences_have_empty_outputs_and_gradients(
    attend: Callable[..., Tensor], backend: str
) -> None:
    for shape in ((0, 2, 5, 4), (2, 2, 0, 4), (0, 2, 0, 4)):
        x = torch.zeros(shape, requires_grad=True)
        out = attend(x, x, x, backend=backend)
        out.sum().backward()  # type: ignore[no-untyped-call]
        assert out.shape == shape and x.grad is not None and x.grad.shape == shape


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "strides", [(8, 1, 8, 1), (1, 8, 4, 1), (16, 1, 4, 1), (1, 320, 0, 1), (0, 200, 4, 1)]
)
def test_tensors_whose_tokens_share_memory_have_outputs_and_gradients_of_their_own(
    stored: torch.dtype, strides: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(3000, generator=generator).to(stored)
    k, v, weights = torch.randn(3, 1, 2, 20, 16, generator=generator).to(stored)
    shared = base.as_strided((1, 2, 20, 16), strides)
    for causal in (False, True):
        for place in range(3):
            x = [shared if i == place else y for i, y in enumerate((shared.clone(), k, v))]
            x = [y.detach().requires_grad_() for y in x]
            exact = [y.detach().double().contiguous().requires_grad_() for y in x]
            got, wanted = (
                torch.autograd.grad(standard_attention(*y, causal=causal), y, weights.to(y[0].dtype))
                for y in (x, exact)
            )
            scale = max(y.norm() for y in wanted)
            assert max((a - b).norm() / scale for a, b in zip(got, wanted, strict=True)) < 2e-2


def test_the_layer_takes_one_sequence_and_empty_batches_as_torch_does() -> None:
    for name in ("standard", "linear", "linear-chunked"):
        layer = SelfAttention(48, 3, kernel=name)
        x = torch.randn(2, 9, 48)
        assert relative_error(layer(x[1]), layer(x)[1]) < 1e-5
        for shape in ((0, 5, 48), (2, 0, 48), (0, 48)):
            empty = torch.zeros(shape, requires_grad=True)
            out = layer(empty)
            out.sum().backward()
            assert out.shape == shape and empty.grad is not None


def test_the_layer_refuses_what_it_cannot_take_in_a_sentence() -> None:
    layer = SelfAttention(48, 3)
    for wrong in (None, [1.0], torch.zeros(2, 48).to_sparse(), torch.zeros(2, 48).numpy()):
        with pytest.raises(TypeError, match=r"SelfAttention takes strided tensors; got .* for x"):
            layer(wrong)
    for shape in ((48,), (2, 9, 3), (1, 2, 9, 48)):
        with pytest.raises(ValueError, match=r"takes a tensor \[batch, seq_len, 48\] or \[seq_len, 48\]"):
            layer(torch.zeros(shape))
    with pytest.raises(TypeError, match="embed_dim, num_heads and num_kv_heads must be integers"):
        SelfAttention("48", 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"takes a torch\.nn\.MultiheadAttention; got Linear"):
        SelfAttention.from_torch(torch.nn.Linear(3, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize("eps", [Fraction(1, 10), 2**70, 1])
def test_any_real_number_serves_as_its_float(eps: float) -> None:
    x = torch.ones(1, 1, 3, 2)
    assert torch.equal(linear_attention(x, x, x, eps=eps), linear_attention(x, x, x, eps=float(eps)))
    scaled = standard_attention(x, x, x, scale=Fraction(1, 8))  # type: ignore[arg-type]
    assert torch.equal(scaled, standard_attention(x, x, x, scale=1 / 8))


def _itself(attend: Callable[..., Tensor], x: Tensor) -> Tensor:
    return attend(x, x, x)


def test_a_tracer_with_symbolic_sizes_passes_the_cache_by() -> None:
    x = torch.ones(1, 2, 5, 3)
    for attend in (linear_attention, standard_attention):
        graph = make_fx(partial(_itself, attend), tracing_mode="symbolic")(x)
        torch.testing.assert_close(graph(x), attend(x, x, x))


@pytest.mark.parametrize(
    "options", [{"causal": 1}, {"causal": None}, {"kernel": ["standard"]}, {"kernel": None}]
)
def test_the_layer_refuses_options_of_another_type_when_built(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"causal must be True or False|kernel must be the name"):
        SelfAttention(8, 2, **options)


def test_the_layer_refuses_another_dtype_or_device_than_that_of_its_weights() -> None:
    layer, x = SelfAttention(8, 2), torch.ones(1, 3, 8)
    for other in (x.double(), x.int(), x.to("meta")):
        with pytest.raises(ValueError, match="SelfAttention takes tensors like its weights"):
            layer(other)
    with torch.autocast("cpu"):
        assert layer(x.bfloat16()).shape == x.shape
