"""Standard attention in all forms: heads that share keys, unequal lengths, padding, packed sequences."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from attention import Case, get_kernel, list_kernels, standard_attention, window_attention
from attention.kernels.references import (
    TOLERANCES,
    gradient_error,
    relative_error,
    standard_reference,
)
from attention.kernels.standard import fused
from attention.profiler import peak_memory
from tests.samples import sampled

pytestmark = pytest.mark.usefixtures("one_thread")
BACKENDS = ("explicit", "sdpa", "sdpa-math", "sdpa-flash")
PADDINGS = ("none", "left", "right", "middle", "whole", "random")
HEADS = 8


def drawn(
    queries: int,
    keys: int,
    kv_heads: int,
    *,
    batch: int = 2,
    dtype: torch.dtype = torch.float64,
    width: int = 8,
) -> list[Tensor]:
    """Standard normal q of eight heads, k and v, which want gradients."""
    generator = torch.Generator().manual_seed(queries + 1000 * keys + kv_heads)
    shapes = (batch, HEADS, queries, 8), (batch, kv_heads, keys, 8), (batch, kv_heads, keys, width)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def padding(kind: str, keys: int) -> Tensor | None:
    """A mask ``[2, Nk]``: of the second sequence a third of the keys, of "whole" all of them."""
    mask = torch.zeros(2, keys, dtype=torch.bool)
    third = -(-keys // 3)
    if kind == "none":
        return None
    if kind == "random":
        return torch.rand(2, keys, generator=torch.Generator().manual_seed(keys)) < 0.4
    places = {"left": slice(third), "right": slice(keys - third, None), "middle": slice(third, 2 * third)}
    mask[1, places.get(kind, slice(None))] = True
    return mask


def check(backend: str, tensors: list[Tensor], **options: Any) -> None:
    """Output and gradients are those of the oracle, to the tolerances of the dtype."""
    out = standard_attention(*tensors, backend=backend, **options)
    exact = [x.detach().double().requires_grad_() for x in tensors]
    expected = standard_reference(*exact, **options)
    assert out.shape == expected.shape and out.dtype == tensors[0].dtype
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out.dtype)
    gradients = torch.autograd.grad(out, tensors, upstream)
    wanted = torch.autograd.grad(expected, exact, upstream.double())
    forward, backward = TOLERANCES[out.dtype]
    assert relative_error(out, expected) <= forward
    assert all(bool(x.isfinite().all()) for x in gradients)
    assert gradient_error(gradients, wanted) <= backward


LENGTHS = st.one_of(st.integers(0, 12), st.sampled_from([60, 300]))


@pytest.mark.parametrize("backend", BACKENDS)
@hypothesis.given(
    queries=LENGTHS,
    keys=LENGTHS,
    group=st.sampled_from([1, 2, 4, 8]),
    causal=st.booleans(),
    kind=st.sampled_from(PADDINGS),
)
@settings(max_examples=15, deadline=None)
def test_every_form_equals_the_oracle(
    backend: str, queries: int, keys: int, group: int, causal: bool, kind: str
) -> None:
    if backend.startswith("sdpa-") and queries == keys == 0:
        return  # torch's backends refuse the plain form of no tokens
    tensors = drawn(queries, keys, HEADS // group)
    check(backend, tensors, causal=causal, key_padding_mask=padding(kind, keys))


@pytest.mark.slow
@pytest.mark.parametrize("kind", PADDINGS)
@pytest.mark.parametrize("group", [1, 4, 8])
@pytest.mark.parametrize(
    "lengths", [(1, 1), (1, 130), (130, 1), (40, 130), (130, 40), (130, 130), (257, 300)]
)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_form_equals_the_oracle_in_every_combination(
    backend: str, causal: bool, lengths: tuple[int, int], group: int, kind: str
) -> None:
    tensors = drawn(*lengths, HEADS // group, width=8)
    check(backend, tensors, causal=causal, key_padding_mask=padding(kind, lengths[1]))


@pytest.mark.parametrize("kind", ["random", pytest.param("none", marks=pytest.mark.slow)])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_dtype_keeps_to_its_tolerance(backend: str, given: torch.dtype, kind: str) -> None:
    for queries, keys in ((40, 40), (70, 300)):  # of these shared keys, blocks have 32 queries
        tensors = drawn(queries, keys, 1, dtype=given)
        check(backend, tensors, causal=True, key_padding_mask=padding(kind, keys))


@pytest.mark.parametrize("backend", ["explicit", "sdpa", "sdpa-math"])
def test_values_may_have_a_width_of_their_own(backend: str) -> None:
    for lengths, kv_heads in (((20, 20), 2), ((7, 300), 8), ((7, 300), 2)):
        check(backend, drawn(*lengths, kv_heads, width=5), causal=True)
        check(backend, drawn(*lengths, kv_heads, width=5), causal=False)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
@hypothesis.given(
    pieces=st.lists(st.sampled_from([0, 0, 1, 2, 7, 40]), max_size=6), group=st.sampled_from([1, 4])
)
@settings(max_examples=10, deadline=None)
def test_packed_sequences_equal_one_by_one(backend: str, causal: bool, pieces: list[int], group: int) -> None:
    ends = torch.tensor([0, *pieces]).cumsum(0)
    tensors = drawn(int(ends[-1]), int(ends[-1]), HEADS // group, batch=1)
    if backend.startswith("sdpa-") and ends[-1] == 0 and group == 1:
        return  # torch's backends refuse equal shapes of no tokens
    check(backend, tensors, causal=causal, cu_seqlens=ends)
    how: dict[str, Any] = {"causal": causal, "backend": backend}
    packed = standard_attention(*tensors, cu_seqlens=ends.int(), **how)
    for start, stop in zip(ends.tolist(), ends.tolist()[1:], strict=False):
        if start < stop:
            alone = standard_attention(
                *(x[:, :, start:stop] for x in tensors), causal=causal, backend=backend
            )
            torch.testing.assert_close(packed[:, :, start:stop], alone)


@pytest.mark.parametrize("lengths", [(50, 50), (1, 50), (20, 50)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_shared_keys_equal_repeated_ones(backend: str, causal: bool, lengths: tuple[int, int]) -> None:
    q, k, v = drawn(*lengths, 2)
    shared = standard_attention(q, k, v, causal=causal, backend=backend)
    repeated = (x.repeat_interleave(4, 1) for x in (k, v))
    torch.testing.assert_close(shared, standard_attention(q, *repeated, causal=causal, backend=backend))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_stands_in_ignored_keys_reaches_nothing(backend: str, causal: bool, wrong: float) -> None:
    mask = padding("middle", 30)
    assert mask is not None
    tensors, spoilt = drawn(30, 30, 2), drawn(30, 30, 2)
    with torch.no_grad():
        for x in spoilt[1:]:
            x[mask[:, None].expand(-1, 2, -1)] = wrong
    found = []
    for given_tensors in (tensors, spoilt):
        out = standard_attention(*given_tensors, causal=causal, backend=backend, key_padding_mask=mask)
        found.append([out, *torch.autograd.grad(out.sum(), given_tensors)])
    for clean, got in zip(*found, strict=True):
        assert torch.equal(clean, got)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_query_that_sees_no_key_is_zero(backend: str) -> None:
    q, k, v = drawn(9, 4, 2)
    assert not standard_attention(q, k, v, causal=True, backend=backend)[:, :, :5].any()
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    out = standard_attention(q[:, :, :4], k, v, causal=True, backend=backend, key_padding_mask=mask)
    assert not out[0, :, :2].any() and not out[1].any() and bool(out[0, :, 2:].any())


@pytest.mark.parametrize(
    ("backend", "form"),
    sampled(
        ["explicit", "sdpa-flash"],
        ["plain", "shared", "few", "many", "padded"],
        quick=[("sdpa-flash", "padded")],
    ),
)
def test_a_compiler_traces_every_form_whole(backend: str, form: str) -> None:
    torch._dynamo.reset()
    queries = {"few": 7, "many": 30}.get(form, 20)
    tensors = drawn(queries, 20, HEADS if form == "plain" else 2)
    mask = padding("random", 20) if form == "padded" else None

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return standard_attention(q, k, v, causal=True, key_padding_mask=mask, backend=backend)

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors), attend(*tensors))


def test_blocks_of_queries_hold_memory_that_grows_like_the_keys() -> None:
    """A backward keeps one mask for all blocks; the mask of every query would grow with both lengths."""

    def peak(tokens: int) -> int:
        q, k, v = drawn(tokens, 2 * tokens, 1, batch=1, dtype=torch.float32)

        def run() -> None:
            out = standard_attention(q, k, v, causal=True, backend="sdpa")
            torch.autograd.grad(out, (q, k, v), torch.ones_like(out))

        found = peak_memory(run, "cpu").tensor_bytes
        assert found is not None
        return found

    first, second, third = (peak(tokens) for tokens in (256, 512, 768))
    assert abs(third - 2 * second + first) < 0.05 * (second - first)


def test_the_plain_form_is_one_call_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attention.kernels.standard.sdpa.attend", None)
    tensors = drawn(20, 20, HEADS)
    standard_attention(*tensors, causal=True, backend="sdpa")
    standard_attention(*tensors, causal=True, backend="sdpa-flash")


def test_one_query_needs_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "hidden", None)
    for kv_heads in (2, HEADS):
        check("sdpa", drawn(1, 40, kv_heads), causal=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key_padding_mask": torch.zeros(2, 5, dtype=torch.bool)}, r"\[B, Nk\] = \[2, 6\]"),
        ({"key_padding_mask": torch.zeros(2, 6)}, "of dtype bool"),
        ({"cu_seqlens": torch.tensor([0, 6], device="meta")}, "beside q on cpu or on the CPU; got meta"),
        ({"cu_seqlens": torch.tensor([0, 6])}, r"packed sequences are \[1, H, total, D\]"),
        (
            {"cu_seqlens": torch.tensor([0, 6]), "key_padding_mask": torch.zeros(2, 6, dtype=torch.bool)},
            "have no padding",
        ),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_does_not_fit_is_refused_in_a_sentence(
    backend: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=words) as refused:
        standard_attention(*drawn(6, 6, 2), backend=backend, **options)
    assert "\n" not in str(refused.value)


def test_a_pinned_backend_is_refused_with_the_reason_of_torch() -> None:
    with pytest.raises(ValueError, match=r"standard-sdpa-cudnn cannot serve .*torch refuses CUDNN_ATTENTION"):
        standard_attention(*drawn(6, 9, 2), causal=True, backend="sdpa-cudnn")
    case = Case("standard-sdpa-flash", "causal", 40, kv_heads=2, query_len=9)
    assert get_kernel(case.kernel).supports(case) is None
    assert "last dimension" in str(
        get_kernel(case.kernel).supports(Case(case.kernel, "causal", 40, value_dim=8))
    )


FORMS: tuple[dict[str, Any], ...] = (
    {"kv_heads": 2},
    {"query_len": 9},
    {"query_len": 60},
    {"phase": "decode"},
)


@pytest.mark.parametrize(
    "name", [name for name in list_kernels() if get_kernel(name).reference in ("window", "decay")]
)
def test_kernels_of_other_functions_have_none_of_the_forms(name: str) -> None:
    kernel = get_kernel(name)
    for form in FORMS:
        assert kernel.supports(Case(name, "causal", 40, heads=HEADS, **form))
    assert kernel.supports(Case(name, "causal", 40, kv_heads=4, heads=HEADS)) == (
        "it takes as many heads of keys as of queries, not 4 and 8"
    )


@pytest.mark.parametrize("scale", [0.0, -0.2])
@pytest.mark.parametrize("queries", [5, 3, 9])
def test_a_scale_of_zero_or_below_equals_the_explicit_form(queries: int, scale: float, device: str) -> None:
    """torch's fused kernels multiply the -inf of hidden scores by the scale."""
    q, k, v = (torch.randn(1, 2, n, 8, device=device) for n in (queries, 5, 5))
    expected, found = (
        standard_attention(q, k, v, causal=True, scale=scale, backend=backend)
        for backend in ("explicit", "sdpa")
    )
    torch.testing.assert_close(found, expected)
    if queries == 5:
        found = window_attention(q, k, v, window=5, scale=scale, backend="sdpa")
        torch.testing.assert_close(found, expected)
