"""Peak memory of a call, above what is alive when it starts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import psutil
import torch
from torch.profiler import ProfilerActivity, profile


class Peak(NamedTuple):
    """Bytes above the baseline: of tensors, and of the process's resident set (CPU only)."""

    tensor_bytes: int
    rss_bytes: int | None


def peak_memory(call: Callable[[], object], device: str) -> Peak:
    """The most memory that ``call()`` holds, above what is alive before it, its result included.

    CUDA: the peak of torch's allocator. CPU: the running sum of torch's own allocation events,
    which is exact and repeatable and sees what an operator allocates inside; beside it the peak of
    the resident set, sampled, which sees other libraries too.
    """
    return _cuda_peak(call) if device == "cuda" else _cpu_peak(call)


def _cuda_peak(call: Callable[[], object]) -> Peak:
    call()  # the first call of a library allocates workspaces that stay
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return Peak(torch.cuda.max_memory_allocated() - before, None)


def _cpu_peak(call: Callable[[], object]) -> Peak:
    # acc_events only spares torch's warning that a second cycle, of which there is none, would drop them.
    recorder = profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True)
    with _ResidentSet() as resident, recorder as trace:
        call()
    assert trace.profiler is not None and trace.profiler.kineto_results is not None
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return Peak(peak, resident.peak_bytes)


class _ResidentSet(AbstractContextManager["_ResidentSet"]):
    """Samples the resident set of this process in a thread, every millisecond."""

    def __enter__(self) -> _ResidentSet:
        self._process = psutil.Process()
        self._before = self._most = self._process.memory_info().rss
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._stop.wait(1e-3):
            self._most = max(self._most, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._most = max(self._most, self._process.memory_info().rss)

    @property
    def peak_bytes(self) -> int:
        return self._most - self._before
