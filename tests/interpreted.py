"""What tests of kernels in Triton share: on a CPU they run in a process of Triton's interpreter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from attention.fast_path import forget_calls
from attention.kernels.linear_decay_triton import operator as decay
from attention.kernels.linear_triton import plan_cache as linear
from attention.kernels.linear_triton import step
from attention.kernels.linear_triton.kernel import linear_triton
from attention.kernels.triton_common import plan
from attention.state import State

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def inputs(device: str, shape: tuple[int, ...] = (1, 1, 100, 16), value_dim: int = 16) -> list[Tensor]:
    """q, k and v that want gradients, the same ones at each call."""
    generator = torch.Generator().manual_seed(3)
    sizes = (shape, shape, (*shape[:3], value_dim))
    return [torch.randn(size, generator=generator).to(device).requires_grad_() for size in sizes]


def continued(
    q: Tensor, k: Tensor, v: Tensor, state: State | None = None, *, causal: bool = True
) -> tuple[Tensor, State]:
    """The output of linear-triton behind a state, and the next state."""
    found: tuple[Tensor, State]
    found = linear_triton(q, k, v, causal=causal, initial_state=state, return_state=True)
    return found


@contextmanager
def filled_with_nan() -> Iterator[None]:
    """A block in which torch fills what is allocated with NaN."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def skip_outside_of_the_interpreter(request: pytest.FixtureRequest, *needs_none: str) -> None:
    """Skip a test on a CPU without the interpreter, unless its name says that it needs none."""
    device = request.node.callspec.params["device"] if hasattr(request.node, "callspec") else "cpu"
    alone = any(word in request.node.name for word in ("interpreter", *needs_none))
    if device == "cpu" and not INTERPRETED and not alone:
        pytest.skip("run by test_all_tests_of_kernels_in_triton_pass_in_the_interpreter")


def set_rules(monkeypatch: pytest.MonkeyPatch, **rules: int) -> None:
    """Set rules of the plan, as small segments, and forget launches planned by earlier rules."""
    for name, value in rules.items():
        monkeypatch.setattr(plan, name, value)
    forget_every_launch()


def forget_every_launch() -> None:
    """Forget the launches that kernels remember."""
    for remembering in (linear, decay):
        remembering.forget_launches()
    step.forget_steps()
    forget_calls()
