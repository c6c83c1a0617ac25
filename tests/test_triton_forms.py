"""Forms of linear-triton: grouped heads, unequal lengths, packed sequences, states, steps.

The last test of test_triton.py runs these in a process of Triton's interpreter on a CPU. Segments of 64
tokens and chunks of 32 cross every boundary within a hundred tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from attention import State, linear_attention_step
from attention.case import MODES
from attention.kernels.linear_explicit import linear_explicit
from attention.kernels.linear_triton.kernel import linear_triton, linear_triton_step
from attention.kernels.linear_triton.plan_cache import launches
from attention.kernels.linear_triton.step import MOST_ROWS, serves_step
from attention.kernels.references import TOLERANCES, gradient_error, linear_reference, relative_error
from attention.profiler import count_flops
from tests.interpreted import continued, filled_with_nan, set_rules

ENDS = [0, 0, 3, 40, 41, 120, 120, 150, 150]
"""Sequences of none, of one and of many tokens; one reaches over three segments, and one ends with one."""


pytestmark = pytest.mark.usefixtures("triton_passes")


def made(
    device: str, heads: tuple[int, int], tokens: tuple[int, int], widths: tuple[int, int] = (16, 12),
    *, batch: int = 1, dtype: torch.dtype = torch.float32, seed: int = 3,
) -> list[Tensor]:  # fmt: skip
    """q, k and v of ``heads`` and ``tokens`` of queries and of keys, as a layer's projections lie."""
    generator = torch.Generator().manual_seed(seed)
    (Hq, Hkv), (Nq, Nk), (D, E) = heads, tokens, widths
    sizes = (batch, Nq, Hq, D), (batch, Nk, Hkv, D), (batch, Nk, Hkv, E)
    return [torch.randn(size, generator=generator).to(device, dtype).transpose(1, 2) for size in sizes]


def begun(k: Tensor, v: Tensor, batch: int | None = None) -> State:
    """A state of tokens before these."""
    shape = k.shape[0] if batch is None else batch, k.shape[1], k.shape[3]
    generator = torch.Generator().manual_seed(5)
    S, z = torch.randn(*shape, v.shape[3], generator=generator), torch.rand(shape, generator=generator) * 9
    return State(S.to(k.device), z.to(k.device))


def errors(
    x: list[Tensor], state: State | None = None, *, of: Callable[..., Any] = linear_triton, **options: Any
) -> tuple[float, float]:
    """Errors of outputs and of gradients against the recurrence in float64."""

    def found(function: Callable[..., Any], dtype: torch.dtype | None) -> tuple[list[Tensor], list[Tensor]]:
        given = [t.detach().to(dtype or t.dtype).requires_grad_() for t in (*x, *(state or ()))]
        if state is not None:
            options["initial_state"] = State(*given[3:])
        result = function(*given[:3], **options)
        outputs = [result[0], *result[1]] if options.get("return_state") else [result]
        generator = torch.Generator().manual_seed(7)
        weights = [
            torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.device) for y in outputs
        ]
        loss = sum((y.double() * w).sum() for y, w in zip(outputs, weights, strict=True))
        assert isinstance(loss, Tensor)
        gradients = torch.autograd.grad(loss, given, allow_unused=True)
        return outputs, [
            torch.zeros_like(t) if g is None else g for g, t in zip(gradients, given, strict=True)
        ]

    (got, got_gradients), (wanted, wanted_gradients) = found(of, None), found(linear_reference, torch.float64)
    outputs = [relative_error(a, b) for a, b in zip(got, wanted, strict=True) if b.numel()]
    return max(outputs, default=0.0), gradient_error(tuple(got_gradients), tuple(wanted_gradients))


def right(x: list[Tensor], state: State | None = None, **options: Any) -> None:
    forward, backward = errors(x, state, **options)
    limits = TOLERANCES[x[0].dtype]
    assert forward < limits[0] and backward < limits[1], (forward, backward)


def packed(ends: list[int], device: str) -> dict[str, Any]:
    return {"cu_seqlens": torch.tensor(ends, dtype=torch.int32, device=device)}


@pytest.mark.parametrize("mode", ["causal", pytest.param("bidirectional", marks=pytest.mark.slow)])
def test_heads_that_share_keys_equal_the_recurrence_with_gradients(mode: str, device: str) -> None:
    right(made(device, (4, 2), (70, 70)), causal=mode == "causal")


