"""How long a call takes and how much memory it needs, by the clock and the allocator of its device."""

from attention.profiler.clock import CLOCKS, Runway, clock_name
from attention.profiler.memory import Peak, peak_memory

__all__ = ["CLOCKS", "Peak", "Runway", "clock_name", "peak_memory"]
