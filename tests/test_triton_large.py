"""linear-triton at sizes and on features of a card: large cases, CUDA graphs, streams.

Large cases are held against ``linear-chunked`` in float64, which the oracle holds to 1e-12, or, where that
does not fit, against calls of single heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from attention.case import MODES
from attention.kernels.linear_chunked import linear_chunked
from attention.kernels.linear_triton import linear_triton
from attention.kernels.references import TOLERANCES, gradient_error, relative_error
from attention.kernels.triton_common import plan as triton_plan
from tests.interpreted import continued

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@pytest.fixture(autouse=True)
def card(device: str) -> Iterator[None]:
    if device != "cuda":
        pytest.skip("of a size or a kind for a card; smaller ones are in test_triton")
    yield
    torch.cuda.empty_cache()


def inputs(
    *shape: int, value_dim: int | None = None, dtype: torch.dtype = torch.bfloat16
) -> tuple[list[Tensor], Tensor]:
    """q, k, v that require gradients, and the gradient of the output."""
    generator = torch.Generator("cuda").manual_seed(11)

    def normal(width: int) -> Tensor:
        return torch.randn(*shape[:3], width, generator=generator, device="cuda", dtype=dtype)

    widths = (shape[3], shape[3], value_dim or shape[3])
    return [normal(width).requires_grad_() for width in widths], normal(widths[2])


def results(attend: Attention, qkv: list[Tensor], do: Tensor) -> list[Tensor]:
    """The output and the gradients of q, k and v."""
    out = attend(*qkv)
    return [out.detach(), *torch.autograd.grad(out, qkv, do)]


def is_right(attend: Attention, exact: Attention, qkv: list[Tensor], do: Tensor) -> None:
    got = results(attend, qkv, do)
    wanted = results(exact, [x.detach().double().requires_grad_() for x in qkv], do.double())
    forward, backward = relative_error(got[0], wanted[0]), gradient_error(got[1:], wanted[1:])
    print(f"{tuple(qkv[0].shape)} {do.dtype}: forward {forward:.1e}, gradients {backward:.1e}")
    assert forward < TOLERANCES[do.dtype][0]
    assert backward < TOLERANCES[do.dtype][1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("shape", "value_dim", "inputs_in"),
    [
        pytest.param((1, 2, 1_000_003, 64), 64, torch.bfloat16, id="a-million-ragged"),
        pytest.param((16, 32, 1000, 64), 64, torch.bfloat16, id="512-heads"),
        pytest.param((1, 4, 5000, 256), 256, torch.float16, id="float16-256-wide"),
        pytest.param((4, 8, 8192, 128), 64, torch.bfloat16, id="described-128-by-64"),
        pytest.param((1, 1, 300_000, 128), 128, torch.bfloat16, id="one-wide-head-of-scanned-segments"),
    ],
)
def test_large_cases_of_linear_triton_equal_float64(
    shape: tuple[int, ...], value_dim: int, inputs_in: torch.dtype, mode: str
) -> None:
    causal = mode == "causal"
    qkv, do = inputs(*shape, value_dim=value_dim, dtype=inputs_in)
    is_right(
        lambda q, k, v: linear_triton(q, k, v, causal=causal),
        lambda q, k, v: linear_chunked(q, k, v, causal=causal),
        qkv,
        do,
    )


def test_a_float16_normaliser_of_linear_triton_over_65536_tokens_does_not_overflow() -> None:
    (q, k, v), _ = inputs(1, 2, 65536, 64, dtype=torch.float16)
    with torch.no_grad():
        out = linear_triton(q, k + 8, v + 1, causal=True)  # z reaches 590 000
        exact = [x.double() for x in (q, k + 8, v + 1)]
        error = relative_error(out, linear_chunked(*exact, causal=True))
    print(f"{error:.1e}")
    assert error < TOLERANCES[torch.float16][0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("heads", "width"), [(33, 64), (17, 128)])
def test_linear_triton_beyond_2_to_the_31_elements_equals_calls_of_single_heads(
    heads: int, width: int, mode: str
) -> None:
    if torch.cuda.mem_get_info()[0] < 60e9:
        pytest.skip("needs 60 GB of the card")
    qkv, do = inputs(1, heads, 2**20, width)
    assert qkv[0].numel() > 2**31
    got = results(lambda q, k, v: linear_triton(q, k, v, causal=mode == "causal"), qkv, do)
    for head in (0, heads - 1):
        of_it = slice(head, head + 1)
        alone = [x.detach()[:, of_it].clone().requires_grad_() for x in qkv]
        wanted = results(
            lambda q, k, v: linear_triton(q, k, v, causal=mode == "causal"), alone, do[:, of_it].clone()
        )
        errors = [relative_error(x[:, of_it], y) for x, y in zip(got, wanted, strict=True)]
        print(f"head {head}: " + ", ".join(f"{error:.1e}" for error in errors))
        # Segments of other lengths are summed, and either result is rounded to bfloat16.
        assert max(errors) < TOLERANCES[torch.bfloat16][0]


@pytest.mark.parametrize(("tokens", "width"), [(256, 64), (4096, 64), (65536, 64), (65536, 128)])
def test_two_calls_of_linear_triton_give_the_same_bits_with_gradients(tokens: int, width: int) -> None:
    qkv, do = inputs(4, 8, tokens, width)
    first, second = (results(lambda q, k, v: linear_triton(q, k, v, causal=True), qkv, do) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


@pytest.mark.parametrize(("tokens", "width"), [(256, 64), (16384, 64), (16384, 128)])
def test_a_cuda_graph_of_linear_triton_replays_on_new_data_with_gradients(tokens: int, width: int) -> None:
    """Sequences of 16384 tokens are moved by descriptors, those of width 128 by the Gluon passes."""
    qkv, do = inputs(4, 8, tokens, width)

    def step() -> list[Tensor]:
        return results(lambda q, k, v: linear_triton(q, k, v, causal=True), qkv, do)

    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for x in (*qkv, do):
            x.normal_()
        for x in captured:
            x.fill_(float("nan"))
    graph.replay()
    assert all(torch.equal(x, y) for x, y in zip(captured, step(), strict=True))


@pytest.mark.parametrize("cut", [100_000, 131_072])
def test_linear_triton_by_descriptors_continued_from_a_state_equals_one_call_with_gradients(cut: int) -> None:
    assert 4 * cut >= triton_plan.DESCRIBED
    (q, k, v), do = inputs(1, 4, 262_144, 64)
    weights = [torch.randn(1, 4, 64, 64, device="cuda"), torch.randn(1, 4, 64, device="cuda")]

    def in_two(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        head, state = continued(q[:, :, :cut], k[:, :, :cut], v[:, :, :cut])
        tail, end = continued(q[:, :, cut:], k[:, :, cut:], v[:, :, cut:], state)
        return [torch.cat([head, tail], 2), *end]

    def in_one(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        phi = torch.nn.functional.elu(k) + 1
        return [linear_chunked(q, k, v, causal=True), phi.mT @ v, phi.sum(2)]

    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    got, wanted = in_two(q, k, v), in_one(*exact)
    for x, y in zip(got, wanted, strict=True):
        assert relative_error(x, y) < TOLERANCES[torch.bfloat16][0]
    got_gradients = torch.autograd.grad(got, (q, k, v), [do, *weights])
    wanted_gradients = torch.autograd.grad(wanted, exact, [x.double() for x in (do, *weights)])
    error = gradient_error(got_gradients, wanted_gradients)
    print(f"gradients {error:.1e}")
    assert error < TOLERANCES[torch.bfloat16][1]


def test_a_launch_of_linear_triton_on_another_stream_waits_for_earlier_work_there() -> None:
    """A repeated launch is direct and on the current stream, not on that of the first launch."""
    (q, k, v), _ = inputs(4, 8, 4096, 64)
    with torch.no_grad():
        expected = linear_triton(q, k, v, causal=True)
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            torch.cuda._sleep(20_000_000)  # type: ignore[no-untyped-call]
            late = v.clone()
            out = linear_triton(q, k, late, causal=True)
        torch.cuda.synchronize()
    assert torch.equal(out, expected)
