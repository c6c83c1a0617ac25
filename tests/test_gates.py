"""Kernels with gates: what they refuse, count and cut, and the function that chooses among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from attention import Case, decay_attention, explain, get_kernel, linear_attention
from attention.kernels.gates import make_gates
from attention.kernels.linear_decay_chunked.costs import backward_terms, forward_terms
from attention.kernels.linear_decay_chunked.passes import Inputs, backward, forward
from attention.kernels.linear_decay_native import costs as native
from attention.kernels.native import library, plan
from attention.kernels.references import REFERENCES, relative_error
from attention.profiler import count_flops
from benchmarks.subjects import SUBJECTS
from tests.misfits import MISFITS, three

Four = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def number_of_threads() -> Iterator[None]:
    """The number of threads, which a test may change, is restored."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def four(tokens: int = 70, **sizes: int) -> Four:
    """q, k, v and g that fit together, in float32 and with gradients."""
    q, k, v = (x.requires_grad_() for x in three(tokens=tokens, **sizes))
    return q, k, v, (-torch.rand(q.shape[:3])).requires_grad_()


WRONG: dict[str, tuple[Callable[[Tensor], Any], type[Exception], str]] = {
    "none": (lambda g: None, TypeError, r"takes a dense tensor for g; got None"),
    "a list": (lambda g: g.tolist(), TypeError, r"takes a dense tensor for g; got an object of type list"),
    "sparse": (lambda g: g.to_sparse(), TypeError, r"takes a dense tensor for g; got a tensor of layout"),
    "one a head": (
        lambda g: g[:, :, 0],
        ValueError,
        r"takes g \(2, 2, 70\) \[B, H, N\] in float32 on cpu; got \(2, 2\) in float32 on cpu",
    ),
    "one a channel": (lambda g: g[..., None].expand(-1, -1, -1, 8), ValueError, r"got \(2, 2, 70, 8\)"),
    "a token short": (lambda g: g[:, :, 1:], ValueError, r"got \(2, 2, 69\) in float32 on cpu"),
    "float64": (lambda g: g.double(), ValueError, r"got \(2, 2, 70\) in float64"),
    "integers": (lambda g: g.long(), ValueError, r"got \(2, 2, 70\) in int64"),
    "elsewhere": (lambda g: g.to("meta"), ValueError, r"got \(2, 2, 70\) in float32 on meta"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_gates_that_do_not_fit_are_refused_in_a_sentence(decay_kernel: str, wrong: str, device: str) -> None:
    q, k, v, g = (x.detach().to(device) for x in four())
    change, kind, message = WRONG[wrong]
    with pytest.raises(kind, match=message.replace("cpu", str(q.device))) as error:
        get_kernel(decay_kernel).function(q, k, v, g=change(g), causal=True)
    assert str(error.value).startswith(decay_kernel) and "\n" not in str(error.value)


@pytest.mark.parametrize("misfit", MISFITS)
def test_kernels_with_gates_refuse_tensors_that_do_not_fit_together(
    decay_kernel: str, misfit: str, device: str
) -> None:
    q, k, v, g = (x.detach().to(device) for x in four())
    with pytest.raises(ValueError, match=f"{decay_kernel} "):
        get_kernel(decay_kernel).function(*MISFITS[misfit](q, k, v), g=g, causal=True)


def test_there_is_no_bidirectional_mode(decay_kernel: str, device: str) -> None:
    case = Case(decay_kernel, "bidirectional", 8, device=device)
    assert str(get_kernel(decay_kernel).supports(case)).startswith("decay is causal only")
    q, k, v, g = (x.detach().to(device) for x in four())
    with pytest.raises(ValueError, match=f"{decay_kernel} cannot serve a bidirectional mode: decay is"):
        get_kernel(decay_kernel).function(q, k, v, g=g, causal=False)
    with pytest.raises(ValueError, match="linear attention with decay is causal only"):
        REFERENCES["decay"](q, k, v, g=g, causal=False)


def test_gates_are_made_alike_each_time_and_with_gradients_where_the_case_has_them() -> None:
    case = Case("linear-decay-native", "causal", 1000, dtype="bfloat16")
    g, again = (make_gates(case)["g"] for _ in range(2))
    assert g.shape == (1, 8, 1000) and g.dtype is torch.float32 and not g.requires_grad
    assert torch.equal(g, again) and bool((g < 0).all())
    assert float(g.mean()) == pytest.approx(-0.806 / 16, rel=0.05)  # of log(1 + e^x), x standard normal
    assert make_gates(Case("linear-decay-native", "causal", 9, "forward_backward"))["g"].requires_grad


def test_decay_attention_names_backends_as_linear_attention_does() -> None:
    q, k, v, g = four()
    with pytest.raises(ValueError, match="'quick' does not exist for linear-decay attention; choose auto or"):
        decay_attention(q, k, v, g, backend="quick")
    with pytest.raises(ValueError, match="linear-decay-native takes g"):
        decay_attention(q, k, v, g[..., 1:])
    with pytest.raises(TypeError, match="linear-decay-native takes a dense tensor for g; got None"):
        decay_attention(q, k, v, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'decay-native' does not exist for linear attention"):
        linear_attention(q, k, v, backend="decay-native")
    with pytest.raises(ValueError, match="it is compiled for CPUs"):
        decay_attention(*(x.to("meta") for x in (q, k, v, g)), backend="native")


def test_decay_attention_takes_the_chunked_kernel_where_there_is_no_compiler(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(library, "_loaded", lambda *_: (None, "there is no compiler"))
    explain(Case("linear-decay-auto", "causal", 71))
    assert capsys.readouterr().out.splitlines() == [
        "not linear-decay-native: there is no compiler",
        "linear-decay-chunked: the fastest measured on cpu that serves the case",
    ]
    q, k, v, g = four(71)
    expected = get_kernel("linear-decay-chunked").function(q, k, v, g=g, causal=True)
    assert torch.equal(decay_attention(q, k, v, g), expected)


def test_autocast_casts_all_but_the_gates() -> None:
    q, k, v, g = four()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = [decay_attention(q, k, v, g, backend=name) for name in ("native", "chunked")]
    exact = REFERENCES["decay"](*(x.bfloat16() for x in (q, k, v)), g=g, causal=True)
    assert all(out.dtype is torch.bfloat16 and relative_error(out, exact) < 4e-3 for out in outputs)


@pytest.mark.parametrize("name", ["linear-decay-native", "linear-decay-chunked"])
def test_a_kernel_with_gates_compiled_as_a_full_graph_gives_the_same_bits(name: str) -> None:
    x, attend = four(300), get_kernel(name).function
    compiled = torch.compile(lambda q, k, v, g: attend(q, k, v, g=g), backend="aot_eager", fullgraph=True)
    got, expected = compiled(*x), attend(*x[:3], g=x[3])
    pairs = (torch.autograd.grad(out.sin().sum(), x) for out in (got, expected))
    assert torch.equal(got, expected) and all(map(torch.equal, *pairs))


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (3, 7), (7, 1)])
def test_segments_of_linear_decay_native_pass_on_what_their_gates_keep(before: int, after: int) -> None:
    """One head of 2000 tokens is as many segments as threads; a backward may have others than its forward."""
    x = [each.detach().double().requires_grad_() for each in four(2000, batch=1, heads=1)]
    torch.set_num_threads(before)
    assert plan.segments(2000, 1, before) == before
    loss = get_kernel("linear-decay-native").function(*x[:3], g=x[3] / 300, causal=True).sin().sum()
    torch.set_num_threads(after)
    exact = REFERENCES["decay"](*x[:3], g=x[3] / 300, causal=True).sin().sum()
    for got, wanted in zip(torch.autograd.grad(loss, x), torch.autograd.grad(exact, x), strict=True):
        assert relative_error(got, wanted) < 1e-12


@pytest.mark.parametrize("tokens", [1, 100, 300])
def test_flops_of_linear_decay_chunked_equal_those_of_the_products_inside(tokens: int) -> None:
    """torch counts each product inside of the operator where its passes are called directly."""
    x = Inputs(*(each.detach() for each in four(tokens, width=16, value_width=24)))
    out, grads = torch.empty_like(x.v), Inputs(*map(torch.empty_like, x))
    states = torch.zeros(2, 2, -(-tokens // 64), 16, 24)
    passes = {
        forward_terms: lambda: forward(x, "elu", 64, out, states),
        backward_terms: lambda: backward(x, "elu", 64, x.v, grads, states),
    }
    for terms, run in passes.items():
        assert count_flops(run) == 2 * 4 * sum(terms(tokens, 16, 24, 64).values())


@pytest.mark.parametrize(("tokens", "heads", "threads"), [(2000, 1, 2), (700, 3, 2), (100, 1, 8)])
def test_flops_of_linear_decay_native_equal_those_counted_chunk_by_chunk(
    tokens: int, heads: int, threads: int
) -> None:
    """Scores on and below the diagonal, all other products in full, and the segments summed before."""
    D, E = 5, 3
    size = plan.segment_tokens(tokens, plan.segments(tokens, heads, threads))
    firsts = range(0, tokens, size)
    chunks = [min(64, min(a + size, tokens) - n) for a in firsts for n in range(a, min(a + size, tokens), 64)]
    step = sum(c * (c + 1) // 2 for c in chunks) * (D + E) + 2 * tokens * D * E
    lengths = [min(size, tokens - a) for a in firsts]
    case = (tokens, D, E, heads, threads)
    assert sum(native.forward_terms(*case).values()) == step + sum(lengths[:-1]) * D * E
    assert sum(native.backward_terms(*case).values()) == 3 * step + sum(lengths[1:]) * D * E


def test_least_bytes_hold_the_gates_and_their_gradients() -> None:
    for phase, tensors, gates in (("forward", 4, 1), ("forward_backward", 12, 3)):
        for storage, size in (("bfloat16", 2), ("float64", 8)):
            case = Case("linear-decay-native", "causal", 1000, phase, dtype=storage)
            least = 8 * 1000 * (tensors * 64 * size + gates * max(4, size))
            assert get_kernel(case.kernel).costs(case).min_bytes == least
            assert SUBJECTS["operator"].prepare(case).min_bytes == least


def test_every_dtype_of_linear_decay_native_is_built_where_a_compiler_is() -> None:
    """A build that breaks would otherwise only skip every other test of the kernel."""
    assert [library.missing(native.PROGRAM, dtype) for dtype in library.STORAGE] == [None] * 4
