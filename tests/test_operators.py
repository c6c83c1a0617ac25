"""Operators called directly refuse what they would read beyond, and take all strides of their tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from attention.kernels.linear_native import linear_native
from attention.kernels.references import REFERENCES, relative_error
from attention.kernels.triton_common.plan import plan_of
from tests.misfits import MISFITS, three

Change = Callable[[Tensor], Any]
ops = torch.ops.attention
pytestmark = pytest.mark.usefixtures("one_thread")


def gates(q: Tensor) -> Tensor:
    """Gates for such queries."""
    return q.new_zeros(q.shape[:3], dtype=torch.promote_types(q.dtype, torch.float32)) - 0.1


def state(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """A state before such keys and values."""
    wide = torch.promote_types(k.dtype, torch.float32)
    return k.new_ones(*k.shape[:2], k.shape[-1], v.shape[-1], dtype=wide), k.new_ones(
        *k.shape[:2], k.shape[-1], dtype=wide
    )


FORWARD: dict[str, Callable[..., Any]] = {
    "linear-native": lambda q, k, v, phi="elu": ops.linear_native(q, k, v, True, phi, 1e-6, None, True),
    "linear-chunked": lambda q, k, v, phi="elu": ops.linear_chunked(q, k, v, True, phi, 1e-6, 32, True),
    "linear-native with state": lambda q, k, v, phi="elu": ops.linear_native_with_state(
        q, k, v, *state(*three()[1:]), True, phi, 1e-6, None, True
    ),
    "linear-native step": lambda q, k, v, phi="elu": ops.linear_native_step_(
        q, k, v, *state(*three()[1:]), phi, 1e-6
    ),
    "linear-chunked with state": lambda q, k, v, phi="elu": ops.linear_chunked_with_state(
        q, k, v, *state(*three()[1:]), True, phi, 1e-6, 32, True
    ),
    "linear-decay-native": lambda q, k, v, phi="elu": ops.linear_decay_native(q, k, v, gates(q), phi, True),
    "linear-decay-chunked": lambda q, k, v, phi="elu": ops.linear_decay_chunked(
        q, k, v, gates(q), phi, 32, True
    ),
    "linear-triton inference": lambda q, k, v, phi="elu": ops.linear_triton_inference(
        q, k, v, True, phi, 1e-6, "ieee", None
    ),
    "linear-triton": lambda q, k, v, phi="elu": ops.linear_triton(
        q, k, v, None, None, True, phi, 1e-6, "ieee", None, False, True
    ),
}
CHANGES: dict[str, Change] = {
    "a batch short": lambda x: x[1:],
    "a row too long": lambda x: torch.cat([x, x[:1]]),
    "narrower": lambda x: x[..., 1:].contiguous(),
    "flat": lambda x: x.flatten(),
    "a single number": lambda x: x.flatten()[0],
    "in another dtype": lambda x: x.half(),
    "empty": lambda x: x.new_empty(0),
}
"""What is done to one argument of a backward, of which each must be of one shape."""


@pytest.mark.parametrize("misfit", [name for name in MISFITS if name != "v elsewhere"])
@pytest.mark.parametrize("name", FORWARD)
def test_an_operator_refuses_tensors_that_do_not_fit_together(name: str, misfit: str) -> None:
    with pytest.raises(ValueError, match=name.split()[0]):
        FORWARD[name](*MISFITS[misfit](*three()))


@pytest.mark.parametrize("misfit", ["k a head short", "v a token short", "all of rank 3", "no width of v"])
@pytest.mark.parametrize("name", FORWARD)
def test_an_operator_of_a_compiler_refuses_tensors_that_do_not_fit_together(name: str, misfit: str) -> None:
    with FakeTensorMode() as mode:
        inputs = [mode.from_tensor(x) for x in MISFITS[misfit](*three())]
        with pytest.raises(ValueError, match=name.split()[0]):
            FORWARD[name](*inputs)


@pytest.mark.parametrize("name", FORWARD)
def test_an_operator_refuses_an_unknown_feature_map(name: str) -> None:
    with pytest.raises(ValueError, match="feature map 'softplus' does not exist; choose one of elu, relu"):
        FORWARD[name](*three(), phi="softplus")


@pytest.mark.parametrize("name", [name for name in FORWARD if "chunked" not in name])
@pytest.mark.parametrize("place", range(3))
def test_a_compiled_operator_refuses_rows_that_are_not_in_one_piece(place: int, name: str) -> None:
    inputs = list(three(tokens=8))
    inputs[place] = inputs[place].mT.contiguous().mT
    with pytest.raises(ValueError, match=rf"reads {'qkv'[place]} row by row, so its last stride must be 1"):
        FORWARD[name](*inputs)


def kept(name: str) -> tuple[dict[str, Tensor], Callable[..., Any]]:
    """The tensors that a backward takes, by name, and the backward."""
    q, k, v = three()
    do = torch.randn_like(v)
    if name == "linear-native":
        out, inverse, states = ops.linear_native(q, k, v, False, "elu", 1e-6, None, True)
        tensors = {"do": do, "q": q, "k": k, "v": v, "out": out, "inverse": inverse, "states": states}
        return tensors, lambda *x: ops.linear_native_backward(*x, False, "elu", None)
    if name == "linear-chunked":
        out, den, states = ops.linear_chunked(q, k, v, True, "elu", 1e-6, 32, True)
        tensors = {"grad_out": do, "q": q, "k": k, "v": v, "out": out, "den": den, "states": states}
        return tensors, lambda *x: ops.linear_chunked_backward(*x, True, "elu", 32)
    if name == "linear-native with state":
        S, z = state(k, v)
        out, *_, inverse, states = ops.linear_native_with_state(q, k, v, S, z, False, "elu", 1e-6, None, True)
        tensors = {"do": do, "dS": S, "dz": z, "q": q, "k": k, "v": v, "S0": S, "z0": z}
        tensors |= {"out": out, "inverse": inverse, "states": states}
        return tensors, lambda *x: ops.linear_native_with_state_backward(*x, False, "elu", None)
    if name == "linear-chunked with state":
        S, z = state(k, v)
        out, *_, den, states = ops.linear_chunked_with_state(q, k, v, S, z, True, "elu", 1e-6, 32, True)
        tensors = {"grad_out": do, "dS": S, "dz": z, "q": q, "k": k, "v": v}
        tensors |= {"out": out, "den": den, "states": states}
        return tensors, lambda *x: ops.linear_chunked_with_state_backward(*x, True, "elu", 32)
    if name == "linear-decay-chunked":
        out, states = ops.linear_decay_chunked(q, k, v, gates(q), "elu", 32, True)
        tensors = {"grad_out": do, "q": q, "k": k, "v": v, "g": gates(q), "states": states}
        return tensors, lambda *x: ops.linear_decay_chunked_backward(*x, "elu", 32)
    if name == "linear-decay-native":
        torch.set_num_threads(3)
        q, k, v = three(1, 1, 700)
        out, states = ops.linear_decay_native(q, k, v, gates(q), "elu", True)
        tensors = {"do": torch.ones_like(v), "q": q, "k": k, "v": v, "g": gates(q), "states": states}
        return tensors, lambda *x: ops.linear_decay_native_backward(*x, "elu")
    heads, slots = 4, plan_of(q, k, v).slots(1)
    S, z, S0, z0, dS, dz = (
        torch.zeros(heads, *shape) for shape in ((slots, 8, 8), (slots, 8), (8, 8), (8,), (8, 8), (8,))
    )
    tensors = {"do": do, "q": q, "k": k, "v": v, "out": v.clone(), "inv": torch.zeros(heads, 70)}
    tensors |= {"S": S, "z": z, "S0": S0, "z0": z0, "dS": dS, "dz": dz}
    return tensors, lambda *x: ops.linear_triton_backward(*x, True, "elu", "ieee", None, True)


BACKWARD = [
    (name, argument)
    for name, given in (
        ("linear-native", "do q k v out inverse states"),
        ("linear-chunked", "grad_out q k v out den states"),
        ("linear-native with state", "do dS dz q k v S0 z0 out inverse states"),
        ("linear-chunked with state", "grad_out dS dz q k v out den states"),
        ("linear-decay-native", "do q k v g states"),
        ("linear-decay-chunked", "grad_out q k v g states"),
        ("linear-triton", "do q k v out inv S z S0 z0 dS dz"),
    )
    for argument in given.split()
]


@pytest.mark.parametrize(("name", "argument"), BACKWARD)
def test_a_backward_refuses_an_argument_that_is_not_of_its_forward(name: str, argument: str) -> None:
    tensors, backward = kept(name)
    for change, changed in CHANGES.items():
        with pytest.raises(ValueError):
            backward(*{**tensors, argument: changed(tensors[argument])}.values())
            pytest.fail(f"took {argument} {change}")


@pytest.mark.parametrize("causal", [False, True])
def test_a_backward_of_linear_native_refuses_sums_of_the_other_mode(causal: bool) -> None:
    q, k, v = three()
    results = ops.linear_native(q, k, v, causal, "elu", 1e-6, None, True)
    with pytest.raises(ValueError, match="linear-native takes states"):
        ops.linear_native_backward(torch.ones_like(v), q, k, v, *results, not causal, "elu", None)


@pytest.mark.parametrize(
    ("name", "arguments"), [("linear-native", "out inverse states"), ("linear-decay-native", "g states")]
)
def test_a_backward_in_cpp_takes_what_it_kept_in_any_strides(name: str, arguments: str) -> None:
    tensors, backward = kept(name)
    expected = backward(*tensors.values())
    for argument in arguments.split():
        x = tensors[argument]
        tensors[argument] = x.transpose(0, 1).contiguous().transpose(0, 1)
    assert all(map(torch.equal, backward(*tensors.values()), expected))


@pytest.mark.parametrize("half", ["S0", "z0", "dS", "dz"])
def test_linear_triton_refuses_half_a_state(half: str) -> None:
    tensors, backward = kept("linear-triton")
    tensors[half] = None  # type: ignore[assignment]
    with pytest.raises(ValueError, match="takes both parts of a state, S and z, or neither"):
        backward(*tensors.values())
    q, k, v, S0, z0 = (tensors.get(name) for name in ("q", "k", "v", "S0", "z0"))
    if half in ("S0", "z0"):
        with pytest.raises(ValueError, match="takes both parts of a state, S and z, or neither"):
            ops.linear_triton(q, k, v, S0, z0, True, "elu", 1e-6, "ieee", None, True, True)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((1, 1, 2**30 + 1, 1), f"at most {2**30} tokens and {2**28} heads in all; got {2**30 + 1} and 1"),
        ((2**15, 2**14, 1, 1), f"got 1 and {2**29}"),
    ],
)
def test_linear_triton_refuses_sizes_beyond_its_32_bit_numbers(
    shape: tuple[int, ...], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One element, expanded: no memory of that size is needed."""
    monkeypatch.setattr("attention.kernels.linear_triton.operator.contiguous_output", lambda q, v: v)
    x = torch.zeros(1, 1, 1, 1).expand(shape)
    with pytest.raises(ValueError, match=reason):
        ops.linear_triton_inference(x, x, x, True, "elu", 1e-6, "ieee", None)


