"""Linear attention in every form equals the textbook: grouped heads, lengths, padding, packs, states."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from attention import linear_attention, linear_attention_step
from attention.kernels.feature_maps import get_feature_map
from attention.kernels.references import relative_error
from attention.state import State
from tests.interpreted import INTERPRETED
from tests.samples import sampled

attend: Any = linear_attention
step: Any = linear_attention_step
BACKENDS = ["explicit", "chunked", "native"] + ["triton"] * INTERPRETED
FAST = [name for name in BACKENDS if name != "explicit"]
pytestmark = pytest.mark.usefixtures("one_thread")


def wide_of(backend: str) -> torch.dtype:
    """The widest dtype that a backend computes in."""
    return torch.float32 if backend == "triton" else torch.float64


def tolerance(backend: str) -> float:
    """Sums of some hundred terms, twice (forward and backward), each of which is rounded."""
    return 500 * torch.finfo(wide_of(backend)).eps


def textbook(
    *inputs: Tensor,
    causal: bool = False,
    feature_map: Any = "elu",
    eps: float = 1e-6,
    key_padding_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output and last state by the matrix of all scores, keys repeated, a query that sees no key set to 0."""
    q, k, v, *state = (x.double() for x in inputs)
    phi, group = get_feature_map(feature_map), q.shape[1] // k.shape[1]
    seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).expand(q.shape[0], 1, -1, -1)
    seen = seen.tril(k.shape[2] - q.shape[2]) if causal else seen
    if key_padding_mask is not None:
        seen = seen & ~key_padding_mask[:, None, None, :]
        k, v = (x.masked_fill(key_padding_mask[:, None, :, None], 0) for x in (k, v))
    phi_q, phi_k = phi(q), phi(k)
    if key_padding_mask is not None:
        phi_k = phi_k.masked_fill(key_padding_mask[:, None, :, None], 0)
    weights = (phi_q @ phi_k.repeat_interleave(group, 1).mT) * seen
    num, den = weights @ v.repeat_interleave(group, 1), weights.sum(-1, keepdim=True)
    blind = ~seen.any(-1, keepdim=True)
    last_S, last_z = phi_k.mT @ v, phi_k.sum(2)
    if state:
        (S, z), blind = state, torch.zeros_like(blind)
        num = num + phi_q @ S.repeat_interleave(group, 1)
        den = den + phi_q @ z.repeat_interleave(group, 1).unsqueeze(-1)
        last_S, last_z = last_S + S, last_z + z
    return num / (den + eps).masked_fill(blind, 1), last_S, last_z


def tensors(
    dtype: torch.dtype, batch: int, heads: tuple[int, int], lengths: tuple[int, int], widths: tuple[int, int]
) -> Any:
    """q, k, v, S, z; the state is as of some tokens before."""
    (Hq, Hkv), (Nq, Nk), (D, E) = heads, lengths, widths
    shapes = [(batch, Hq, Nq, D), (batch, Hkv, Nk, D), (batch, Hkv, Nk, E), (batch, Hkv, D, E)]
    made = [torch.randn(shape, dtype=dtype) for shape in shapes]
    return [x.requires_grad_() for x in (*made, torch.rand(batch, Hkv, D, dtype=dtype) + 0.5)]


def cut(inputs: Sequence[Tensor], start: int, stop: int) -> Any:
    """Tokens of q, k and v."""
    return [x[:, :, start:stop] for x in inputs]


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


def gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], upstream: Sequence[Tensor]
) -> list[Tensor]:
    cast = [g.to(y.dtype) for g, y in zip(upstream, outputs, strict=True)]
    found = torch.autograd.grad(outputs, inputs, cast, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


def assert_alike(got: Sequence[Tensor], expected: Sequence[Tensor], backend: str) -> None:
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        if one.numel():
            one, other = one.detach().double(), other.detach()
            scale = max(1.0, float(other.abs().max()))
            assert float((one - other).abs().max()) < tolerance(backend) * scale


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


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequence_split_anywhere_equals_the_whole(backend: str, seed: int) -> None:
    torch.manual_seed(seed)
    draw, tokens = random.Random(seed), 150
    q, k, v, *_ = tensors(wide_of(backend), 2, (4, 2), (tokens, tokens), (8, 5))
    whole, end = linear_attention(q, k, v, causal=True, return_state=True, backend=backend)
    cuts = sorted(draw.choices(range(tokens + 1), k=draw.choice([1, 3, 6])))  # some twice: parts of no tokens
    state, parts = None, []
    for a, b in pairwise([0, *cuts, tokens]):
        given: Any = {} if state is None else {"initial_state": state}
        some = cut((q, k, v), a, b)
        out, state = attend(*some, causal=True, return_state=True, backend=backend, **given)
        parts.append(out)
    assert state is not None
    joined = (torch.cat(parts, 2), *state)
    assert_alike(joined, [x.double() for x in (whole, *end)], backend)
    upstream = [torch.randn_like(x) for x in joined]
    pairs = [gradients(y, (q, k, v), upstream) for y in (joined, (whole, *end))]
    assert_alike(pairs[0], [x.double() for x in pairs[1]], backend)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("blocks", [(1,) * 9, (4, 1, 3, 1), (0, 20, 2)], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_step_by_step_equals_a_prefill(backend: str, blocks: tuple[int, ...], in_place: bool) -> None:
    tokens, dtype = sum(blocks), wide_of(backend)
    q, k, v, *_ = (x.detach() for x in tensors(dtype, 2, (6, 2), (tokens, tokens), (9, 21)))
    whole, end = linear_attention(q, k, v, causal=True, return_state=True, backend=backend)
    state, parts = State.empty(2, 2, 9, 21, dtype=dtype), []
    first = state  # alive, so that no other tensor takes its place
    for stop, count in zip(torch.tensor(blocks).cumsum(0).tolist(), blocks, strict=True):
        some = cut((q, k, v), stop - count, stop)
        out, state = step(*some, state, in_place=in_place, backend=backend)
        parts.append(out)
    assert_alike((torch.cat(parts, 2), *state), [x.double() for x in (whole, *end)], backend)
    same = [x.data_ptr() == y.data_ptr() for x, y in zip(state, first, strict=True)]
    assert same == [in_place, in_place]


@pytest.mark.parametrize("narrow", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("group", [1, 4])
def test_a_step_of_linear_native_keeps_a_float32_state_of_narrow_tokens(
    narrow: torch.dtype, group: int
) -> None:
    for tokens, widths in ((1, (64, 64)), (3, (7, 33)), (16, (20, 130))):
        q, k, v, S, z = tensors(torch.float32, 2, (2 * group, 2), (tokens, tokens), widths)
        q, k, v = (x.detach().to(narrow) for x in (q, k, v))
        state = State(S.detach(), z.detach())
        out, last = linear_attention_step(q, k, v, state, backend="native")
        expected, *end = textbook(q, k, v, *state, causal=True)
        assert out.dtype == narrow and last.dtype == torch.float32
        assert relative_error(out, expected) < max(1e-5, torch.finfo(narrow).eps)
        assert all(relative_error(a, b) < 1e-6 for a, b in zip(last, end, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_has_gradients_of_its_tokens_and_its_state(backend: str) -> None:
    inputs = tensors(wide_of(backend), 1, (4, 2), (2, 2), (6, 5))
    out, last = step(*inputs[:3], State(*inputs[3:]), backend=backend)
    expected = textbook(*inputs, causal=True)
    upstream = [torch.randn_like(x) for x in expected]
    pairs: Any = [gradients(y, inputs, upstream) for y in ((out, *last), expected)]
    assert_alike(pairs[0], pairs[1], backend)


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


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_casts_the_tokens_and_not_the_state(backend: str) -> None:
    if backend == "triton":
        pytest.skip("Triton's interpreter computes bfloat16 wrongly")
    q, k, v, S, z = (x.detach() for x in tensors(torch.float32, 1, (4, 2), (30, 30), (8, 8)))
    with torch.autocast("cpu", torch.bfloat16):
        given: dict[str, Any] = {"initial_state": State(S, z), "return_state": True}
        out, last = linear_attention(q, k, v, causal=True, backend=backend, **given)
        one, after = step(*cut((q, k, v), 0, 1), State(S, z), backend=backend)
    expected, end, _ = textbook(q.bfloat16(), k.bfloat16(), v.bfloat16(), S, z, causal=True)
    assert out.dtype == one.dtype == torch.bfloat16 and last.dtype == after.dtype == torch.float32
    assert relative_error(out, expected) < 0.01 and relative_error(last.S, end) < 0.01
    assert relative_error(one, expected[:, :, :1]) < 0.01


def grouped_and_padded(backend: str) -> tuple[Callable[..., Any], list[Tensor]]:
    mask = torch.zeros(2, 70, dtype=torch.bool)
    mask[0, 60:] = True
    inputs = tensors(torch.float32, 2, (4, 2), (40, 70), (8, 6))[:3]
    return lambda q, k, v: linear_attention(
        q, k, v, causal=True, key_padding_mask=mask, backend=backend
    ), inputs


def behind_a_state(backend: str) -> tuple[Callable[..., Any], list[Tensor]]:
    def run(q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor) -> Any:
        given: dict[str, Any] = {"initial_state": State(S, z), "return_state": True}
        out, last = linear_attention(q, k, v, causal=True, backend=backend, **given)
        return (out, *last)

    return run, tensors(torch.float32, 2, (4, 2), (70, 70), (8, 6))


def stepping(backend: str) -> tuple[Callable[..., Any], list[Tensor]]:
    def run(q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor) -> Any:
        out, last = linear_attention_step(q, k, v, State(S, z), backend=backend)
        return (out, *last)

    return run, tensors(torch.float32, 2, (4, 2), (1, 1), (8, 6))


@pytest.mark.parametrize(
    ("backend", "form"),
    sampled(
        BACKENDS,
        (grouped_and_padded, behind_a_state, stepping),
        quick=[("native", behind_a_state)],
    ),
)
def test_a_form_compiles_as_a_full_graph_with_gradients(backend: str, form: Callable[..., Any]) -> None:
    run, inputs = form(backend)
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    got, expected = (pytree.tree_leaves(function(*inputs)) for function in (compiled, run))
    upstream = [torch.randn_like(x) for x in expected]
    pairs = [(*y, *gradients(y, inputs, upstream)) for y in (got, expected)]
    assert all(relative_error(a, b) < 1e-5 for a, b in zip(*pairs, strict=True))
    with torch.no_grad():
        plain = [pytree.tree_leaves(function(*inputs)) for function in (compiled, run)]
    assert all(relative_error(a, b) < 1e-5 for a, b in zip(*plain, strict=True))


@pytest.mark.parametrize(
    ("backend", "causal"),
    sampled(["chunked", "native"], [False, True], quick=[("native", True)]),
)
def test_derivatives_of_any_mode_and_order_flow_through_states(backend: str, causal: bool) -> None:
    def run(q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        given: dict[str, Any] = {"initial_state": State(S, z), "return_state": True}
        out, last = linear_attention(q, k, v, causal=causal, backend=backend, **given)
        return out, *last

    inputs = tensors(torch.float64, 1, (2, 1), (2, 2), (2, 2))
    assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run, inputs, check_fwd_over_rev=True)
    many = [torch.stack([x.detach(), -x.detach().abs(), x.detach() ** 2]) for x in inputs[:4]]
    many.append(torch.rand(3, *inputs[4].shape, dtype=torch.float64))
    mapped = torch.vmap(run)(*many)
    for i, found in enumerate(zip(*mapped, strict=True)):
        assert_alike(found, run(*(x[i] for x in many)), backend)


@pytest.mark.parametrize(
    ("backend", "causal"),
    sampled(["chunked", "native"], [False, True], quick=[("chunked", False)]),
)
def test_derivatives_of_grouped_heads_are_right_in_any_mode_and_order(backend: str, causal: bool) -> None:
    inputs = tensors(torch.float64, 1, (2, 1), (2, 2 if causal else 3), (2, 2))[:3]

    def run(*x: Tensor) -> Tensor:
        found: Tensor = attend(*x, causal=causal, backend=backend)
        return found

    assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize(
    ("name", "causal", "kept"),
    sampled(("native", "chunked"), [False, True], [False, True], quick=[("native", True, True)]),
)
def test_the_operators_of_states_are_as_torch_wants_them(name: str, causal: bool, kept: bool) -> None:
    operator = getattr(torch.ops.attention, f"linear_{name}_with_state").default
    options = (causal, "elu", 1e-6, *([32] if name == "chunked" else []), kept)
    inputs = tensors(torch.float32, 2, (4, 2), (70, 70), (8, 6))
    if not (kept and name == "native"):
        inputs = [x.detach() for x in inputs]
    torch.library.opcheck(operator, (*inputs, *options))


def test_the_operators_of_steps_are_as_torch_wants_them() -> None:
    one = [x.detach() for x in tensors(torch.float32, 2, (4, 2), (3, 3), (8, 6))]
    for name in ("linear_native_step", "linear_native_step_"):
        torch.library.opcheck(getattr(torch.ops.attention, name).default, (*one, "elu", 1e-6))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backward_says_that_a_step_in_place_has_overwritten_what_it_saved(backend: str) -> None:
    q, k, v, S, z = (x.detach() for x in tensors(torch.float32, 1, (2, 2), (1, 1), (4, 4)))
    factor = torch.ones((), requires_grad=True)
    loss = (factor * S).sum()
    with torch.no_grad():
        step(q, k, v, State(S, z), in_place=True, backend=backend)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, factor)


def test_a_state_is_a_tuple_that_tells_its_size_and_moves() -> None:
    state = State.empty(2, 3, 4, 5)
    assert state.S.shape == (2, 3, 4, 5) and state.z.shape == (2, 3, 4) and not state.S.any()
    assert state.bytes == 4 * (2 * 3 * 4 * 5 + 2 * 3 * 4)
    assert (state.kv_heads, state.dtype, state.device.type) == (3, torch.float32, "cpu")
    assert State.empty(1, 1, 4).S.shape == (1, 1, 4, 4)
    double = state.to(torch.float64)
    assert isinstance(double, State) and double.dtype == torch.float64 and double.bytes == 2 * state.bytes
    copy = state.clone()
    copy.S.add_(1)
    assert not state.S.any()
    learned = State(state.S.clone().requires_grad_(), state.z)
    assert not learned.detach().S.requires_grad
    again = pytree.tree_map(lambda x: x + 1, state)
    assert isinstance(again, State) and bool((again.z == 1).all())


def given(**changed: Any) -> dict[str, Any]:
    q, k, v, S, z = (x.detach() for x in tensors(torch.float32, 2, (4, 2), (6, 6), (8, 5)))
    return {"q": q, "k": k, "v": v, "initial_state": State(S, z), **changed}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a state of other heads": ({"initial_state": State.empty(2, 4, 8, 5)}, r"\[2, 2, 8, 5\].*\[2, 4, 8, 5\]"),
    "a state that is one tensor": ({"initial_state": torch.zeros(2, 2, 8, 5)}, "must be a State"),
    "a state of integers": ({"initial_state": State.empty(2, 2, 8, 5, dtype=torch.int64)}, "floating-point"),
    "a mask of numbers": ({"key_padding_mask": torch.zeros(2, 6)}, "dtype bool, True = ignore"),
    "a mask of other keys": ({"key_padding_mask": torch.zeros(2, 7).bool()}, r"\[2, 6\].*\[2, 7\]"),
    "ends of a batch": ({"cu_seqlens": torch.tensor([0, 6])}, r"packed sequences are \[1, H, total, D\]"),
    "ends of another device": (
        {"cu_seqlens": torch.tensor([0, 6], device="meta")}, "must be beside q on cpu or on the CPU",
    ),
    "three heads of keys": (
        {"k": torch.zeros(2, 3, 6, 8), "v": torch.zeros(2, 3, 6, 5)}, "multiple of the heads of k and v",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_fits_no_form_is_refused_in_one_sentence(backend: str, what: str) -> None:
    changed, sentence = REFUSED[what]
    arguments = given(**changed)
    inputs = [arguments.pop(name) for name in "qkv"]
    with pytest.raises((TypeError, ValueError), match=sentence) as refusal:
        attend(*inputs, causal=True, return_state=True, backend=backend, **arguments)
    assert "\n" not in str(refusal.value)


def test_switches_that_are_no_bools_are_refused() -> None:
    arguments = given()
    q, k, v, state = (arguments[name] for name in ("q", "k", "v", "initial_state"))
    with pytest.raises(TypeError, match="return_state must be True or False, got 'no'"):
        linear_attention(q, k, v, return_state="no")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="in_place must be True or False, got 'no'"):
        linear_attention_step(q, k, v, state, in_place="no")  # type: ignore[arg-type]


def test_a_step_of_linear_native_speaks_of_the_state_that_it_refuses() -> None:
    arguments = given()
    q, k, v = (arguments[name] for name in "qkv")
    with pytest.raises(ValueError, match="the S of the state"):
        linear_attention_step(q, k, v, State.empty(2, 4, 8, 5), backend="native")
    with pytest.raises(ValueError, match="initial_state must hold floating-point numbers on cpu"):
        linear_attention_step(q, k, v, State.empty(2, 2, 8, 5, device="meta"), backend="native")


def test_packed_sequences_refuse_padding_and_ends_that_do_not_ascend() -> None:
    q, k, v, *_ = tensors(torch.float32, 1, (2, 2), (6, 6), (4, 4))
    for ends in ([1, 6], [0, 5], [0, 4, 2, 6], [0, 7]):
        with pytest.raises(ValueError, match="cu_seqlens must ascend from 0 to the 6 tokens"):
            linear_attention(q, k, v, cu_seqlens=torch.tensor(ends))
    mask = torch.zeros(1, 6, dtype=torch.bool)
    with pytest.raises(ValueError, match="packed sequences have no padding"):
        linear_attention(q, k, v, cu_seqlens=torch.tensor([0, 6]), key_padding_mask=mask)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_refuses_what_it_cannot_continue(backend: str) -> None:
    q, k, v, S, z = tensors(torch.float32, 1, (2, 2), (1, 1), (4, 4))
    state = State(S, z)
    with pytest.raises(ValueError, match=r"use torch.no_grad\(\) or in_place=False"):
        linear_attention_step(q, k, v, state, in_place=True, backend=backend)
    with pytest.raises(TypeError, match="a step continues a state; of no tokens"):
        linear_attention_step(q, k, v, None, backend=backend)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a step takes one key a query"):
        linear_attention_step(q, torch.cat([k, k], 2), torch.cat([v, v], 2), state, backend=backend)
    with pytest.raises(ValueError, match="initial_state must be S"):
        linear_attention_step(q, k, v, State.empty(1, 1, 4), backend=backend)
    with torch.no_grad():
        assert linear_attention_step(q, k, v, state, in_place=True, backend=backend)[1].S is S


@pytest.mark.parametrize("sizes", [(-1, 2, 4), (1, 2, 4, -2)])
def test_an_empty_state_of_no_size_is_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a state has sizes of at least 0"):
        State.empty(*sizes)
