"""A layer is pickled, copied, saved, loaded and exported with its kernel."""

from __future__ import annotations

import copy
import io
import pickle
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

import attention
from attention import SelfAttention, get_kernel, linear_attention
from attention.kernels.references import relative_error

pytestmark = pytest.mark.usefixtures("one_thread")


def saved_and_loaded(layer: SelfAttention) -> SelfAttention:
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert isinstance(loaded, SelfAttention)
    return loaded


@pytest.mark.parametrize("name", ["standard", "linear", "linear-native", "standard-sdpa-math"])
def test_a_layer_pickled_copied_or_saved_gives_the_same_bits(name: str) -> None:
    layer, x = SelfAttention(48, 3, kernel=name, causal=True), torch.randn(2, 9, 48)
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), saved_and_loaded(layer)):
        assert other.kernel.name == layer.kernel.name
        assert torch.equal(other(x), layer(x))


def test_a_kernel_is_hashed_and_an_unregistered_copy_keeps_its_precision() -> None:
    kernel = get_kernel("linear-explicit")
    assert len({kernel, get_kernel("linear-explicit")}) == 1
    coarse = replace(kernel, name="linear-coarse", precision={"float32": "tf32"})
    assert copy.deepcopy(coarse).precision == {"float32": "tf32"}


def test_a_registered_kernel_is_pickled_as_itself() -> None:
    for name in attention.list_kernels():
        assert pickle.loads(pickle.dumps(attention.get_kernel(name))) is attention.get_kernel(name)


class Attend(nn.Module):
    """linear_attention() as a module, which is what torch exports."""

    def __init__(self, backend: str, causal: bool) -> None:
        super().__init__()
        self.backend, self.causal = backend, causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return linear_attention(q, k, v, causal=self.causal, backend=self.backend)


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", ["native", "chunked"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_exported_function_serves_every_length_and_batch_with_gradients(
    backend: str, causal: bool, recorded: bool, strict: bool
) -> None:
    """Whether or not the inputs of the export recorded gradients, the graph has them."""
    x = tuple(torch.randn(2, 3, 300, 8, requires_grad=recorded) for _ in range(3))
    sizes = {0: Dim("batch", min=1, max=64), 2: Dim("tokens", min=2, max=5000)}
    graph = export(Attend(backend, causal), x, dynamic_shapes=(sizes,) * 3, strict=strict).module()
    for batch, tokens in ((2, 300), (3, 37), (1, 600)):
        x = tuple(torch.randn(batch, 3, tokens, 8, requires_grad=True) for _ in range(3))
        outs = graph(*x), linear_attention(*x, causal=causal, backend="explicit")
        assert relative_error(*outs) < 1e-5
        got, wanted = (torch.autograd.grad(out.sin().sum(), x) for out in outs)
        assert max(relative_error(a, b) for a, b in zip(got, wanted, strict=True)) < 1e-4


@pytest.mark.parametrize("name", ["standard", "linear", "standard-sdpa-math"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_exported_layer_serves_every_length_and_learns(name: str) -> None:
    layer = SelfAttention(24, 3, kernel=name, causal=True)
    sizes = {0: Dim("batch", min=1, max=64), 1: Dim("tokens", min=2, max=5000)}
    graph = export(layer, (torch.randn(2, 300, 24),), dynamic_shapes=(sizes,)).module()
    for shape in ((3, 37, 24), (1, 600, 24)):
        x = torch.randn(shape)
        assert relative_error(graph(x), layer(x)) < 1e-5
    graph(x).sum().backward()
    assert all(parameter.grad is not None for parameter in graph.parameters())
