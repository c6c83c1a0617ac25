"""A device of constant power with a counter that is updated at times, and what is found of a call on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attention.profiler.counters import CounterError
from attention.profiler.energy import Energy, Meter

IDLE_W, WORKING_W = 70.0, 350.0


@dataclass
class Device:
    """A device of constant power, with a clock that only it moves, and a counter that is updated at times.

    Attributes:
        update_s: Time between two updates of the counter.
        call_s: Time of a call.
        reading_s: Time of a reading.
        fails_after: Reading number from which on the counter fails.
        stops_after: Reading number from which on the counter stands still.
    """

    update_s: float
    call_s: float = 1e-3
    reading_s: float = 1e-5
    fails_after: float = np.inf
    stops_after: float = np.inf
    now_s: float = 1000.0
    joules: float = 0.0
    calls: int = 0
    readings: int = 0

    def __post_init__(self) -> None:
        self._shown = self._frozen = 0.0
        self._due = self.now_s

    def let_pass(self, seconds: float, watts: float) -> None:
        """Take energy, and update the counter by what was taken until each update."""
        end = self.now_s + seconds
        while self._due <= end:
            self._shown = self.joules + watts * (self._due - self.now_s)
            self._due += self.update_s
        self.joules, self.now_s = self.joules + watts * seconds, end

    def read(self) -> float:
        self.let_pass(self.reading_s, IDLE_W)
        self.readings += 1
        if self.readings > self.fails_after:
            raise CounterError("the card is gone")
        if self.readings > self.stops_after:
            return self._frozen
        self._frozen = self._shown
        return self._shown

    def call(self) -> None:
        self.calls += 1
        self.let_pass(self.call_s, WORKING_W)

    def meter(self) -> Meter:
        return Meter.of(self.read, lambda: self.now_s, lambda seconds: self.let_pass(seconds, IDLE_W))


def known(found: Energy) -> tuple[float, float, float]:
    """Joules of a call, their error, and the seconds of the call."""
    assert found.joules is not None and found.error is not None and found.call_s is not None, found.reason
    return found.joules, found.error, found.call_s
