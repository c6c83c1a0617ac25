"""Clocks: callables that return time stamps of a device; the difference of two stamps is seconds.

pytest-benchmark only ever subtracts what its timer returns, so that each of these is a timer for it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch


class CudaStamp:
    """An event recorded on the current stream; ``later - earlier`` waits for it and gives seconds."""

    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._event.record()

    def __sub__(self, earlier: CudaStamp) -> float:
        self._event.synchronize()
        return float(earlier._event.elapsed_time(self._event)) * 1e-3


def cpu_wall() -> float:
    """Seconds of the host's monotonic clock."""
    return perf_counter()


def cuda_device() -> CudaStamp:
    """A stamp of the device: no launch latency in it, if the host runs ahead."""
    return CudaStamp()


def cuda_wall() -> float:
    """Seconds of the host's clock once the device is idle: launch latency included."""
    torch.cuda.synchronize()
    return perf_counter()


CLOCKS: dict[tuple[str, str], Callable[[], Any]] = {
    ("cpu", "wall"): cpu_wall,
    ("cuda", "device"): cuda_device,
    ("cuda", "wall"): cuda_wall,
}


def clock_name(device: str, asked: str) -> str:
    """The clock that a device is timed with: a CPU has only ``wall``."""
    return asked if (device, asked) in CLOCKS else "wall"


def warm_up(
    call: Callable[[], object], device: str, clock: str, calls: int | None = None
) -> tuple[float, Callable[[], None] | None]:
    """Warm a call up for timing.

    Args:
        call: What is to be timed.
        device: "cpu" or "cuda".
        clock: "device" or "wall".
        calls: How often it is called; unless given, four times on CUDA, and on a CPU twice, once where it is
            long.

    Returns:
        About how many seconds a call takes, and what is to be done before each timed round.

    Raises:
        ValueError: on CUDA, a call that leaves work on another stream than the current one.
    """
    if device == "cuda":
        runway = Runway(clock)
        calls = calls or 4
        for _ in range(calls - 3):
            call()
        learned = [runway.learn(call) for _ in range(min(calls, 3))]
        runway.refuse_other_streams(learned[-1])
        return learned[-1], runway
    if calls:
        return [_host_seconds(call) for _ in range(calls)][-1], None
    seconds = _host_seconds(call)
    # A long call is hardly slower cold, and a second one would take the time of a round.
    return (seconds if seconds > LONG_CALL_SECONDS else _host_seconds(call)), None


LONG_CALL_SECONDS = 0.1
# The host is itself noisy: with twice the time to enqueue, one repetition in fifty still waited for it.
RUNWAY_FACTOR, RUNWAY_SECONDS = 3, 2e-4


def _host_seconds(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


class Runway:
    """The work that precedes a timed call on a CUDA device: a cold L2, and a host that runs ahead.

    Overwriting a buffer four times the size of the L2 evicts the inputs. With the device clock it
    is repeated until the device is busy for longer than the host needs to enqueue the call, so
    that the call's kernels follow each other without waiting for the host. A call that synchronises
    inside cannot be run ahead of; its time then holds the launches after the synchronisation.
    ``seconds``: how long it takes.
    """

    def __init__(self, clock: str) -> None:
        self._clock = clock
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        self._buffer = torch.empty(4 * properties.L2_cache_size, dtype=torch.uint8, device="cuda")
        self._fills = 1
        self.seconds = 0.0
        self._left: list[float] = []

    def learn(self, call: Callable[[], object]) -> float:
        """Time one call from a cold device; sets how far the host must run ahead. Returns seconds."""
        torch.cuda.synchronize()
        before_fill = cuda_device()
        self._buffer.zero_()
        after_fill = cuda_device()
        torch.cuda.synchronize()
        start, began = cuda_device(), perf_counter()
        call()
        enqueued = perf_counter() - began
        seconds = cuda_device() - start
        self._left.append(_host_seconds(torch.cuda.synchronize))
        fill = after_fill - before_fill
        if self._clock == "device":
            self._fills = 1 + int((RUNWAY_FACTOR * enqueued + RUNWAY_SECONDS) / fill)
        self.seconds = self._fills * fill
        return seconds

    def refuse_other_streams(self, seconds: float) -> None:
        """Once the current stream is done the device must be: what runs on would not be timed.

        A stall of the host looks the same once, but not in each of the calls learned from.
        """
        left = min(self._left)
        if left > 1e-4 + 0.1 * seconds:
            raise ValueError(
                f"the function leaves work on another CUDA stream: {left * 1e3:.2f} ms beyond its "
                f"{seconds * 1e3:.2f} ms on the current one, which would not be timed; "
                "let the current stream wait for it (torch.cuda.current_stream().wait_stream)"
            )

    def __call__(self) -> None:
        for _ in range(self._fills):
            self._buffer.zero_()
        if self._clock == "wall":
            torch.cuda.synchronize()
