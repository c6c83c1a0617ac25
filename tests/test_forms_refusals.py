"""What fits no form of linear attention is refused in one sentence: states, masks, packed ends, steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from attention import SelfAttention, linear_attention, linear_attention_step
from attention.modules import KVCache
from attention.state import State
from tests.textbook import BACKENDS, attend, tensors

pytestmark = pytest.mark.usefixtures("one_thread")


def given(**changed: Any) -> dict[str, Any]:
    q, k, v, S, z = (x.detach() for x in tensors(torch.float32, 2, (4, 2), (6, 6), (8, 5)))
    return {"q": q, "k": k, "v": v, "initial_state": State(S, z), **changed}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a state of other heads": ({"initial_state": State.empty(2, 4, 8, 5)}, r"\[2, 2, 8, 5\].*\[2, 4, 8, 5\]"),
    "a state that is one tensor": ({"initial_state": torch.zeros(2, 2, 8, 5)}, "must be a State"),
    "a state of integers": ({"initial_state": State.empty(2, 2, 8, 5).to(torch.int64)}, "floating-point"),
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


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_a_context_is_not_kept_in_a_dtype_that_nothing_is_computed_in(kind: torch.dtype) -> None:
    wanted = f"is kept in one of float64, float32, bfloat16, float16; got {kind}"
    with pytest.raises(ValueError, match=f"a state {wanted}"):
        State.empty(1, 2, 4, dtype=kind)
    with pytest.raises(ValueError, match=f"a KVCache {wanted}"):
        KVCache(1, 2, 4, dtype=kind)


def test_an_empty_state_takes_integers_and_a_dtype() -> None:
    with pytest.raises(TypeError, match=r"a state has integers for sizes; got batch 1\.5, kv_heads 2"):
        State.empty(1.5, 2, 4)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"the dtype of a state must be one of .*; got 'float32'"):
        State.empty(1, 2, 4, dtype="float32")  # type: ignore[arg-type]


def expanded() -> State:
    return State(torch.rand(1, 2, 4, 4).expand(2, -1, -1, -1), torch.rand(1, 2, 4).expand(2, -1, -1))


def overlapping() -> State:
    """Each row of S begins one element behind the row before it."""
    return State(torch.rand(2 * 2 * 4 + 4).as_strided((2, 2, 4, 4), (8, 4, 1, 1)), torch.rand(2, 2, 4))


def in_one_memory() -> State:
    memory = torch.rand(2 * 2 * 4 * 4)
    return State(memory.view(2, 2, 4, 4), memory[-16:].view(2, 2, 4))


def of_inference() -> State:
    with torch.inference_mode():
        return State.empty(2, 2, 4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (expanded, "several elements of an expanded or overlapping tensor are one in memory"),
        (overlapping, "several elements of an expanded or overlapping tensor are one in memory"),
        (in_one_memory, "its tensors share memory"),
        (of_inference, "torch lets tensors of inference mode be written within inference mode only"),
    ],
)
def test_a_state_that_cannot_be_written_is_not_stepped_in_place(
    made: Callable[[], State], reason: str, backend: str
) -> None:
    q, k, v = (torch.rand(2, 2, 1, 4) for _ in range(3))
    state = made()
    before = state.clone()
    with pytest.raises(ValueError, match=f"^in_place cannot write the state, as {reason}; clone"):
        linear_attention_step(q, k, v, state, in_place=True, backend=backend)
    assert torch.equal(state.S, before.S) and torch.equal(state.z, before.z)
    linear_attention_step(q, k, v, state, backend=backend)
    linear_attention_step(q, k, v, state.clone(), in_place=True, backend=backend)
    with torch.inference_mode():
        linear_attention_step(q, k, v, of_inference(), in_place=True, backend=backend)


def test_a_layer_continues_a_state_that_cannot_be_written() -> None:
    layer = SelfAttention(8, 2, kernel="linear", causal=True).requires_grad_(False)
    prompt, token = torch.rand(1, 5, 8), torch.rand(1, 1, 8)
    state = layer.prefill(prompt)[1]
    assert isinstance(state, State)
    shared = State(state.S.expand(3, -1, -1, -1), state.z.expand(3, -1, -1))
    together, _ = layer.step(token.expand(3, -1, -1), shared)
    torch.testing.assert_close(together, layer.step(token, state)[0].expand(3, -1, -1))
