"""Energy of a call: a counter of joules, read while the call is repeated."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch

from attention.profiler.counters import CounterError, Read, find_counter

LEAST_SECONDS, LEAST_UPDATES = 0.5, 50
"""How long a counter is watched: so many seconds, and so many of its updates."""
MOST_SECONDS = 10.0
"""A counter that needs longer for `LEAST_UPDATES` is too slow."""
LEAST_PARTS, MOST_PARTS = 3, 10
"""Parts of a measurement, whose spread is seen."""
STUDENT = (4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Half-width of the 95 % interval of a mean of `LEAST_PARTS` to `MOST_PARTS` values, in standard errors."""
REST_SECONDS, POLL_SECONDS, STILL_SECONDS = 1.0, 1e-3, 1.0
"""Rest before an idle device is watched, pause between its readings, and when a counter stands still."""
RAMP_SECONDS = 0.1
"""A device that begins to work has reached its power after so long, and after 3 updates of its counter."""


@dataclass(frozen=True)
class Energy:
    """Energy of one call, in joules; None, with the reason, where it was asked for and cannot be told.

    Attributes:
        joules: All that the device took, divided by the calls: what it draws when idle is part of it.
        error: Half of a 95 % interval: what the counter's updates leave open, and what the parts of this one
            measurement spread; not what the sensor itself is off by, nor what another process would see.
        call_s: Seconds that a call took meanwhile, so that ``joules / call_s`` is the mean power.
        reason: Why nothing is known.
    """

    joules: float | None
    error: float | None = None
    call_s: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Mark:
    """A new value of a counter, seen at a moment, after so many calls.

    ``stale_s`` is the longest that it may have been new before it was seen.
    """

    calls: int
    joules: float
    at: float
    stale_s: float


@dataclass(frozen=True)
class Meter:
    """A counter, how often it is updated, and the power of its device at rest, in watts.

    ``now`` and ``sleep`` are the clock.
    """

    read: Read
    update_s: float
    idle_w: float
    now: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep

    @classmethod
    def of(
        cls,
        read: Read,
        now: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Meter:
        """Learn a counter while its device is idle.

        Raises:
            CounterError: It stands still, is too slow, or fails.
        """
        sleep(REST_SECONDS)
        marks: list[Mark] = []
        watch = _Watch(read, now)
        while len(marks) <= LEAST_UPDATES or marks[-1].at - marks[0].at < LEAST_SECONDS:
            sleep(POLL_SECONDS)
            marks += watch.look(0)
            if len(marks) > 4 and LEAST_UPDATES * _pace(marks) > MOST_SECONDS:
                raise CounterError(f"the counter is too slow: an update takes {_pace(marks):.2g} s")
        first, last = marks[0], marks[-1]
        idle_w = (last.joules - first.joules) / (last.at - first.at)
        return cls(read, _pace(marks), idle_w, now, sleep)


def find_meter(device: str) -> Meter | str:
    """The meter of a device, learned once in a process, which takes some seconds; or why there is none.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:1``; a CUDA device without a number is the current one.
    """
    if device == "cuda" and torch.cuda.is_available():
        device = f"cuda:{torch.cuda.current_device()}"
    return _learned_meter(device)


@cache
def _learned_meter(device: str) -> Meter | str:
    try:
        counter = find_counter(device)
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)
        return Meter.of(counter)
    except CounterError as error:
        return str(error)


def measure_energy(call: Callable[[], object], meter: Meter | str, device: str) -> Energy:
    """Energy of ``call()``, repeated for `LEAST_SECONDS` and `LEAST_UPDATES` of the counter, or longer.

    Calls follow each other without a pause: caches stay warm, and where the host enqueues more slowly than
    the device works, what the device draws while it waits is part of the energy. A long call is made at least
    4 times.

    Args:
        call: What is measured; it has been called before.
        meter: That of the device, or why there is none.
        device: ``cpu`` or ``cuda``.
    """
    if isinstance(meter, str):
        return Energy(None, reason=meter)
    calls = _Calls(call, device)
    try:
        return _evaluated(_marks(calls, meter), meter)
    except CounterError as error:
        return Energy(None, reason=str(error))
    finally:
        calls.wait()


class _Watch:
    """Sees when a counter is updated."""

    def __init__(self, read: Read, now: Callable[[], float]) -> None:
        self._read, self._now = read, now
        self._value, self._looked = read(), now()
        self._changed = self._looked

    def look(self, calls: int) -> list[Mark]:
        """The mark of a new value, if there is one.

        Raises:
            CounterError: The counter stands still, or goes backwards.
        """
        value, at = self._read(), self._now()
        looked, self._looked = self._looked, at
        if value == self._value:
            if at - self._changed > STILL_SECONDS:
                raise CounterError(f"the counter stands still: no update in {at - self._changed:.2g} s")
            return []
        if value < self._value:
            raise CounterError("the counter goes backwards")
        self._value, self._changed = value, at
        return [Mark(calls, value, at, at - looked)]


class _Calls:
    """Calls in a row; on CUDA the next ones are enqueued before the last ones are done."""

    def __init__(self, call: Callable[[], object], device: str) -> None:
        self._call, self._cuda = call, device == "cuda"
        self._enqueued: torch.cuda.Event | None = None

    def run(self, count: int) -> None:
        """Make so many calls, and wait until those of before are done."""
        for _ in range(count):
            self._call()
        if self._cuda:
            before, self._enqueued = self._enqueued, torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._enqueued.record()
            if before:
                before.synchronize()

    def wait(self) -> None:
        """Wait until all calls are done."""
        if self._cuda:
            torch.cuda.synchronize()


def _marks(calls: _Calls, meter: Meter) -> list[Mark]:
    """The updates of a counter while a call is repeated, once its device has come to its power."""
    began, done, batch = meter.now(), 0, 1
    while (before := meter.now()) < began + max(RAMP_SECONDS, 3 * meter.update_s):
        calls.run(batch)
        # As many calls as an update has room for ten times over, so that it is seen soon.
        if meter.now() - before < meter.update_s / 20:
            batch *= 2
    watch, marks = _Watch(meter.read, meter.now), list[Mark]()
    least = LEAST_UPDATES * meter.update_s
    while len(marks) <= LEAST_PARTS or marks[-1].at - marks[0].at < max(LEAST_SECONDS, least):
        calls.run(batch)
        done += batch
        marks += watch.look(done)
    return marks


def _pace(marks: list[Mark]) -> float:
    """Seconds from one update of a counter to the next."""
    return statistics.median(after.at - before.at for before, after in pairwise(marks))


def _evaluated(marks: list[Mark], meter: Meter) -> Energy:
    first, last = marks[0], marks[-1]
    seconds, calls = last.at - first.at, last.calls - first.calls
    joules = (last.joules - first.joules) / calls
    count = min(MOST_PARTS, len(marks) - 1)
    ends = [marks[part * (len(marks) - 1) // count] for part in range(count + 1)]
    parts = [
        (after.joules - before.joules) / (after.calls - before.calls) for before, after in pairwise(ends)
    ]
    # Both ends of a part are seen too late, by up to so long each, which itself scatters the parts.
    stale_s = min(max(first.stale_s, last.stale_s), meter.update_s)
    explained = joules * stale_s * count / seconds / 6**0.5
    spread = max(0.0, statistics.variance(parts) - explained**2) ** 0.5
    # So late are the ends of the whole, too; and on CUDA as many calls may be on their way.
    error = 2 * joules * stale_s / seconds + STUDENT[count - LEAST_PARTS] * spread / count**0.5
    return Energy(joules, error, seconds / calls)
