"""Kernels refuse tensors that do not fit together, and feature maps that return something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from attention import get_kernel, linear_attention
from attention.kernels.native import library
from attention.kernels.references import REFERENCES, relative_error
from tests.interpreted import continued
from tests.misfits import MISFITS, three

LINEAR = ("linear-explicit", "linear-chunked", "linear-native", "linear-triton")
OURS = ("standard-explicit", "standard-sdpa", "standard-sdpa-math", *LINEAR)

MAPS: dict[str, Callable[[Tensor], Any]] = {
    "every other token": lambda x: x.relu()[:, :, ::2],
    "twice the tokens": lambda x: torch.cat([x, x], 2),
    "one head": lambda x: x[:, :1],
    "one batch": lambda x: x[:1],
    "heads joined": lambda x: x.flatten(1, 2),
    "a dimension more": lambda x: x[..., None],
    "a sum": lambda x: x.sum(),
    "no features": lambda x: x[..., :0],
    "another device": lambda x: x.to("meta"),
    "integers": lambda x: x.long(),
    "booleans": lambda x: x > 0,
    "complex numbers": lambda x: x + 0j,
}
NO_TENSORS: dict[str, Callable[[Tensor], Any]] = {
    "nothing": lambda x: None,
    "a list": lambda x: x.tolist(),
    "an array": lambda x: x.numpy(),
    "a pair": lambda x: (x, x),
    "a sparse tensor": lambda x: x.to_sparse(),
}


def sentence(error: pytest.ExceptionInfo[Exception]) -> str:
    """The message of an error, which is one line."""
    (line,) = str(error.value).splitlines()
    return line


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("name", OURS)
def test_a_kernel_refuses_tensors_that_do_not_fit_together(name: str, misfit: str) -> None:
    inputs = MISFITS[misfit](*three())
    with pytest.raises(ValueError) as error:
        get_kernel(name).function(*inputs)
    assert name in sentence(error)


@pytest.mark.parametrize("name", OURS)
def test_a_kernel_refuses_what_is_no_dense_tensor(name: str) -> None:
    q, k, v = three()
    nested = torch.nested.as_nested_tensor([v[0], v[1]], layout=torch.jagged)
    for odd in (None, v.tolist(), v.numpy(), v.to_sparse(), nested):
        for inputs in ((odd, k, v), (q, odd, v), (q, k, odd)):
            with pytest.raises(TypeError) as error:
                get_kernel(name).function(*inputs)
            assert f"{name}" in sentence(error) and "takes dense tensors" in sentence(error)


@pytest.mark.parametrize("returned", MAPS)
@pytest.mark.parametrize("name", LINEAR)
def test_a_feature_map_that_returns_another_shape_or_kind_is_refused(name: str, returned: str) -> None:
    with pytest.raises(ValueError, match=r"^feature_map must .*; got ") as error:
        get_kernel(name).function(*three(), feature_map=MAPS[returned])
    sentence(error)


@pytest.mark.parametrize("returned", NO_TENSORS)
@pytest.mark.parametrize("name", LINEAR)
def test_a_feature_map_that_returns_no_dense_tensor_is_refused(name: str, returned: str) -> None:
    with pytest.raises(TypeError, match=r"^feature_map must return a dense tensor; got "):
        get_kernel(name).function(*three(), feature_map=NO_TENSORS[returned])


@pytest.mark.parametrize("name", LINEAR)
def test_a_feature_map_with_another_width_for_keys_than_for_queries_is_refused(name: str) -> None:
    widths = iter((5, 6))
    with pytest.raises(ValueError, match=r"the same F for q and k; got \(2, 2, 70, 5\) .* for k$"):
        get_kernel(name).function(*three(), feature_map=lambda x: x[..., : next(widths)])


@pytest.mark.parametrize("causal", [False, True])
def test_linear_attention_refuses_a_feature_map_that_drops_tokens(causal: bool) -> None:
    with pytest.raises(ValueError, match="feature_map must map"):
        linear_attention(*three(), causal=causal, feature_map=lambda x: x.relu()[:, :, ::2])


@pytest.mark.parametrize("name", LINEAR[:3])
def test_a_feature_map_may_return_other_widths_dtypes_and_strides(name: str) -> None:
    q, k, v = three()

    def phi(x: Tensor) -> Tensor:
        return torch.cat([x, -x, x.sin()], -1).relu().double().transpose(1, 2).contiguous().transpose(1, 2)

    out = get_kernel(name).function(q, k, v, feature_map=phi)
    assert out.dtype == v.dtype
    assert relative_error(out, REFERENCES["linear"](q, k, v, feature_map=phi)) < 1e-6


@pytest.mark.parametrize("name", OURS[:-1])
@pytest.mark.parametrize("sizes", [(0, 2, 5), (2, 0, 5), (2, 2, 0)])
def test_a_kernel_of_no_batch_heads_or_tokens_returns_an_empty_output(
    name: str, sizes: tuple[int, int, int]
) -> None:
    inputs = [x.requires_grad_() for x in three(*sizes)]
    out = get_kernel(name).function(*inputs, causal=True)
    assert out.shape == inputs[2].shape
    gradients = torch.autograd.grad(out.sum(), inputs)
    assert [x.shape for x in gradients] == [x.shape for x in inputs]


def test_dtypes_may_differ_under_autocast_where_torch_brings_them_together() -> None:
    q, k, v = three()
    with torch.autocast("cpu", torch.bfloat16):
        out = get_kernel("standard-explicit").function(q.bfloat16(), k, v)
        with pytest.raises(ValueError, match="linear-native takes q"):
            torch.ops.attention.linear_native(q.bfloat16(), k, v, True, "elu", 1e-6, None, False)
    assert out.shape == v.shape
    on_meta = [x.to("meta") for x in (q, k.half(), v)]
    with pytest.raises(ValueError, match="standard-explicit takes q"):
        get_kernel("standard-explicit").function(*on_meta)


@pytest.mark.parametrize("misfit", MISFITS)
def test_linear_triton_refuses_to_continue_from_tensors_that_do_not_fit_together(misfit: str) -> None:
    with pytest.raises(ValueError, match="linear-triton"):
        continued(*MISFITS[misfit](*three()))


@pytest.mark.parametrize("name", LINEAR[:3])
def test_a_compiled_graph_refuses_tensors_that_do_not_fit_together(name: str) -> None:
    q, k, v = three()
    compiled = torch.compile(get_kernel(name).function, backend="aot_eager")
    with pytest.raises(Exception, match=name):
        compiled(q, k[:, :1], v)


def test_misfits_are_refused_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence about the tensors comes before the one about the compiler."""
    monkeypatch.setattr(library, "_loaded", lambda *_: (None, "there is no compiler"))
    q, k, v = three()
    with pytest.raises(ValueError, match="linear-native takes q"):
        get_kernel("linear-native").function(q, k[:, :1], v)


def test_a_further_tensor_without_memory_is_refused() -> None:
    q, k, v = three()
    out, inverse, states = torch.ops.attention.linear_native(q, k, v, True, "elu", 1e-6, None, True)
    for kept in ((out.to("meta"), inverse, states), (out, inverse.to("meta"), states)):
        with pytest.raises(ValueError, match="linear-native takes tensors of one device"):
            torch.ops.attention.linear_native_backward(out, q, k, v, *kept, True, "elu", None)
    out, den, states = torch.ops.attention.linear_chunked(q, k, v, True, "elu", 1e-6, 64, True)
    with pytest.raises(ValueError, match="linear-chunked takes tensors of one device"):
        torch.ops.attention.linear_chunked_backward(
            out, q, k, v, out, den.to("meta"), states, True, "elu", 64
        )
    S, z = (torch.zeros(6, 8, 4), torch.zeros(6, 8))
    with pytest.raises(ValueError, match="linear-triton takes tensors of one device"):
        torch.ops.attention.linear_triton(
            q, k, v, S.to("meta"), z, True, "elu", 1e-6, "ieee", None, False, False
        )
