"""Linear attention of grouped heads, unequal lengths, padding and packed sequences equals the textbook."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from attention import linear_attention
from attention.state import State
from tests.textbook import BACKENDS, assert_alike, attend, cut, gradients, tensors, textbook, wide_of

pytestmark = pytest.mark.usefixtures("one_thread")


def padding(batch: int, keys: int, draw: random.Random) -> Tensor:
    """Ignored keys: at the left, at the right, anywhere, or all."""
    mask = torch.zeros(batch, keys, dtype=torch.bool)
    for row in mask:
        some = draw.randrange(keys + 1)
        kind = draw.choice(["left", "right", "anywhere", "all"])
        if kind == "anywhere":
            row[draw.sample(range(keys), some)] = True
        else:
            row[{"left": slice(some), "right": slice(some, None), "all": slice(None)}[kind]] = True
    return mask


@pytest.mark.parametrize(
    "seed", [*range(8), *(pytest.param(n, marks=pytest.mark.slow) for n in range(8, 200))]
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_random_form_equals_the_textbook_with_its_state_and_gradients(backend: str, seed: int) -> None:
    draw, dtype = random.Random(seed), wide_of(backend)
    torch.manual_seed(seed)
    Hkv, group, batch = draw.choice([1, 2, 3]), draw.choice([1, 2, 4, 8]), draw.choice([1, 2])
    lengths = [draw.choice([1, 5, 63, 64, 65, 130]), draw.choice([1, 7, 64, 100, 200])]
    Nq, Nk = draw.choice([(lengths[0], lengths[1]), (lengths[1], lengths[0]), (lengths[0], lengths[0])])
    inputs = tensors(
        dtype, batch, (group * Hkv, Hkv), (Nq, Nk), (draw.choice([4, 7, 16]), draw.choice([4, 9]))
    )
    causal, behind = draw.random() < 0.6, draw.random() < 0.6
    options: dict[str, Any] = {"causal": causal, "feature_map": draw.choice(["elu", "elu", torch.exp])}
    if draw.random() < 0.5:
        options["key_padding_mask"] = padding(batch, Nk, draw)
    if not behind:
        inputs = inputs[:3]
    expected = textbook(*inputs, **options)
    given: Any = {"initial_state": State(*inputs[3:])} if behind else {}
    out, last = attend(*inputs[:3], return_state=True, backend=backend, **given, **options)
    assert_alike((out, *last), expected, backend)
    upstream = [torch.randn_like(x) for x in expected]
    for wanted in ((0,), (1, 2), (0, 1, 2)):
        pairs: Any = [
            gradients([y[i] for i in wanted], inputs, [upstream[i] for i in wanted])
            for y in ((out, *last), expected)
        ]
        assert_alike(pairs[0], pairs[1], backend)
    if not behind:
        alone = attend(*inputs[:3], backend=backend, **options)
        assert_alike([alone], expected[:1], backend)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_forms_of_linear_native_do_not_depend_on_threads_and_segments(threads: int, causal: bool) -> None:
    torch.set_num_threads(threads)
    inputs = tensors(torch.float64, 1, (2, 1), (1100, 900), (6, 5))
    state = State(*inputs[3:])
    options: Any = {"initial_state": state, "return_state": True, "backend": "native"}
    out, last = attend(*inputs[:3], causal=causal, **options)
    expected = textbook(*inputs, causal=causal)
    assert_alike((out, *last), expected, "native")
    upstream = [torch.randn_like(x) for x in expected]
    pairs: Any = [gradients(y, inputs, upstream) for y in ((out, *last), expected)]
    assert_alike(pairs[0], pairs[1], "native")


def packed(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


@pytest.mark.parametrize("lengths", [(), (0,), (5,), (1, 0, 70, 1, 0, 64, 3), (0, 0, 130, 2)], ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_sequences_equal_each_of_them_alone(
    backend: str, causal: bool, lengths: tuple[int, ...]
) -> None:
    q, k, v, *_ = tensors(wide_of(backend), 1, (4, 2), (sum(lengths), sum(lengths)), (6, 5))
    S, z = tensors(wide_of(backend), len(lengths), (4, 2), (0, 0), (6, 5))[3:]
    ends, inputs = packed(lengths), (q, k, v, S, z)
    out, last = linear_attention(
        q, k, v, causal=causal, cu_seqlens=ends, initial_state=State(S, z), return_state=True, backend=backend
    )
    if not lengths:
        assert out.shape == (1, 4, 0, 5) and last.S.shape == (0, 2, 6, 5)
        return
    alone = [
        textbook(*cut((q, k, v), a, b), S[i : i + 1], z[i : i + 1], causal=causal)
        for i, (a, b) in enumerate(pairwise(ends.tolist()))
    ]
    outs, Ss, zs = zip(*alone, strict=True)
    expected = torch.cat(outs, 2), torch.cat(Ss), torch.cat(zs)
    assert_alike((out, *last), expected, backend)
    upstream = [torch.randn_like(x) for x in expected]
    assert_alike(gradients((out, *last), inputs, upstream), gradients(expected, inputs, upstream), backend)


class Learned(torch.nn.Module):
    """exp(x W), wider than x: what it makes of a NaN has gradients of NaN."""

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(width, 2 * width, dtype=dtype) / 4)

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight).exp()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["elu", "relu", "identity", "learned"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_of_ignored_keys_reaches_an_output_or_a_gradient(
    backend: str, kind: str, causal: bool
) -> None:
    dtype = wide_of(backend)
    feature_map: Any = Learned(6, dtype) if kind == "learned" else kind
    made = tensors(dtype, 2, (4, 2), (40, 70), (6, 5))[:3]
    mask = torch.rand(2, 70) < 0.4
    mask[1, :40] = True  # where causal, some queries see nothing
    runs = []
    for bad in (0.0, float("nan"), float("inf")):
        q, k, v = (x.detach().clone().requires_grad_() for x in made)
        with torch.no_grad():
            for x in (k, v):
                x[mask[:, None].expand(-1, 2, -1)] = bad
        wanted = [q, k, v, *([feature_map.weight] if kind == "learned" else [])]
        out = linear_attention(
            q, k, v, causal=causal, feature_map=feature_map, key_padding_mask=mask, backend=backend, eps=1.0
        )
        runs.append((out, *torch.autograd.grad((out * out).sum(), wanted)))
    for run in runs:
        for x, clean in zip(run, runs[0], strict=True):
            assert x.isfinite().all() and torch.equal(x, clean)
        assert not run[2][mask[:, None].expand(-1, 2, -1)].any()


@pytest.mark.parametrize("eps", [0.0, 1e-6])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_query_that_sees_no_key_is_zero_with_finite_gradients(backend: str, eps: float) -> None:
    dtype = wide_of(backend)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    cases: Any = (
        ((9, 5), True, {}),
        ((9, 5), True, {"key_padding_mask": mask}),
        ((5, 5), True, {"key_padding_mask": mask}),
        ((3, 5), False, {"key_padding_mask": mask}),
        ((4, 0), False, {}),
        ((4, 0), True, {}),
    )
    for lengths, causal, given in cases:
        inputs = tensors(dtype, 2, (2, 1), lengths, (6, 5))[:3]
        out = attend(*inputs, causal=causal, eps=eps, backend=backend, **given)
        assert_alike([out], textbook(*inputs, causal=causal, eps=eps, **given)[:1], backend)
        for x in torch.autograd.grad(out.sum(), inputs):
            assert x.isfinite().all()
        blind = lengths[0] - lengths[1] if causal else lengths[0] if not lengths[1] else 0
        assert not out[:, :, :blind].any()
        if given:
            assert not out[0].any()
