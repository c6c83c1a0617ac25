"""Calls of linear-triton like an earlier one: they go straight to their launches, and compute what it did.

The last test of test_triton.py runs these in a process of Triton's interpreter on a CPU.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor

from attention import State, fast_path, linear_attention, linear_attention_step
from attention.case import MODES
from attention.kernels.linear_triton.kernel import linear_triton
from attention.kernels.references import TOLERANCES, gradient_error, linear_reference, relative_error
from tests.interpreted import inputs

pytestmark = pytest.mark.usefixtures("triton_passes")


def remembered() -> int:
    """How many calls are remembered."""
    return sum(map(len, fast_path._CALLS.values()))


@pytest.mark.parametrize("mode", MODES)
def test_a_call_after_one_of_the_same_tensor_thrice_takes_its_own_three(mode: str, device: str) -> None:
    """What a first call launched is launched again: of its one tensor a later call has three."""
    q, k, v = inputs(device)
    attend = partial(linear_triton, causal=mode == "causal")
    same = q.detach().clone()
    attend(same, same, same)
    same.requires_grad_()
    attend(same, same, same).sum().backward()
    expected = linear_reference(q, k, v, causal=mode == "causal")
    of_expected = torch.autograd.grad(expected, (q, k, v), torch.ones_like(expected))
    with torch.no_grad():
        assert relative_error(attend(q, k, v), expected) < TOLERANCES[torch.float32][0]
    out = attend(q, k, v)
    found = torch.autograd.grad(out, (q, k, v), torch.ones_like(out))
    assert gradient_error(found, of_expected) < TOLERANCES[torch.float32][1]


@pytest.mark.parametrize("mode", MODES)
def test_a_remembered_call_equals_the_first_and_refuses_what_the_first_would(
    mode: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_path, "DEVICES", [device])
    attend = partial(linear_attention, causal=mode == "causal", backend="triton")
    for seed in range(3):
        q, k, v = (torch.roll(x.detach(), seed, 2) for x in inputs(device))
        assert relative_error(attend(q, k, v), linear_reference(q, k, v, causal=mode == "causal")) < 1e-5
        assert remembered() == 1
    before = attend(q, k, v)
    assert torch.equal(attend(q.mT.contiguous().mT, k, v), before)
    for misfit in (q.double(), q.expand(2, -1, -1, -1), q.to_sparse(), None):
        with pytest.raises((TypeError, ValueError)):
            attend(misfit, k, v)
    with pytest.raises(TypeError):
        attend(q, k, v, eps="1e-6")


@pytest.mark.parametrize("mode", MODES)
def test_a_remembered_call_has_the_first_and_second_gradients_of_the_recurrence(
    mode: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_path, "DEVICES", [device])
    x = inputs(device)

    def gradients(out: Tensor) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(out, x, torch.ones_like(out), create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), x[2])[0]
        return *(each.detach() for each in first), second

    expected = gradients(linear_reference(*x, causal=mode == "causal"))
    for _ in range(3):
        out = linear_attention(*x, causal=mode == "causal", backend="triton")
        assert gradient_error(gradients(out), expected) < TOLERANCES[torch.float32][1]
    assert remembered() == 1


@pytest.mark.parametrize("in_place", [False, True])
def test_remembered_steps_equal_a_prefill(
    in_place: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_path, "DEVICES", [device])
    q, k, v = (each.detach() for each in inputs(device))

    def token(t: int) -> tuple[Tensor, Tensor, Tensor]:
        return q[:, :, t : t + 1].clone(), k[:, :, t : t + 1].clone(), v[:, :, t : t + 1].clone()

    take = partial(linear_attention_step, in_place=in_place, backend="triton")
    expected = linear_reference(q, k, v, causal=True)
    state = State.empty(1, 1, 16, 16, device=device)
    for t in range(5):
        before = state
        out, state = take(*token(t), state)
        assert (state.S is before.S) == in_place
        assert relative_error(out, expected[:, :, t : t + 1]) < 1e-5
    assert remembered() == 1
    version = state.S._version
    take(*token(0), state)
    assert state.S._version == version + in_place


@pytest.mark.parametrize("mode", MODES)
def test_hooks_on_saved_tensors_may_give_back_others_that_lie_in_another_way(
    mode: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``save_on_cpu`` does: their strides are neither those of the forward nor of the next backward."""
    monkeypatch.setattr(fast_path, "DEVICES", [device])
    given = inputs(device, (1, 2, 100, 16))
    x = [each.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for each in given]

    def gradients(out: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(out.square().sum(), x)

    expected = gradients(linear_reference(*x, causal=mode == "causal"))
    packing = torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().contiguous(), lambda t: t)
    around: AbstractContextManager[None]
    for around in (packing, nullcontext(), packing, nullcontext()):
        with around:
            found = gradients(linear_attention(*x, causal=mode == "causal", backend="triton"))
        assert gradient_error(found, expected) < TOLERANCES[torch.float32][1]


def test_a_step_into_a_state_whose_tensors_share_memory_is_refused_after_one_that_is_not(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_path, "DEVICES", [device])
    q, k, v = (x.detach()[:, :, :1].clone() for x in inputs(device))
    take = partial(linear_attention_step, q, k, v, in_place=True, backend="triton")
    for _ in range(2):
        take(state=State.empty(1, 1, 16, 16, device=device))
    room = torch.zeros(16 * 16 + 8, device=device)
    for begin in (0, 16 * 16 - 8):
        shared = State(room[: 16 * 16].view(1, 1, 16, 16), room[begin:][:16].view(1, 1, 16))
        with pytest.raises(ValueError, match="share memory"):
            take(state=shared)
    assert not room.any()
