"""Peak memory of a call, above what is alive when it starts."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import accumulate

import psutil
import torch

from attention.torch_internals.profiler import allocation_events, prepared_profiler, profiling

# Some builds of torch's profiler announce each start and stop on stderr; it reads this when it first starts.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")


@dataclass(frozen=True)
class Peak:
    """Bytes above the baseline that tensors took, and on a CPU the resident set; None is unknown."""

    tensor_bytes: int | None
    rss_before_bytes: int | None = None
    rss_peak_bytes: int | None = None
    rss_after_bytes: int | None = None

    @property
    def rss_bytes(self) -> int | None:
        """Growth of the resident set at its peak."""
        if self.rss_peak_bytes is None or self.rss_before_bytes is None:
            return None
        return self.rss_peak_bytes - self.rss_before_bytes


def peak_memory(call: Callable[[], object], device: str) -> Peak:
    """The most memory that ``call()`` holds above what is alive before it, its result included.

    CUDA: the peak of torch's allocator, after one call that lets libraries allocate workspaces that
    stay. CPU: the running sum of torch's own allocation events, which is exact and repeatable, and
    sees views, in-place work, the backward and what an operator allocates inside; beside it the
    resident set, sampled each millisecond, which sees other libraries and the threads too. What was freed
    before is returned to the system first, where the C library is glibc: its use would not be seen again.

    torch has one profiler for a process, at which threads take turns. Where another profile holds it, around
    this call or within it, the events are not known: ``tensor_bytes`` is None, with a warning.
    """
    held = _TURN.acquire(timeout=LONGEST_TURN_SECONDS)  # a call may itself wait for a thread that is profiled
    try:
        if device == "cuda":
            return _cuda_peak(call)
        with _ResidentSet() as resident:
            events = _events(call) if held else _call(call, "another thread has been profiled for a minute")
        return Peak(_peak(events, resident), resident.before, resident.peak, resident.after)
    finally:
        if held:
            _TURN.release()


_TURN = threading.RLock()
LONGEST_TURN_SECONDS = 60.0


def _cuda_peak(call: Callable[[], object]) -> Peak:
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    torch.cuda.synchronize()
    del result
    return Peak(torch.cuda.max_memory_allocated() - before)


Events = list[tuple[int, int]]
"""Time and bytes of allocations."""


def _peak(events: Events | str, resident: _ResidentSet) -> int | None:
    if not isinstance(events, str):
        return max(accumulate((size for _, size in events), initial=0))
    warnings.warn(f"the peak memory of tensors is unknown: {events}", stacklevel=3)
    return None


def _events(call: Callable[[], object]) -> Events | str:
    """The allocations of a call, or the reason why they are not known."""
    if profiling() or prepared_profiler():
        return _call(call, "another profile is active, and torch has one profiler for a process")
    # torch.profiler.profile around this one would import the compiler, for a second and more.
    # acc_events only spares its warning that a second cycle, of which there is none, would drop events; at
    # the end it would build an object for each operator, which takes longer than many a call.
    recorder = torch.autograd.profiler.profile(profile_memory=True, acc_events=True)
    with recorder, _without_collections():
        recorder.acc_events = False
        call()
        kept = profiling()
    if not kept:
        return "the function ended the profile, as it profiles itself"
    events = allocation_events(recorder)
    return "this torch gives no allocation events" if events is None else events


@contextmanager
def _without_collections() -> Iterator[None]:
    """A block in which no garbage is collected: what others left behind would count as freed by the call."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _call(call: Callable[[], object], reason: str) -> str:
    call()
    return reason


def _return_freed() -> None:
    """Have the C library return to the system what was freed, as glibc can, so that using it again shows."""
    trim = getattr(ctypes.CDLL(None) if os.name == "posix" else None, "malloc_trim", None)
    if trim:
        trim(0)


class _ResidentSet(AbstractContextManager["_ResidentSet"]):
    """Samples the resident set of this process in a thread."""

    def __enter__(self) -> _ResidentSet:
        _return_freed()
        self._process = psutil.Process()
        self.before = self.peak = self.after = self._now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def _now(self) -> int:
        return int(self._process.memory_info().rss)

    def _sample(self) -> None:
        while not self._stop.wait(1e-3):
            self.peak = max(self.peak, self._now())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.after = self._now()
        self.peak = max(self.peak, self.after)
