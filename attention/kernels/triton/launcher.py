"""Launching again what Triton has compiled, without its questions.

``compiled[grid](*arguments)`` asks for the device, describes the launch, calls chains of hooks that are
empty, and asks each tensor and then the driver for the tensor's address: more than half of a launch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

Relaunch = Callable[[int, Sequence[Any]], None]
TAKES = ["gridX", "gridY", "gridZ", "stream", "function"]
"""What a launcher that is called directly names its first arguments, as in Triton 3.4 to 3.9."""


def relaunch(compiled: Any, programs: int, values: tuple[Any, ...]) -> Relaunch:
    """A launch on the current stream of a device, of addresses (or descriptors) and then ``values``.

    The launcher is called directly, as torch's compiler does. ``compiled[grid]`` is called where somebody
    listens to launches, or where the launcher is not the known one.
    """
    from triton import knobs
    from triton.runtime import driver

    launch, ordinary, hooks = compiled.run, compiled[programs, 1, 1], knobs.runtime
    known = list(signature(launch).parameters)[: len(TAKES)] == TAKES
    stream_of = driver.active.get_current_stream
    kernel = compiled.function, compiled.packed_metadata, None, None, None  # neither description nor hooks

    def again(device: int, pointers: Sequence[Any]) -> None:
        enter, leave = hooks.launch_enter_hook, hooks.launch_exit_hook
        # Each a function or none, or a chain of functions that may be empty.
        if not known or getattr(enter, "calls", enter) or getattr(leave, "calls", leave):
            ordinary(*pointers, *values)
        else:
            launch(programs, 1, 1, stream_of(device), *kernel, *pointers, *values)

    return again
