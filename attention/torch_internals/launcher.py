"""Triton's launcher, called directly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

DirectLaunch = Callable[[int, Sequence[Any]], bool]

CHECKED_LAUNCHERS = ("3.6.",)
"""Versions of Triton whose launcher was called directly on a card."""
LAUNCHER_PARAMETERS = ["gridX", "gridY", "gridZ", "stream", "function"]
"""The first parameters of such a launcher."""


class Described:
    """A tensor that a descriptor moves, as the launcher reads it: its address, shape and strides.

    Triton's own descriptor is checked each time that it is made, which takes the host longer than a launch.
    """

    __slots__ = ("address", "shape", "strides")
    padding = "zero"

    def __init__(self, address: int, shape: list[int], strides: list[int]) -> None:
        self.address, self.shape, self.strides = address, shape, strides

    @property
    def base(self) -> Described:
        return self

    def data_ptr(self) -> int:
        return self.address


def direct_launch(compiled: Any, programs: int, values: tuple[Any, ...]) -> DirectLaunch | None:
    """A launch of what Triton compiled, on the current stream of a device; None where it is not known.

    ``kernel[grid](*arguments)`` looks at each of fifty arguments, asks for the device, describes the launch,
    calls chains of hooks that are empty, and asks each tensor and then the driver for the tensor's address:
    that takes the host longer than a short sequence takes the card. The launcher below it is called directly,
    as torch's compiler does, in versions of Triton whose launcher was checked.

    Args:
        compiled: what ``kernel[grid](...)`` returned.
        programs: size of the one-dimensional grid.
        values: the arguments after the tensors.

    Returns:
        A function of the device's index and the tensors' addresses (or their descriptors). It returns whether
        it launched: not while somebody listens to launches, who must hear of this one from Triton.
    """
    import triton

    if not triton.__version__.startswith(CHECKED_LAUNCHERS):
        return None
    try:
        from triton import knobs
        from triton.runtime import driver

        hooks, stream_of = knobs.runtime, driver.active.get_current_stream
        launch, switches = _innermost(compiled.run)
        kernel = compiled.function, *switches, compiled.packed_metadata, None, None, None  # no hooks
        known = list(signature(compiled.run).parameters)[: len(LAUNCHER_PARAMETERS)] == LAUNCHER_PARAMETERS
        known = known and hasattr(hooks, "launch_enter_hook") and hasattr(hooks, "launch_exit_hook")
    except (ImportError, AttributeError):
        return None
    if not known:
        return None

    def direct(device: int, pointers: Sequence[Any]) -> bool:
        enter, leave = hooks.launch_enter_hook, hooks.launch_exit_hook
        # A hook is a function or None, or a chain of functions that may be empty.
        if getattr(enter, "calls", enter) or getattr(leave, "calls", leave):
            return False
        launch(programs, 1, 1, stream_of(device), *kernel, *pointers, *values)
        return True

    return direct


def _innermost(run: Any) -> tuple[Any, tuple[Any, ...]]:
    """What a launcher calls for a kernel without scratch memory, and what it adds; else itself."""
    names = ("launch_cooperative_grid", "launch_pdl", "global_scratch_size", "profile_scratch_size")
    cooperative, early, *scratch = (getattr(run, name, None) for name in names)
    if not hasattr(run, "launch") or scratch != [0, 0]:
        return run, ()
    return run.launch, (cooperative, early, None, None)
