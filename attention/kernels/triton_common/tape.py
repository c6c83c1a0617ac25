"""The launches of one call, kept so that a later call like it makes them without planning them again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attention.kernels.triton_common.launch import Repeat


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
        self._tensors.clear()
        self.given.clear()

    def replay(self, given: Sequence[Tensor]) -> list[Tensor]:
        """The results of the same launches on other tensors."""
        tensors = [*given, *[torch.empty(s, dtype=t, device=d) for s, t, d in self._buffers]]
        for again, places in self._launches:
            again([tensors[i] for i in places])
        return [tensors[i] for i in self._results]

    def _places(self, tensors: Sequence[Tensor]) -> list[int]:
        known = {id(x): place for place, x in enumerate(self._tensors)}
        return [known[id(x)] for x in tensors]
