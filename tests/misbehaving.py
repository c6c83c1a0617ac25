"""Kernels that misbehave at 64 tokens and are right elsewhere, as a plugin: `-p tests.misbehaving`."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from attention import get_kernel, register_kernel

LENGTH = 64
LINEAR = get_kernel("linear-explicit")


class MuteError(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise ValueError("none")


def throw(error: BaseException) -> None:
    raise error


def hang() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(1e6)


# A call that blocks every signal cannot be ended from inside, as an extension that hangs.
ACTS: dict[str, Callable[[], Any]] = {
    "sleeps": lambda: time.sleep(1e6),
    "hangs": lambda: hang(),
    "segfaults": lambda: ctypes.string_at(0),
    "vanishes": lambda: os._exit(0),
    "leaves": lambda: throw(SystemExit(3)),
    "mute": lambda: throw(MuteError()),
    "interrupts": lambda: throw(KeyboardInterrupt()),
    "skips": lambda: pytest.skip("kernels skip nothing"),
    "stops": lambda: pytest.exit("kernels end nothing"),
    "starves": lambda: throw(MemoryError()),
}


def _register(name: str, act: Callable[[], Any]) -> None:
    def function(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        if q.shape[2] == LENGTH:
            act()
        return LINEAR.function(q, k, v, **options)

    register_kernel(f"linear-{name}", function, costs=LINEAR.costs)


for each in ACTS.items():
    _register(*each)