def test_linear_triton_refuses_tokens_that_32_bits_do_not_reach() -> None:
    """Memory that is not touched is not taken."""
    q, k, v = three(1, 1, 2)
    far = torch.empty(2**25 + 8).as_strided(v.shape, (8, 8, 2**25, 1))
    with pytest.raises(
        ValueError, match=f"reaches tokens less than {2**25} elements apart; got a stride of "
    ):
        ops.linear_triton_inference(q, k, far, True, "elu", 1e-6, "ieee", None)


def test_a_tensor_without_memory_is_refused() -> None:
    q, k, v = three()
    k.untyped_storage().resize_(0)
    for name in FORWARD:
        if "chunked" not in name:
            with pytest.raises(ValueError, match="has no memory: its storage was freed or never made"):
                FORWARD[name](q, k, v)


def test_gates_and_sums_without_memory_are_refused() -> None:
    for name in ("g", "states"):
        tensors, backward = kept("linear-decay-native")
        tensors[name].untyped_storage().resize_(0)
        with pytest.raises(ValueError, match="has no memory: its storage was freed or never made"):
            backward(*tensors.values())


@pytest.mark.parametrize("causal", [False, True])
def test_overlapping_and_gapped_values_of_linear_native_give_an_output_of_whole_rows(causal: bool) -> None:
    """torch would order the strides of a like tensor as those of the values, whose rows may overlap."""
    q, k, _ = three(2, 3, 70)
    room = torch.randn(10_000)
    for strides in ((1, 8, 24, 1), (1, 7, 50, 1), (0, 0, 1, 1), (0, 0, 0, 1), (3, 2, 1, 1)):
        v = room.as_strided((2, 3, 70, 8), strides)
        out = ops.linear_native(q, k, v, causal, "elu", 1e-6, None, False)[0]
        assert relative_error(out, REFERENCES["linear"](q, k, v, causal=causal)) < 1e-5


@pytest.mark.parametrize("causal", [False, True])
def test_strides_of_dimensions_of_size_one_do_not_matter_to_linear_native(causal: bool) -> None:
    """Results take over such strides, of which no address may be computed."""
    q, k, v = (x.as_strided(x.shape, (2**61, 2**61, 8, 1)).requires_grad_() for x in three(1, 1, 200))
    plain = [x.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for x in (q, k, v)]
    results = []
    for inputs in ((q, k, v), plain):
        out = linear_native(*inputs, causal=causal)
        results.append([out, *torch.autograd.grad(out.sin().sum(), inputs)])
    assert all(map(torch.equal, *results))
