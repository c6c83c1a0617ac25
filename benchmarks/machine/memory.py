"""The memory that a case may take: of the device, and on a CPU within every limit on this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import psutil
import torch

from benchmarks.machine.cgroups import Group, groups

# Share of a limit that stays free: other programs, and operators that take more than predicted.
MEMORY_RESERVE = 0.1


class Limit(NamedTuple):
    """A limit on memory, and how much of it is free, in bytes."""

    total: int
    free: int

    @property
    def usable(self) -> int:
        """Bytes that a case may take, so that the reserve stays free."""
        return max(0, int(self.free - MEMORY_RESERVE * self.total))


def free_bytes(device: str) -> int:
    """Bytes that a case may take on a device: the memory that is free now, less a reserve."""
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        return Limit(total, free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()).usable
    return min(limit.usable for limit in (host_memory(), *limits()))


def memory_limit_bytes() -> int | None:
    """The least limit on this process's memory; None where it may take all that the host has."""
    least = min((limit.total for limit in limits()), default=None)
    return least if least is not None and least < host_memory().total else None


def host_memory() -> Limit:
    """All memory of the host."""
    memory = psutil.virtual_memory()
    return Limit(memory.total, memory.available)


def limits() -> list[Limit]:
    """The limits on the memory of this process, beside the host's memory."""
    return [*group_limits(groups("memory")), *_resource_limits()]


def group_limits(found: Sequence[Group]) -> Iterator[Limit]:
    """The limit of each control group that has one, on all its processes together.

    Above `memory.high` the kernel kills nothing, but slows processes down while it reclaims memory: a case
    timed there would be timed wrong.
    """
    for group in found:
        known = (group.number(file) for file in ("memory.max", "memory.high", "memory.limit_in_bytes"))
        totals = [total for total in known if total is not None]
        if totals:
            yield Limit(min(totals), min(totals) - _used(group))


def _used(group: Group) -> int:
    """Bytes in use by a group, less the cache of files that the kernel drops before it kills."""
    used = group.number("memory.current") or group.number("memory.usage_in_bytes") or 0
    # Version 1 tells its own part and that of all groups below it apart; the limit is on both.
    names = ("total_inactive_file", "inactive_file")
    reclaimable = next((n for name in names if (n := group.entry("memory.stat", name)) is not None), 0)
    return max(0, used - reclaimable)


def _resource_limits() -> Iterator[Limit]:
    """The limits of `ulimit -v` and `ulimit -d`, on address space and on data."""
    if sys.platform == "win32":
        return
    import resource

    used = psutil.Process().memory_info()
    for kind, taken in ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, getattr(used, "data", 0))):
        total = resource.getrlimit(kind)[0]
        if total != resource.RLIM_INFINITY:
            yield Limit(total, total - taken)
