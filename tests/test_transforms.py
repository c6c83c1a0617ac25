"""Derivatives of any mode and order and torch.vmap of linear kernels equal those of the textbook form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils.checkpoint import checkpoint

from attention import decay_attention, linear_attention, standard_attention
from attention.kernels.references import relative_error

pytestmark = pytest.mark.usefixtures("one_thread")

Attention = Callable[..., Tensor]
BACKENDS = ("native", "chunked")


def inputs(tokens: int = 5, mapped: int | None = None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (1, 2, tokens) if mapped is None else (mapped, 1, 2, tokens)
    return [torch.randn(*shape, width, generator=generator, dtype=torch.float64) for width in (3, 3, 2)]


X, H = inputs(), [x.cos() for x in inputs()]
MANY = inputs(mapped=3)
WEIGHTS = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(1, 2, 5, 2)


def loss(attend: Attention, *x: Tensor) -> Tensor:
    return (attend(*x).sin() * WEIGHTS).sum()


def dual(attend: Attention) -> Tensor:
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(x, h) for x, h in zip(X, H, strict=True)]  # type: ignore[no-untyped-call]
        tangent = forward_ad.unpack_dual(attend(*duals)).tangent  # type: ignore[no-untyped-call]
        assert isinstance(tangent, Tensor)
        return tangent


def second(attend: Attention) -> Any:
    x = [each.clone().requires_grad_() for each in X]
    first = torch.autograd.grad(loss(attend, *x), x, create_graph=True)
    return torch.autograd.grad(first, x, H)


def checkpointed(attend: Attention) -> Any:
    x = [each.clone().requires_grad_() for each in X]
    out = checkpoint(attend, *x, use_reentrant=False)
    assert isinstance(out, Tensor)
    return torch.autograd.grad(out.sin().sum(), x)


def mapped_with_gradients(attend: Attention) -> Any:
    x = [each.clone().requires_grad_() for each in MANY]
    return torch.autograd.grad(vmap(attend)(*x).sin().sum(), x)


WAYS: dict[str, Callable[[Attention], Any]] = {
    "jvp": lambda f: jvp(f, tuple(X), tuple(H))[1],
    "jvp of v alone": lambda f: jvp(lambda v: f(*X[:2], v), (X[2],), (H[2],))[1],
    "dual numbers": dual,
    "grad": lambda f: grad(partial(loss, f), (0, 1, 2))(*X),
    "jacfwd": lambda f: jacfwd(f, (0, 1, 2))(*X),
    "jacrev": lambda f: jacrev(f, (0, 1, 2))(*X),
    "hessian": lambda f: hessian(partial(loss, f), 1)(*X),
    "jacfwd of jacfwd": lambda f: jacfwd(jacfwd(partial(loss, f), 1), 0)(*X),
    "jacrev of jacrev": lambda f: jacrev(jacrev(partial(loss, f), 1), 0)(*X),
    "jacrev of jacfwd": lambda f: jacrev(jacfwd(partial(loss, f), 0), 2)(*X),
    "jvp of grad": lambda f: jvp(grad(partial(loss, f), (0, 1, 2)), tuple(X), tuple(H))[1],
    "vjp of grad": lambda f: vjp(grad(partial(loss, f), (0, 1, 2)), *X)[1](tuple(H)),
    "a backward twice": second,
    "checkpoint": checkpointed,
    "vmap": lambda f: vmap(f)(*MANY),
    "vmap of other dimensions": lambda f: vmap(f, (1, None, -1), 2)(
        MANY[0].movedim(0, 1), X[1], MANY[2].movedim(0, -1)
    ),
    "vmap of vmap": lambda f: vmap(vmap(f, (0, None, 0)), (None, 0, None))(*MANY),
    "vmap of grad": lambda f: vmap(grad(partial(loss, f), (0, 1, 2)), (0, None, 0))(MANY[0], X[1], MANY[2]),
    "grad of vmap": lambda f: grad(lambda *x: vmap(partial(loss, f))(*x).sum(), (0, 1, 2))(*MANY),
    "vmap of jvp": lambda f: vmap(lambda *x: jvp(f, x, tuple(H))[1])(*MANY),
    "a backward of vmap": mapped_with_gradients,
}


def distance(found: Any, wanted: Any) -> float:
    if isinstance(wanted, Tensor):
        return relative_error(found, wanted)
    return max(distance(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_derivative_and_map_of_a_linear_kernel_is_that_of_the_textbook_form(
    backend: str, way: str, causal: bool
) -> None:
    found, wanted = (
        WAYS[way](partial(linear_attention, causal=causal, backend=name)) for name in (backend, "explicit")
    )
    assert distance(found, wanted) < 1e-12


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_derivative_and_map_of_a_kernel_with_gates_is_that_of_the_textbook_form(
    backend: str, way: str
) -> None:
    """The gates are made of the other inputs, so that each way goes through them as well."""

    def attend(q: Tensor, k: Tensor, v: Tensor, *, backend: str) -> Tensor:
        g = -(q[..., 0] + k[..., 1]).sin().square() - v[..., 0].cos().square()
        return decay_attention(q, k, v, g, backend=backend)

    found, wanted = (WAYS[way](partial(attend, backend=name)) for name in (backend, "explicit"))
    assert distance(found, wanted) < 1e-12


@pytest.mark.parametrize("way", WAYS)
def test_every_derivative_and_map_of_standard_attention_is_that_of_the_explicit_form(way: str) -> None:
    found, wanted = (WAYS[way](partial(standard_attention, backend=name)) for name in ("auto", "explicit"))
    assert distance(found, wanted) < 1e-12


def test_tangents_of_standard_attention_are_those_of_the_explicit_form_where_torch_else_fuses() -> None:
    x, h = (tuple(torch.cat([each, each], -1)[..., :3].float() for each in three) for three in (X, H))
    found, wanted = (
        jvp(grad(lambda *x, b=name: standard_attention(*x, backend=b).sin().sum(), (0, 1, 2)), x, h)[1]
        for name in ("auto", "explicit")
    )
    assert distance(found, wanted) < 1e-5


@pytest.mark.parametrize("feature_map", ["relu", "identity", lambda x: x.square() + 1])
@pytest.mark.parametrize("backend", BACKENDS)
def test_tangents_of_every_feature_map_are_those_of_the_textbook_form(backend: str, feature_map: Any) -> None:
    found, wanted = (
        WAYS["jvp of grad"](partial(linear_attention, feature_map=feature_map, eps=50.0, backend=name))
        for name in (backend, "explicit")
    )
    assert distance(found, wanted) < 1e-10


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_derivatives_of_many_chunks_and_segments_are_those_of_the_textbook_form(
    backend: str, causal: bool
) -> None:
    """What a forward of one batch keeps is cut otherwise than a mapped backward would cut it."""
    torch.set_num_threads(2)
    x, many = inputs(600), inputs(600, mapped=3)
    outs = []
    for name in (backend, "explicit"):
        attend = partial(linear_attention, causal=causal, backend=name)
        pull = vjp(attend, *x)[1]
        outs.append((*vmap(pull)(many[2]), jvp(attend, tuple(x), tuple(t[0] for t in many))[1]))
    assert distance(*outs) < 1e-12


@pytest.mark.parametrize("backend", ["native", "chunked"])
def test_torch_checks_first_and_second_derivatives_in_both_modes(backend: str) -> None:
    x = [each[:, :1, :3].clone().requires_grad_() for each in X]
    attend = partial(linear_attention, causal=True, backend=backend)
    torch.autograd.gradcheck(
        attend, x, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )
    torch.autograd.gradgradcheck(attend, x, check_fwd_over_rev=True)


@pytest.mark.parametrize("tokens", [64, 128])
@pytest.mark.parametrize("backend", BACKENDS)
def test_batched_second_derivatives_of_whole_chunks(backend: str, tokens: int) -> None:
    """Where no token is cut off, indexing would be ``aten::alias``, which torch cannot map here."""
    x = [each.requires_grad_() for each in inputs(tokens)]
    gates = torch.full((1, 2, tokens), -0.1, dtype=torch.float64, requires_grad=True)
    check = partial(torch.autograd.gradgradcheck, check_batched_grad=True, fast_mode=True)
    options: dict[str, Any] = {"causal": True, "backend": backend}
    check(partial(linear_attention, **options), x)
    check(partial(linear_attention, cu_seqlens=torch.tensor([0, tokens]), **options), x)
    check(partial(decay_attention, backend=backend), [*x, gates])


def test_an_operator_of_a_graph_refuses_tangents_instead_of_dropping_them() -> None:
    for operator, options in (
        (torch.ops.attention.linear_native, (False, "elu", 1e-6, None, False)),
        (torch.ops.attention.linear_chunked, (False, "elu", 1e-6, 64, False)),
    ):
        with pytest.raises(RuntimeError, match="carries no tangents of forward mode"):
            jvp(lambda *x, f=operator, o=options: f(*x, *o)[0], tuple(X), tuple(H))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_map_over_nothing_has_the_shape_of_one_over_something(backend: str) -> None:
    attend = vmap(partial(linear_attention, backend=backend))
    some = attend(*MANY)
    assert attend(*[x[:0] for x in MANY]).shape == (0, *some.shape[1:])
