"""How long a call takes, how many FLOPs it does, and how much memory and energy it needs."""

from attention.profiler.clock import CLOCKS, clock_name, warm_up
from attention.profiler.energy import Energy, Meter, find_meter, measure_energy
from attention.profiler.flops import Counted, count_flops, try_count_flops
from attention.profiler.memory import Peak, peak_memory
from attention.profiler.profile import Profile, profile

__all__ = [
    "CLOCKS",
    "Counted",
    "Energy",
    "Meter",
    "Peak",
    "Profile",
    "clock_name",
    "count_flops",
    "find_meter",
    "measure_energy",
    "peak_memory",
    "profile",
    "try_count_flops",
    "warm_up",
]