@pytest.mark.parametrize(
    ("mode", "tokens"),
    [
        ("causal", (40, 100)),
        ("causal", (100, 40)),
        ("bidirectional", (1, 100)),
        pytest.param("causal", (1, 100), marks=pytest.mark.slow),
        pytest.param("bidirectional", (40, 100), marks=pytest.mark.slow),
        pytest.param("bidirectional", (100, 40), marks=pytest.mark.slow),
    ],
)
def test_unequal_lengths_equal_the_recurrence_with_gradients(
    mode: str, tokens: tuple[int, int], device: str
) -> None:
    x = made(device, (2, 1), tokens)
    right(x, begun(x[1], x[2]), causal=mode == "causal", return_state=True)


@pytest.mark.parametrize("mode", ["bidirectional", pytest.param("causal", marks=pytest.mark.slow)])
def test_packed_sequences_equal_the_recurrence_with_gradients(mode: str, device: str) -> None:
    right(made(device, (2, 1), (150, 150)), causal=mode == "causal", **packed(ENDS, device))


@pytest.mark.slow
@pytest.mark.parametrize("inputs_in", [torch.float32, torch.float16])
@pytest.mark.parametrize("moved_by", ["pointers", "descriptors"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["grouped", "scanned", "unequal", "packed", "padded"])
def test_random_shapes_of_every_form_equal_the_recurrence_with_gradients(
    form: str, mode: str, moved_by: str, inputs_in: torch.dtype, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_rules(monkeypatch, DESCRIBED=0 if moved_by == "descriptors" else 2**62)
    if form == "scanned":
        set_rules(monkeypatch, FOLDED=0)
    draw = random.Random(f"{form} {mode} {moved_by} {inputs_in}")
    heads = draw.choice([(2, 2), (4, 2), (4, 1), (8, 1)])
    N = draw.randint(1, 160)
    Nk = draw.randint(0, 160) if form == "unequal" else N
    widths = draw.choice([8, 16, 24]), draw.choice([8, 16, 40])
    batch = 1 if form == "packed" else draw.choice([1, 2])
    x = made(device, heads, (N, Nk), widths, batch=batch, dtype=inputs_in)
    options: dict[str, Any] = {"causal": mode == "causal", "feature_map": draw.choice(["elu", "relu"])}
    if options["feature_map"] == "relu":
        options["eps"] = 1.0
    if form == "packed":
        cuts = sorted(draw.choices(range(N + 1), k=draw.randint(0, 8)))
        options |= packed([0, *cuts, N], device)
    if form == "padded":
        options["key_padding_mask"] = torch.rand(batch, N, generator=torch.Generator().manual_seed(1)) < 0.3
        options["key_padding_mask"] = options["key_padding_mask"].to(device)
    stated = form in ("grouped", "unequal") and draw.random() < 0.5
    right(x, begun(x[1], x[2]) if stated else None, return_state=stated, **options)


def test_packed_sequences_with_states_equal_the_recurrence_with_gradients(device: str) -> None:
    x, ends = made(device, (2, 1), (70, 70)), [0, 5, 5, 69, 70]
    right(x, begun(x[1], x[2], batch=4), causal=True, return_state=True, **packed(ends, device))


@pytest.mark.parametrize("mode", ["causal", pytest.param("bidirectional", marks=pytest.mark.slow)])
def test_no_packed_sequence_sees_another(mode: str, device: str) -> None:
    """Bits of a sequence do not change with what stands before and behind it."""
    q, k, v = made(device, (2, 2), (150, 150))
    options: dict[str, Any] = {"causal": mode == "causal", **packed([0, 50, 110, 150], device)}
    out = linear_triton(q, k, v, **options)
    for x in (q, k, v):
        x[:, :, :50] *= -7
        x[:, :, 110:] += 3
    assert torch.equal(linear_triton(q, k, v, **options)[:, :, 50:110], out[:, :, 50:110])


def test_whatever_ends_a_card_is_given_each_token_lies_within_its_sequence_and_that_in_the_tensor(
    device: str,
) -> None:
    """On a card nobody looks at the values, and the passes read what lies between the ends of a token."""
    q, k, v = made(device, (1, 1), (70, 70))
    token = torch.arange(70, device=device)
    for given in ([-5, 1000], [9], [60, 3, 0], [0, 200, 30, 70], [2**40, -(2**40)]):
        wrong = torch.tensor(given, dtype=torch.int64, device=device)
        ends = launches(q, k, v, True, "elu", "ieee", cu_seqlens=wrong).ends_of(wrong)
        assert ends is not None
        begin, end = ends
        assert ((begin >= 0) & (begin <= token) & (token < end) & (end <= 70)).all(), given


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_no_uninitialised_memory_reaches_a_result_of_packed_sequences_and_bits_repeat(
    mode: str, device: str
) -> None:
    options: dict[str, Any] = {"causal": mode == "causal", **packed([0, 20, 66, 70], device)}

    def results() -> list[Tensor]:
        x = [t.requires_grad_() for t in made(device, (2, 1), (70, 70), (12, 5))]
        q, k, v = x
        out = linear_triton(q, k, v, **options)
        return [out, *torch.autograd.grad(out.sum(), x)]

    clean = results()
    with filled_with_nan():
        poisoned = results()
    assert all(map(torch.equal, poisoned, clean))


def test_heads_that_share_keys_give_the_bits_of_repeated_keys_forward(device: str) -> None:
    q, k, v = made(device, (4, 2), (70, 70))
    repeated = linear_triton(q, *(x.repeat_interleave(2, 1) for x in (k, v)), causal=True)
    assert torch.equal(linear_triton(q, k, v, causal=True), repeated)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["grouped", "packed", "unequal"])
def test_second_derivatives_and_tangents_of_forms_are_those_of_the_textbook_form(
    form: str, device: str
) -> None:
    tokens = (20, 40) if form == "unequal" else (40, 40)
    x = tuple(made(device, (4, 2), tokens, (8, 8)))
    options: dict[str, Any] = packed([0, 7, 40], device) if form == "packed" else {}

    def derived(attend: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        def loss(*x: Tensor) -> Tensor:
            found: Tensor = attend(*x, causal=form != "unequal", **options).sin().sum()
            return found

        gradients = torch.func.grad(loss, (0, 1, 2))
        return *torch.func.jvp(gradients, x, x)[1], *torch.func.vjp(gradients, *x)[1](x)

    for found, wanted in zip(derived(linear_triton), derived(linear_explicit), strict=True):
        assert relative_error(found, wanted) < 1e-4


STEPS = [
    ((2, 1), 1, (16, 24), "elu", torch.float32),
    ((4, 1), 3, (20, 40), "relu", torch.float32),
    ((2, 2), 8, (24, 8), "elu", torch.float16),
    ((2, 1), 2, (256, 130), "identity", torch.float32),
]


@pytest.mark.parametrize(("heads", "tokens", "widths", "feature_map", "inputs_in"), STEPS)
def test_a_step_equals_the_recurrence_and_writes_the_state_where_it_was_asked_to(
    heads: tuple[int, int], tokens: int, widths: tuple[int, int], feature_map: str, inputs_in: torch.dtype,
    device: str,
) -> None:  # fmt: skip
    q, k, v = made(device, heads, (tokens, tokens), widths, batch=2, dtype=inputs_in)
    if feature_map == "identity":
        q, k = q.abs(), k.abs()
    state = begun(k, v)
    wanted, last = linear_reference(
        q, k, v, causal=True, feature_map=feature_map, initial_state=state, return_state=True
    )
    kept = state.clone()
    out, new = linear_triton_step(q, k, v, state, feature_map=feature_map)
    assert all(map(torch.equal, state, kept))
    limit = TOLERANCES[inputs_in][0]
    assert relative_error(out, wanted) < limit and out.dtype == inputs_in
    assert all(relative_error(a, b) < limit for a, b in zip(new, last, strict=True))
    again, same = linear_attention_step(
        q, k, v, kept, feature_map=feature_map, in_place=True, backend="triton"
    )
    assert same is kept and torch.equal(again, out) and all(map(torch.equal, kept, new))


def test_a_step_of_many_tokens_or_behind_a_state_in_float64_is_right_too(device: str) -> None:
    q, k, v = made(device, (4, 1), (30, 30))
    state = begun(k, v)
    assert not serves_step(q, k, *state) and MOST_ROWS < 4 * 30
    wanted, last = linear_reference(q, k, v, causal=True, initial_state=state, return_state=True)
    for given in (state, state.to(torch.float64)):
        out, new = linear_triton_step(q, k, v, given)
        assert relative_error(out, wanted) < 1e-5 and relative_error(new.S, last.S) < 1e-5


def test_steps_that_are_differentiated_have_the_gradients_of_the_whole_sequence(device: str) -> None:
    x = [t.requires_grad_() for t in made(device, (2, 1), (3, 3))]
    outputs, state = [], State.empty(1, 1, 16, 12, device=device)
    for i in range(3):
        q, k, v = (t[:, :, i : i + 1] for t in x)
        out, state = linear_triton_step(q, k, v, state)
        outputs.append(out)
    q, k, v = x
    whole, last = continued(q, k, v)
    weights = torch.randn_like(whole)
    got = torch.autograd.grad((torch.cat(outputs, 2) * weights).sum() + state.S.sum(), x)
    wanted = torch.autograd.grad((whole * weights).sum() + last.S.sum(), x)
    assert gradient_error(got, wanted) < 1e-5


def test_operators_of_forms_pass_the_checks_of_torch(device: str) -> None:
    """Schemas, fake results and gradients, as torch.library.opcheck checks them."""
    ops = torch.ops.attention
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    q, k, v = (t.contiguous() for t in made(device, (2, 1), (70, 70)))
    S, z = begun(k, v)
    ends = packed([0, 30, 70], device)["cu_seqlens"]
    how = "elu", 1e-6, "ieee"
    state = S.flatten(0, 1), z.flatten(0, 1)
    calls = (
        (ops.linear_triton_inference, (q, k, v, False, *how, ends)),
        (ops.linear_triton_inference, (q[:, :, :9], k, v, False, *how, None)),
        (ops.linear_triton, (q, k, v, *state, True, *how, None, True, True)),
        (ops.linear_triton, (q, k, v, None, None, False, *how, ends, False, True)),
        (ops.linear_triton_step, (q[:, :, :1], k[:, :, :1], v[:, :, :1], S, z, "elu", 1e-6)),
        (ops.linear_triton_step_, (q[:, :, :1], k[:, :, :1], v[:, :, :1], S.clone(), z.clone(), "elu", 1e-6)),
    )  # fmt: skip
    for operator, arguments in calls:
        torch.library.opcheck(operator, arguments, test_utils=tests)


@pytest.mark.slow
def test_forms_compiled_as_a_full_graph_give_the_same_bits_with_gradients(device: str) -> None:
    compiled = torch.compile(linear_triton, backend="aot_eager", fullgraph=True)
    x = [t.requires_grad_() for t in made(device, (2, 1), (70, 70))]
    ends = packed([0, 30, 70], device)
    forms: tuple[dict[str, Any], ...] = {"causal": True, **ends}, {**ends}, {"causal": True}
    for options in forms:
        out, expected = (f(*x, **options) for f in (compiled, linear_triton))
        assert torch.equal(out, expected)
        weights = torch.randn_like(out)
        got, wanted = (torch.autograd.grad(y, x, weights) for y in (out, expected))
        assert all(map(torch.equal, got, wanted))
    stepped = torch.compile(linear_triton_step, backend="aot_eager", fullgraph=True)
    q, k, v = (t.detach()[:, :, :2] for t in x)
    state = begun(k, v)
    for in_place in (False, True):
        results = [f(q, k, v, state.clone(), in_place=in_place) for f in (stepped, linear_triton_step)]
        (a, s), (b, t) = results
        assert torch.equal(a, b) and all(map(torch.equal, s, t))


def test_counted_flops_of_a_step_are_those_of_the_recurrence(device: str) -> None:
    q, k, v = made(device, (4, 2), (1, 1))
    state = begun(k, v)
    counted = count_flops(lambda: linear_triton_step(q, k, v, state))
    assert counted == 2 * (2 * 16 * 12 + 4 * (16 * 12 + 16))


def test_ends_that_change_after_a_forward_change_no_gradient(device: str) -> None:
    inputs = [x.requires_grad_() for x in made(device, (1, 1), (100, 100))]
    ends = torch.tensor([0, 40, 100], device=device)
    out = linear_triton(*inputs, causal=True, cu_seqlens=ends)
    expected = torch.autograd.grad(out.sum(), inputs, retain_graph=True)
    ends.copy_(torch.tensor([0, 10, 100]))
    assert all(map(torch.equal, torch.autograd.grad(out.sum(), inputs), expected))
