"""What a model that writes calls: a forward that keeps the state or cache, and a step of new tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attention import Case, Kernel, State, get_kernel
from attention.case import INFERENCE
from attention.costs import cache_bytes
from attention.kernels import BUILT_IN
from attention.kernels.external import is_external
from attention.kernels.forms.linear import step_of

BLOCK = 4096
"""Tokens of a context that go into a state at a time: a kernel may widen them."""
DEFAULTS: dict[str, Any] = {"feature_map": "elu", "eps": 1e-6}
Attend = Callable[..., Tensor]


def keeps_state(case: Case) -> bool:
    """Whether the kernel of a case keeps the state of linear attention, and not keys and values."""
    kernel = get_kernel(case.kernel)
    return kernel.step is not None or _carries(kernel)


def _carries(kernel: Kernel) -> bool:
    """Whether its function takes and returns states."""
    return kernel.family == "linear" and kernel.takes("initial_state") and kernel.takes("return_state")


def kept_bytes(case: Case) -> int | None:
    """Bytes that are kept of the context between two calls; None in phases that keep nothing."""
    return cache_bytes(case, state=keeps_state(case)) if case.phase in INFERENCE else None


def refusal(case: Case) -> str | None:
    """Why a kernel of linear attention of this suite has no such phase, or None.

    A user's own function is called in any: it says itself, or its result does, what it cannot.
    """
    kernel = get_kernel(case.kernel)
    if case.phase not in INFERENCE or kernel.name not in BUILT_IN or kernel.reference != "linear":
        return None
    served = keeps_state(case) if case.phase == "decode" else _carries(kernel)
    return None if served else f"{kernel.name} takes and returns no state"


def attention_of(case: Case) -> Attend:
    """The function that a case times, as ``(q, k, v, *, causal, ...) -> output``: what is checked is this.

    A decode of linear attention is a step behind the state of the context. One query sees all keys, so that
    nothing is hidden from it.
    """
    kernel = get_kernel(case.kernel)
    if case.phase not in INFERENCE:
        return kernel.function

    def prefill(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
        out: Tensor = kernel.function(q, k, v, causal=causal, return_state=True)[0]
        return out

    def decode(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, **inputs: Any) -> Tensor:
        return kernel.function(q, k, v, causal=causal and q.shape[2] > 1, **inputs)

    def step(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
        out: Tensor = step_behind(kernel, q, k, v)()[0]
        return out

    if case.phase == "prefill":
        return prefill if _carries(kernel) else kernel.function
    return step if keeps_state(case) else decode


def step_behind(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], tuple[Tensor, State]]:
    """A call that takes the last tokens of a context behind the state of the others, each time anew.

    The state is written in place, and stays finite: each call adds the same phi(k)v' and phi(k), and float32
    holds 10^36 of them. It is made here, outside of what is timed. A kernel of another project makes a new
    state at each call, as its own users have it do.
    """
    ahead = k.shape[2] - q.shape[2]
    held = [state_of(kernel, k[:, :, :ahead], v[:, :, :ahead])]
    # Copies, so that the context need not stay in memory.
    new_k, new_v = (x[:, :, ahead:].clone() for x in (k, v))
    in_place = not is_external(kernel)
    take = kernel.step or partial(step_of, kernel.function)

    def call() -> tuple[Tensor, State]:
        with torch.no_grad():
            out, held[0] = take(q, new_k, new_v, held[0], in_place=in_place, **DEFAULTS)
        return out, held[0]

    return call


@torch.no_grad()
def state_of(kernel: Kernel, k: Tensor, v: Tensor) -> State:
    """The state of a context, made by the kernel's own function where it returns states, else by its step."""
    batch, heads, tokens, width = k.shape
    dtype = torch.promote_types(k.dtype, torch.float32)
    state = State.empty(batch, heads, width, v.shape[3], dtype=dtype, device=k.device)
    for first in range(0, tokens, BLOCK):
        keys, values = (x[:, :, first : first + BLOCK] for x in (k, v))
        if _carries(kernel):
            # Without queries it is the sums alone; kernels of other projects are causal only.
            queries, causal = (keys, True) if is_external(kernel) else (keys[:, :, :0], False)
            options: dict[str, Any] = {"initial_state": state, "return_state": True}
            _, state = kernel.function(queries, keys, values, causal=causal, **options)
        elif kernel.step:
            _, state = kernel.step(keys, keys, values, state, in_place=False, **DEFAULTS)
    return state
