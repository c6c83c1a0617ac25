"""torch's profiler: whether one runs, and what it recorded of memory."""

from __future__ import annotations

import gc
from typing import Any

import torch

from attention.torch_internals.dispatcher import profiler_enabled
from attention.torch_internals.names import private

_profiler_of_any_thread = "autograd.profiler._is_profiler_enabled"


def prepared_profiler() -> bool:
    """Whether a profiler of torch's is warming up: another one started beside it would end the process.

    torch tells of recording profilers alone, so that the objects of this process are looked through.
    """
    kind = torch.autograd.profiler.profile
    # An object refers to its class: these are found sooner than in the list of all objects.
    return any(type(each) is kind and _running(each) for each in gc.get_referrers(kind))


def _running(recorder: Any) -> bool:
    """Whether a profiler was entered, and has no results yet."""
    return getattr(recorder, "entered", False) and getattr(recorder, "kineto_results", True) is None


def profiling() -> bool:
    """Whether a profiler of torch's is active in any thread; not known, and false, without the names."""
    here = profiler_enabled is not None and profiler_enabled()
    return bool(here or private(_profiler_of_any_thread))


def allocation_events(recorder: Any) -> list[tuple[int, int]] | None:
    """Time in ns and bytes (negative when freed) of each allocation that a profiler recorded, in order.

    Args:
        recorder: ``torch.autograd.profiler.profile(profile_memory=True)`` after its end.

    Returns:
        The events, or None where this torch does not give them.
    """
    events = getattr(getattr(recorder, "kineto_results", None), "events", None)
    if events is None:
        return None
    try:
        found = [(event.start_ns(), event.nbytes()) for event in events() if event.name() == "[memory]"]
    except AttributeError:
        return None
    return sorted(found, key=lambda event: event[0])
