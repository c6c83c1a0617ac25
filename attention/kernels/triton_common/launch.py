"""One pass as it is launched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attention.kernels.triton_common.card import interpreted
from attention.torch_internals.launcher import Described, DirectLaunch, direct_launch

Repeat = Callable[[list[Tensor]], None]
"""Launches a compiled pass on other tensors of the same plan."""


@dataclass(frozen=True)
class Launch:
    """A pass in ``programs`` programs, on tensors and then ``values``.

    Attributes:
        kernel: Triton's, still to be compiled for its arguments.
        programs: size of the grid.
        tiles: the blocks in which the first tensors are moved, if descriptors move them.
        values: the arguments after the tensors.
        num_warps: of a program.
        lasting: whether what is compiled for these tensors serves all others of the plan.
        layout: in shared memory, of the tile of a Gluon pass.
    """

    kernel: Any
    programs: int
    tiles: list[list[int]]
    values: tuple[Any, ...]
    num_warps: int
    lasting: bool
    layout: Any = None

    def first(self, tensors: list[Tensor]) -> Repeat:
        """Compile the pass if need be, and launch it; returns how to launch it again.

        Raises:
            ValueError: tensors on another device than a card, outside of Triton's interpreter.
        """
        if not self.programs:  # no heads
            return lambda tensors: None
        if (device := tensors[0].device.type) != "cuda" and not interpreted():
            raise ValueError(f"Triton compiles for CUDA devices only, and the tensors are on {device}")
        compiled = self.public(tensors)
        direct = direct_launch(compiled, self.programs, self.values) if self.lasting and compiled else None
        if direct is None:
            return self.public
        moved = [(list(x.shape), list(x.stride())) for x, _ in zip(tensors, self.tiles, strict=False)]
        return DirectRepeat(direct, self, moved)

    def public(self, tensors: list[Tensor]) -> Any:
        """Launch the pass as Triton documents it; returns what it compiled, None in the interpreter."""
        device = tensors[0].device
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            with torch.cuda.device(device):
                return self.public(tensors)
        pointers = self._descriptors(tensors) if self.tiles else []
        arguments = [*pointers, *tensors[len(pointers) :], *self.values]
        return self.kernel[(self.programs,)](*arguments, num_warps=self.num_warps)

    def _descriptors(self, tensors: list[Tensor]) -> list[Any]:
        """The first tensors as descriptors, whose strides and edges the card's copy engine knows."""
        moved = [
            (x, list(x.shape), list(x.stride()), tile) for x, tile in zip(tensors, self.tiles, strict=False)
        ]
        if self.layout is None:
            from triton.tools.tensor_descriptor import TensorDescriptor

            return [TensorDescriptor(*each) for each in moved]
        from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as GluonDescriptor

        return [GluonDescriptor(*each, self.layout) for each in moved]


@dataclass(frozen=True)
class DirectRepeat:
    """A pass launched again past Triton, on a device and addresses of tensors like those of the first launch.

    ``moved``: shapes and strides of the first tensors, those that descriptors move.
    """

    direct: DirectLaunch
    launch: Launch
    moved: list[tuple[list[int], list[int]]]

    def __call__(self, tensors: list[Tensor]) -> None:
        device = tensors[0].device.index
        if device != torch.cuda.current_device():
            with torch.cuda.device(device):
                return self(tensors)
        if not self.at(device, [x.data_ptr() for x in tensors]):
            self.launch.public(tensors)
        return None

    def at(self, device: int, addresses: list[int]) -> bool:
        """Launch on the addresses of all tensors; whether it did, as a direct launch tells."""
        if not self.moved:
            return self.direct(device, addresses)
        described = [Described(at, *layout) for at, layout in zip(addresses, self.moved, strict=False)]
        return self.direct(device, [*described, *addresses[len(described) :]])
