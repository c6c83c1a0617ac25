"""linear-native: any number of segments and threads, numerical accuracy, FLOPs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from attention import Case, get_kernel, make_inputs
from attention.case import MODES
from attention.costs import Sizes
from attention.kernels.linear_native import linear_native
from attention.kernels.linear_native.costs import PROGRAM, backward_terms, forward_terms
from attention.kernels.native import library, plan
from attention.kernels.references import REFERENCES, relative_error


@pytest.fixture(autouse=True)
def number_of_threads() -> Iterator[None]:
    """The number of threads, which a test may change, is restored."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def results(case: Case) -> list[Tensor]:
    inputs = make_inputs(case)
    out = linear_native(*inputs, causal=case.causal)
    return [out.detach(), *torch.autograd.grad(out.sin().sum(), inputs)]


def test_linear_native_is_built_for_every_dtype_where_a_compiler_is() -> None:
    """A build that breaks would otherwise only skip every other test of the kernel."""
    assert [library.missing(PROGRAM, dtype) for dtype in library.STORAGE] == [None] * 4


def test_the_output_of_linear_native_has_the_memory_layout_of_the_values() -> None:
    """q, k and v are those of a layer: parts of [B, N, 3, H, D], each seen as [B, H, N, D]."""
    q, k, v = torch.randn(2, 70, 3, 3, 16).permute(2, 0, 3, 1, 4).unbind()
    for function in (linear_native, torch.compile(linear_native, backend="aot_eager", fullgraph=True)):
        out = function(q, k, v)
        assert out.transpose(1, 2).is_contiguous()
        assert relative_error(out, linear_native(q, k, v.contiguous())) == 0
    one = v[:, :1].expand(-1, 3, -1, -1)
    assert linear_native(q, k, one).is_contiguous()  # an expanded head has no memory layout to follow


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_linear_native_does_not_depend_on_the_number_of_threads_and_segments(threads: int, mode: str) -> None:
    """One head of 2000 tokens is as many segments as threads, the last of them ragged."""
    case = Case("linear-native", mode, 2000, "forward_backward", "cpu", "float64", 1, 1, 12, 20)
    torch.set_num_threads(1)
    single_threaded = results(case)
    torch.set_num_threads(threads)
    assert plan.segments(2000, 1, threads) == threads
    for got, expected in zip(results(case), single_threaded, strict=True):
        assert relative_error(got, expected) < 1e-13


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1)])
def test_a_backward_of_linear_native_may_have_other_threads_than_its_forward(
    before: int, after: int, mode: str
) -> None:
    """A backward uses the sums that its forward saved, whatever its own number of threads."""
    case = Case("linear-native", mode, 2000, "forward_backward", "cpu", "float64", 1, 1, 12, 20)
    *_, dq, dk, dv = results(case)
    inputs = make_inputs(case)
    torch.set_num_threads(before)
    loss = linear_native(*inputs, causal=case.causal).sin().sum()
    torch.set_num_threads(after)
    for got, expected in zip(torch.autograd.grad(loss, inputs), (dq, dk, dv), strict=True):
        assert relative_error(got, expected) < 1e-13


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_two_calls_of_linear_native_give_the_same_bits(storage: str, mode: str) -> None:
    case = Case("linear-native", mode, 1500, "forward_backward", "cpu", storage, 1, 3)
    for first, second in zip(results(case), results(case), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("feature_map", ["elu", "relu", "identity"])
def test_feature_maps_of_linear_native_are_accurate_over_their_whole_range(feature_map: str) -> None:
    """One token with v = 1, q = 1 has the output phi(1) phi(k) / (phi(1) phi(k) + 1)."""
    k = torch.cat([torch.linspace(-87, 20, 5001), torch.tensor([-0.0, 0.0, -1e-30, 1e-30, -200.0, 1e30])])
    k, one = k.view(1, -1, 1, 1), torch.ones(1, k.numel(), 1, 1)
    out = linear_native(one, k, one, feature_map=feature_map, eps=1.0)
    exact = REFERENCES["linear"](one, k, one, feature_map=feature_map, eps=1.0)
    # Two products, a sum, a quotient, and twice the error of e^x.
    error = (out - exact).abs() / exact.abs().clamp(min=1e-37)
    assert error.max() < 8 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("where", ["q", "k", "v"])
def test_linear_native_passes_a_nan_on_to_its_chunk_and_to_tokens_that_see_it(where: str, mode: str) -> None:
    """Earlier tokens of its own chunk may get the NaN, from a masked score of zero times NaN."""
    case = Case("linear-native", mode, 200, batch=1, heads=2, head_dim=16)
    inputs = dict(zip("qkv", make_inputs(case), strict=True))
    inputs[where][0, 1, 71, 3] = float("nan")
    seen = linear_native(*inputs.values(), causal=case.causal).isnan().any(-1)
    first, last = (71, 72) if where == "q" else (71 if case.causal else 0, 200)
    assert seen[0, 1, first:last].all()
    chunk = range(64, 128) if case.causal else range(first, last)
    others = [i for i in range(200) if i not in chunk and not first <= i < last]
    assert not seen[0, 1, others].any() and not seen[0, 0].any()


def test_a_long_float32_sum_of_linear_native_keeps_its_digits() -> None:
    """4096 sums of 64 equal terms err by half an eps each at most; 2^18 sums of one would err by 3e-4."""
    n = 2**18
    q, k = torch.zeros(1, 1, n, 1), torch.full((1, 1, n, 1), 0.1)
    v = torch.linspace(0, 1, n).view(1, 1, n, 1)
    out = linear_native(q, k, v, causal=True)
    expected = v.double().cumsum(2) / torch.arange(1, n + 1).view(1, 1, n, 1)
    assert relative_error(out, expected) < 4096 * torch.finfo(torch.float32).eps / 4


@pytest.mark.parametrize("causal", [True, False])
def test_linear_native_compiled_as_a_full_graph_gives_the_same_bits_with_gradients(causal: bool) -> None:
    inputs = make_inputs(Case("linear-native", "causal", 300, "forward_backward", heads=2, head_dim=16))
    compiled = torch.compile(linear_native, backend="aot_eager", fullgraph=True)
    got, expected = (f(*inputs, causal=causal) for f in (compiled, linear_native))
    assert torch.equal(got, expected)
    pairs = (torch.autograd.grad(x.sum(), inputs) for x in (got, expected))
    assert all(map(torch.equal, *pairs))


@pytest.mark.parametrize(
    ("tokens", "heads", "threads"), [(2000, 1, 2), (700, 3, 2), (100, 1, 8), (4096, 8, 2)]
)
def test_closed_form_flops_of_linear_native_equal_those_counted_chunk_by_chunk(
    tokens: int, heads: int, threads: int
) -> None:
    """Products are counted chunk by chunk: scores on and below the diagonal, all else in full."""
    D, E = 5, 3
    parts = plan.segments(tokens, heads, threads)
    size = plan.segment_tokens(tokens, parts)
    chunks = [
        min(plan.CHUNK, last - n)
        for first in range(0, tokens, size)
        for last in [min(first + size, tokens)]
        for n in range(first, last, plan.CHUNK)
    ]

    def walk(inner: int, outer: int) -> int:
        pairs = sum(1 for c in chunks for i in range(c) for j in range(c) if j <= i)
        return pairs * (inner + outer) + 2 * sum(chunks) * inner * outer

    before = sum(min(size, tokens - first) for first in range(0, tokens, size)[: parts - 1])
    after = sum(min(size, tokens - first) for first in range(0, tokens, size)[1:])
    forward = walk(D, E) + tokens * D + before * (E + 1) * D
    backward = 2 * walk(E + 1, D) + walk(D, E) + after * (E + 1) * D
    sizes = Sizes(heads, heads, tokens, tokens, D, E)
    assert sum(forward_terms(sizes, True, threads).values()) == heads * forward
    assert sum(backward_terms(sizes, True, threads).values()) == heads * backward


def test_segments_of_linear_native_are_whole_chunks_and_leave_no_core_idle() -> None:
    for tokens in (1, 64, 255, 256, 1000, 10**6):
        for heads in (1, 2, 3, 8, 100):
            for threads in (1, 2, 6, 64):
                count = plan.segments(tokens, heads, threads)
                size = plan.segment_tokens(tokens, count)
                assert size % plan.CHUNK == 0 and (count - 1) * size < tokens <= count * size
                tasks = heads * count
                # Tasks divide evenly among threads, are four a thread, or the tokens are too few to cut.
                assert tasks % threads == 0 or tasks >= 4 * threads or tokens / count < 2 * plan.LEAST_TOKENS


def test_a_callable_feature_map_of_linear_native_may_return_another_dtype() -> None:
    q, k, v = make_inputs(Case("linear-native", "causal", 100, dtype="bfloat16", head_dim=16))
    out = linear_native(q, k, v, causal=True, feature_map=lambda x: x.float().relu())
    expected = REFERENCES["linear"](q, k, v, causal=True, feature_map="relu")
    assert out.dtype == torch.bfloat16 and relative_error(out, expected) < 4e-3


def test_linear_native_refuses_other_devices_and_dtypes() -> None:
    q, k, v = make_inputs(Case("linear-native", "causal", 8))
    with pytest.raises(ValueError, match="it is compiled for CPUs, and the case is on meta"):
        linear_native(*(x.to("meta") for x in (q, k, v)))
    with pytest.raises(ValueError, match="it computes in float32, float64, bfloat16, float16, not int64"):
        linear_native(*(x.long() for x in (q, k, v)))
    case = Case("linear-native", "causal", 8, device="cuda")
    assert get_kernel(case.kernel).supports(case) == "it is compiled for CPUs, and the case is on cuda"
