"""The launches of one call, kept so that a later call like it makes them without planning them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attention.kernels.triton_common.launch import DirectRepeat, Repeat

ALIGNMENT = 512
"""Bytes at whose multiples torch's allocator begins a tensor, as a pass was compiled for."""


Between = Callable[[Tensor], Sequence[Tensor]]
"""What a call does with a tensor between two launches, as ranks exchange it: always as many tensors."""


class Tape:
    """What one call launched, on which of its tensors, and the buffers that it made in between.

    A short sequence waits for the host, which takes longer to plan a call than to launch it.
    ``given``: the tensors of the call that is recorded.
    """

    def __init__(self, given: Sequence[Tensor]) -> None:
        # A tensor that was given twice is two: in a later call they are others.
        self.given = [x.detach() for x in given]
        self._tensors = list(self.given)
        # Of each tensor behind the given ones: what it is made of, or None if something in between makes it.
        self._made: list[tuple[torch.Size, torch.dtype, torch.device] | None] = []
        # A launch and its tensors; or None, the tensor that something in between takes, and those it makes.
        self._steps: list[tuple[Repeat | None, list[int]]] = []
        self._results: list[int] = []
        self._offsets: list[int | None] | None = None
        self._room = 0

    def buffer(self, x: Tensor) -> Tensor:
        """Record a buffer that the call made."""
        self._made.append((x.shape, x.dtype, x.device))
        self._tensors.append(x)
        return x

    def launch(self, again: Repeat, tensors: Sequence[Tensor]) -> None:
        """Record a launch on tensors that are known: given ones, buffers, or made in between."""
        self._steps.append((again, self._places(tensors)))

    def between(self, x: Tensor, results: Sequence[Tensor]) -> None:
        """Record that these results were made of x, which begin where a pass can read them."""
        (place,), first = self._places([x]), len(self._tensors)
        self._made += [None] * len(results)
        self._tensors += results
        self._steps.append((None, [place, *range(first, first + len(results))]))

    def end(self, results: Sequence[Tensor]) -> None:
        """Record what the call returns, and forget its tensors."""
        self._results = self._places(results)
        if all(again is None or isinstance(again, DirectRepeat) for again, _ in self._steps):
            self._share_room()
        self._tensors.clear()
        self.given.clear()

    def replay(self, given: Sequence[Tensor], between: Between) -> list[Tensor]:
        """The results of the same launches on other tensors, and of this call's own ``between``."""
        offsets = self._offsets
        results = None if offsets is None else self._replay_at_addresses(given, between, offsets)
        if results is not None:
            return results
        tensors = [*given, *[given[0] if one is None else _empty(*one) for one in self._made]]
        for again, places in self._steps:
            if again is not None:
                again([tensors[i] for i in places])
                continue
            for i, x in zip(places[1:], between(tensors[places[0]]), strict=True):
                tensors[i] = x
        return [tensors[i] for i in self._results]

    def _share_room(self) -> None:
        """Where buffers begin in one allocation, and None for those that are wanted as tensors."""
        wanted = {*self._results, *[places[0] for again, places in self._steps if again is None]}
        self._offsets = []
        for place, x in enumerate(self._tensors[len(self.given) :], start=len(self.given)):
            if place in wanted or self._made[place - len(self.given)] is None:
                self._offsets.append(None)
            else:
                self._offsets.append(self._room)
                self._room += -(-x.nbytes // ALIGNMENT) * ALIGNMENT

    def _replay_at_addresses(
        self, given: Sequence[Tensor], between: Between, offsets: list[int | None]
    ) -> list[Tensor] | None:
        """Launch on addresses; None where an observer of launches prevents the first, and so all."""
        device = given[0].device
        if device.index != torch.cuda.current_device():
            return None
        addresses, found = [x.data_ptr() for x in given], dict(enumerate(given))
        room = torch.empty(self._room, dtype=torch.uint8, device=device) if self._room else None
        begin = 0 if room is None else room.data_ptr()
        for made, offset in zip(self._made, offsets, strict=True):
            if offset is not None:
                addresses.append(begin + offset)
            elif made is None:
                addresses.append(0)
            else:
                x = found[len(addresses)] = _empty(*made)
                addresses.append(x.data_ptr())
        for again, places in self._steps:
            if again is None:
                for i, x in zip(places[1:], between(found[places[0]]), strict=True):
                    found[i], addresses[i] = x, x.data_ptr()
            elif not again.at(device.index, [addresses[i] for i in places]):  # type: ignore[attr-defined]
                return None
        return [found[i] for i in self._results]

    def _places(self, tensors: Sequence[Tensor]) -> list[int]:
        known = {id(x): place for place, x in enumerate(self._tensors)}
        return [known[id(x)] for x in tensors]


def nothing(x: Tensor) -> Sequence[Tensor]:
    """What is done between the launches of a call of one process: no tensors."""
    return ()


def _empty(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=device)
