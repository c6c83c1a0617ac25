"""A pass as it is launched, and launched again without Triton's questions.

``compiled[grid](*arguments)`` asks for the device, describes the launch, calls chains of hooks that are
empty, and asks each tensor and then the driver for the tensor's address: more than half of a launch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor

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


@dataclass
class Launch:
    """A pass as it is launched: in ``programs`` programs, on tensors and then ``values``.

    ``tiles`` are the blocks in which the first tensors are moved, if by descriptors, to which a Gluon pass
    adds the ``layout`` of a tile. Triton looks anew at each of fifty arguments of each launch, which takes
    it longer than a short sequence takes the card: so what it compiled is launched ``again``, if ``lasting``.
    """

    kernel: Any
    programs: int
    tiles: list[list[int]]
    values: tuple[Any, ...]
    num_warps: int
    lasting: bool
    layout: Any = None
    again: Relaunch | None = None

    def __call__(self, tensors: list[Tensor]) -> None:
        device = tensors[0].device
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            with torch.cuda.device(device):
                return self(tensors)
        first = self.described(tensors) if self.tiles else []
        if self.again is not None:
            addresses = [x.data_ptr() for x in tensors[len(first) :]]
            self.again(device.index, first + addresses)
            return None
        arguments = [*first, *tensors[len(first) :], *self.values]
        compiled = self.kernel[(self.programs,)](*arguments, num_warps=self.num_warps)
        if self.lasting and compiled is not None:
            self.again = relaunch(compiled, self.programs, self.values)
        return None

    def described(self, tensors: list[Tensor]) -> list[Any]:
        """The first of them as descriptors, whose strides and edges the card's copy engine knows."""
        moved = [
            (x, list(x.shape), list(x.stride()), tile) for x, tile in zip(tensors, self.tiles, strict=False)
        ]
        if self.layout is None:
            from triton.tools.tensor_descriptor import TensorDescriptor

            return [TensorDescriptor(*each) for each in moved]
        from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as GluonDescriptor

        return [GluonDescriptor(*each, self.layout) for each in moved]
