"""The launches of one call, kept so that a later call like it makes them without planning them again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attention.kernels.triton_common.launch import DirectRepeat, Repeat

ALIGNMENT = 512
"""Bytes at whose multiples torch's allocator begins a tensor, as a pass was compiled for."""


class Tape:
    """What one call launched, on which of its tensors, and the buffers that it made in between.

    A short sequence waits for the host, which takes longer to plan a call than to launch it.
    ``given``: the tensors of the call that is recorded.
    """

    def __init__(self, given: Sequence[Tensor]) -> None:
        # A tensor that was given twice is two: in a later call they are others.
        self.given = [x.detach() for x in given]
        self._tensors = list(self.given)
        self._buffers: list[tuple[torch.Size, torch.dtype, torch.device]] = []
        self._launches: list[tuple[Repeat, list[int]]] = []
        self._results: list[int] = []
        self._offsets: list[int | None] | None = None
        self._room = 0

    def buffer(self, x: Tensor) -> Tensor:
        """Record a buffer that the call made."""
        self._buffers.append((x.shape, x.dtype, x.device))
        self._tensors.append(x)
        return x

    def launch(self, again: Repeat, tensors: Sequence[Tensor]) -> None:
        """Record a launch on tensors that are known: given ones, or buffers."""
        self._launches.append((again, self._places(tensors)))

    def end(self, results: Sequence[Tensor]) -> None:
        """Record what the call returns, and forget its tensors."""
        self._results = self._places(results)
        if all(isinstance(again, DirectRepeat) for again, _ in self._launches):
            self._share_room()
        self._tensors.clear()
        self.given.clear()

    def replay(self, given: Sequence[Tensor]) -> list[Tensor]:
        """The results of the same launches on other tensors."""
        results = None if self._offsets is None else self._replay_at_addresses(given, self._offsets)
        if results is not None:
            return results
        tensors = [*given, *[torch.empty(s, dtype=t, device=d) for s, t, d in self._buffers]]
        for again, places in self._launches:
            again([tensors[i] for i in places])
        return [tensors[i] for i in self._results]

    def _share_room(self) -> None:
        """Where buffers begin in one allocation, and None for those that are results."""
        self._offsets = []
        for place, x in enumerate(self._tensors[len(self.given) :], start=len(self.given)):
            if place in self._results:
                self._offsets.append(None)
            else:
                self._offsets.append(self._room)
                self._room += -(-x.nbytes // ALIGNMENT) * ALIGNMENT

    def _replay_at_addresses(self, given: Sequence[Tensor], offsets: list[int | None]) -> list[Tensor] | None:
        """Launch on addresses; None where not all was launched, which an observer of launches prevents."""
        device = given[0].device
        if device.index != torch.cuda.current_device():
            return None
        addresses, found = [x.data_ptr() for x in given], {}
        room = torch.empty(self._room, dtype=torch.uint8, device=device) if self._room else None
        begin = 0 if room is None else room.data_ptr()
        for (shape, dtype, _), offset in zip(self._buffers, offsets, strict=True):
            if offset is None:
                x = found[len(addresses)] = torch.empty(shape, dtype=dtype, device=device)
                addresses.append(x.data_ptr())
            else:
                addresses.append(begin + offset)
        for again, places in self._launches:
            if not again.at(device.index, [addresses[i] for i in places]):  # type: ignore[attr-defined]
                return None
        return [found[i] if i in found else given[i] for i in self._results]

    def _places(self, tensors: Sequence[Tensor]) -> list[int]:
        known = {id(x): place for place, x in enumerate(self._tensors)}
        return [known[id(x)] for x in tensors]
