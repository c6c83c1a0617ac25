"""How a call of all ranks is timed: begun by all at once, on idle devices, and by one clock."""

from __future__ import annotations

import torch

from attention.profiler import CLOCKS
from attention.profiler.clock import Runway
from benchmarks.distributed.ranks import Ranks
from benchmarks.subjects import Call

LEARNED_FROM = 3
"""Calls before the rounds on a card: the last tells how far the host must run ahead, as a first is slow."""


class Rounds:
    """The rounds of one call.

    By the clock ``device`` a card is kept busy until the host has enqueued the call, and the cards meet in a
    collective just before it: its time holds what ranks wait for one another, and no launch latency, as in a
    model, whose host runs ahead. By ``wall`` the hosts meet, and it holds both. Either way the cards' L2
    caches are cold.
    """

    def __init__(self, ranks: Ranks, clock: str, call: Call) -> None:
        """Warm the call up, which all ranks do together; ``clock`` is one of their device."""
        self._ranks, self._clock, self._call = ranks, clock, call
        self._stamp = CLOCKS[ranks.device, clock]
        self._token = torch.zeros(1, device=ranks.device)
        self._runway = Runway(clock) if ranks.device == "cuda" else None
        warm = [self._warm() for _ in range(LEARNED_FROM if self._runway else 1)][-1]
        (self.warm,) = ranks.slowest([warm])

    def _warm(self) -> float:
        if self._runway is None:
            return self.seconds()
        self._ranks.line_up(self._token)
        return self._runway.learn(self._call)

    def seconds(self) -> float:
        """Seconds of one call on this rank."""
        on_device = self._runway is not None and self._clock == "device"
        if self._runway and not on_device:
            self._runway()
        self._ranks.line_up(self._token)
        if self._runway and on_device:
            self._runway()
            self._ranks.meet_devices(self._token)
        start = self._stamp()
        self._call()
        return float(self._stamp() - start)
