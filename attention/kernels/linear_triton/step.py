"""Steps of linear-triton: a few new tokens behind a state, in one launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from attention.costs import Sizes
from attention.kernels.dispatch import counts_macs, implements
from attention.kernels.forms.costs import step_terms
from attention.kernels.layouts import contiguous_output, output_maker
from attention.kernels.linear_triton.checks import NAME
from attention.kernels.tensors import check_shape
from attention.kernels.triton_common.card import multiprocessors
from attention.kernels.triton_common.checks import PRECISION, check_call
from attention.kernels.triton_common.extents import padded
from attention.kernels.triton_common.launch import Launch, Repeat
from attention.kernels.triton_common.plan import begin_aligned
from attention.state import State

MOST_ROWS = 64
"""Tokens times heads of a group: the code of one launch computes each by itself."""
ALONE, CROWDED = 2**14, 2**12
"""Elements of a state that a program holds at once: many if it is alone, few where others share its card."""
WARPS = 4
_STEPS: dict[tuple[Any, ...], Repeat] = {}
MOST_STEPS = 1024
forget_steps = _STEPS.clear

torch.library.define(
    "attention::linear_triton_step",
    "(Tensor q, Tensor k, Tensor v, Tensor S, Tensor z, str phi, float eps) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "attention::linear_triton_step_",
    "(Tensor q, Tensor k, Tensor v, Tensor(a!) S, Tensor(b!) z, str phi, float eps) -> Tensor",
)


def serves_step(q: Tensor, k: Tensor, S: Tensor, z: Tensor) -> bool:
    """Whether one launch computes these tokens behind this state."""
    rows = q.shape[2] * (q.shape[1] // max(1, k.shape[1]))
    return (
        0 < rows <= MOST_ROWS
        and k.numel() > 0
        and S.dtype == z.dtype == torch.float32
        and S.is_contiguous()
        and z.is_contiguous()
    )


@implements("linear_triton_step", ("cpu", "cuda"))
def triton_step(
    q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor, phi: str, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Output ``[B, Hq, T, Dv]``, S ``[B, Hkv, D, Dv]`` and z ``[B, Hkv, D]`` after T tokens."""
    new = torch.empty_like(S), torch.empty_like(z)
    return _launch(q, k, v, (S, z, *new), phi, eps), *new


@implements("linear_triton_step_", ("cpu", "cuda"))
def triton_step_in_place(
    q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor, phi: str, eps: float
) -> Tensor:
    """The output; S and z are overwritten."""
    increment_version((S, z))  # so that a backward that saved them says so
    return _launch(q, k, v, (S, z, S, z), phi, eps)


def repeated_step(
    q: Tensor, k: Tensor, v: Tensor, state: State, phi: str, eps: float, in_place: bool
) -> Callable[[Tensor, Tensor, Tensor, State], tuple[Tensor, State] | None] | None:
    """A step on tensors that are aligned and like these, with no look at them; None before the first one."""
    launch, new_output = _STEPS.get(_key(q, k, v, *state, phi, eps)), output_maker(q, v)
    if launch is None:
        return None

    S, z = state
    room = S.nbytes, z.nbytes

    def again(q: Tensor, k: Tensor, v: Tensor, state: State) -> tuple[Tensor, State] | None:
        if in_place and _share(*state, *room):
            return None
        out, new = new_output(v), state
        if in_place:
            increment_version(state)
        else:
            new = State(*map(torch.empty_like, state))
        launch([q, k, v, out, *state, *new])
        return out, new

    return again


def _share(S: Tensor, z: Tensor, S_bytes: int, z_bytes: int) -> bool:
    """Whether two contiguous tensors share memory."""
    begin, other = S.data_ptr(), z.data_ptr()
    return begin < other + z_bytes and other < begin + S_bytes


def _launch(q: Tensor, k: Tensor, v: Tensor, states: tuple[Tensor, ...], phi: str, eps: float) -> Tensor:
    S, z = states[:2]
    out = contiguous_output(q, v)
    key = _key(q, k, v, S, z, phi, eps)
    again = _STEPS.get(key)
    if again is None:
        if len(_STEPS) >= MOST_STEPS:
            _STEPS.clear()
        _check(q, k, v, S, z, phi)
        _STEPS[key] = _new(q, k, v, phi, eps, aligned=key[-1]).first([q, k, v, out, *states])
    else:
        again([q, k, v, out, *states])
    return out


def _key(q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor, phi: str, eps: float) -> tuple[Any, ...]:
    """What a launch depends on; whether all tensors are aligned stands last."""
    return (
        q.shape, k.shape, v.shape, S.shape, q.stride(), k.stride(), v.stride(), q.dtype, q.device, z.device,
        phi, eps, begin_aligned([q, k, v, S, z]),
    )  # fmt: skip


def _check(q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor, phi: str) -> None:
    check_call(NAME, q, k, v, phi, PRECISION[q.dtype], plain=False)
    shape = (*k.shape[:2], k.shape[3], v.shape[3])
    check_shape(NAME, "S", S, shape, v, torch.float32)
    check_shape(NAME, "z", z, shape[:3], v, torch.float32)
    if q.shape[2] != k.shape[2] or not serves_step(q, k, S, z):
        raise ValueError(
            f"{NAME} takes a step of one key a query, of {MOST_ROWS} tokens times heads of a group at most, "
            f"behind a contiguous state; got q {list(q.shape)}, k {list(k.shape)}, strides {S.stride()}"
        )


def _new(q: Tensor, k: Tensor, v: Tensor, phi: str, eps: float, aligned: bool) -> Launch:
    from attention.kernels.linear_triton.triton.step import step

    (batch, heads, tokens, D), kv_heads, E = q.shape, k.shape[1], v.shape[3]
    group = heads // kv_heads
    width = padded(D)
    crowded = batch * kv_heads > multiprocessors(q.device)
    block = min(padded(E), max(16, (CROWDED if crowded else ALONE) // width))
    strides = [stride for x in (q, k, v) for stride in x.stride()[:3]]
    rows = 1 << (group * tokens - 1).bit_length()
    constants = (group, tokens, phi, width, block, -(-E // block), rows)
    return Launch(step, batch * kv_heads, [], (*strides, kv_heads, D, E, eps, *constants), WARPS, aligned)


@torch.library.register_fake("attention::linear_triton_step")  # type: ignore[untyped-decorator]
def _(
    q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor, phi: str, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    _check(q, k, v, S, z, phi)
    return contiguous_output(q, v), torch.empty_like(S), torch.empty_like(z)


@torch.library.register_fake("attention::linear_triton_step_")  # type: ignore[untyped-decorator]
def _(q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor, phi: str, eps: float) -> Tensor:
    _check(q, k, v, S, z, phi)
    return contiguous_output(q, v)


def _macs(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> dict[str, int]:
    return step_terms(Sizes.of(q, v))


counts_macs("linear_triton_step", _macs)
counts_macs("linear_triton_step_", _macs)
