"""profile(): time, FLOPs, memory and energy of one call, each by its own method."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from attention.profiler.clock import CLOCKS, clock_name, warm_up
from attention.profiler.energy import Energy, find_meter, measure_energy
from attention.profiler.flops import try_count_flops
from attention.profiler.memory import peak_memory

NOT_ASKED = Energy(None)


@dataclass(frozen=True)
class Profile:
    """Time, FLOPs, memory and energy of a call. It prints as a row of the table that :meth:`header` heads.

    ``times_s`` are the rounds in seconds; ``flops`` counted, two a multiply-add, None where torch's counter
    cannot follow the call; ``min_bytes`` the
    tensors given read once and the ones returned written once; ``peak_bytes`` the most memory held
    above the inputs; ``rss_*`` the resident set of the process (None on CUDA); ``energy`` what the device
    took, if it was asked for. None is unknown.
    """

    device: str
    clock: str
    times_s: tuple[float, ...]
    flops: int | None
    min_bytes: int
    peak_bytes: int | None
    rss_before_bytes: int | None
    rss_peak_bytes: int | None
    rss_after_bytes: int | None
    energy: Energy = NOT_ASKED

    _columns: ClassVar[tuple[tuple[str, int], ...]] = (
        ("device", 6), ("clock", 6), ("rounds", 6), ("median ms", 9), ("mean ms", 9), ("± s.e.", 8),
        ("s.d.", 8), ("GFLOP", 9), ("GFLOP/s", 9), ("GB/s", 8), ("peak MB", 9), ("RSS MB", 8),
        ("mJ", 8),
    )  # fmt: skip

    @property
    def median_s(self) -> float:
        return statistics.median(self.times_s)

    @property
    def mean_s(self) -> float:
        return statistics.fmean(self.times_s)

    @property
    def standard_deviation_s(self) -> float:
        """Sample standard deviation of the rounds; nan for 1."""
        return statistics.stdev(self.times_s) if len(self.times_s) > 1 else math.nan

    @property
    def standard_error_s(self) -> float:
        """Standard error of the mean, as if rounds were independent, which they are not quite; nan for 1."""
        return self.standard_deviation_s / math.sqrt(len(self.times_s))

    @property
    def flops_per_s(self) -> float | None:
        """FLOPs a second achieved at the median, None where they are not known."""
        return None if self.flops is None else self.flops / self.median_s

    @property
    def bytes_per_s(self) -> float:
        """Least bytes over the median time: the bandwidth of a call that moves nothing twice."""
        return self.min_bytes / self.median_s

    def asdict(self) -> dict[str, str | int | float | None]:
        """JSON scalars: the fields and the figures derived from them, but for the single rounds."""
        deviation, error = self.standard_deviation_s, self.standard_error_s
        return {
            "device": self.device,
            "clock": self.clock,
            "rounds": len(self.times_s),
            "median_s": self.median_s,
            "mean_s": self.mean_s,
            "standard_deviation_s": None if math.isnan(deviation) else deviation,
            "standard_error_s": None if math.isnan(error) else error,
            "flops": self.flops,
            "flops_per_s": self.flops_per_s,
            "min_bytes": self.min_bytes,
            "bytes_per_s": self.bytes_per_s,
            "peak_bytes": self.peak_bytes,
            "rss_before_bytes": self.rss_before_bytes,
            "rss_peak_bytes": self.rss_peak_bytes,
            "rss_after_bytes": self.rss_after_bytes,
            "energy_j": self.energy.joules,
            "energy_error_j": self.energy.error,
            "energy_call_s": self.energy.call_s,
            "energy_unknown": self.energy.reason,
        }

    @classmethod
    def header(cls) -> str:
        """The head of the table whose rows profiles print as."""
        return "  ".join(f"{name:>{width}}" for name, width in cls._columns)

    def __str__(self) -> str:
        grown = None if self.rss_peak_bytes is None else self.rss_peak_bytes - (self.rss_before_bytes or 0)
        values = (
            self.device,
            self.clock,
            f"{len(self.times_s)}",
            f"{self.median_s * 1e3:.4g}",
            f"{self.mean_s * 1e3:.4g}",
            f"{self.standard_error_s * 1e3:.2g}",
            f"{self.standard_deviation_s * 1e3:.2g}",
            _in(1e9, self.flops),
            _in(1e9, self.flops_per_s),
            f"{self.bytes_per_s / 1e9:.4g}",
            _in(1e6, self.peak_bytes),
            _in(1e6, grown),
            _in(1e-3, self.energy.joules),
        )
        return "  ".join(f"{value:>{width}}" for value, (_, width) in zip(values, self._columns, strict=True))


def _in(unit: float, amount: float | None) -> str:
    """An amount in a table; "-" where it is not known."""
    return "-" if amount is None else f"{amount / unit:.4g}"


def profile(
    fn: Callable[..., object],
    *args: Any,
    device: str | torch.device | None = None,
    rounds: int = 20,
    warmup: int = 3,
    clock: str = "device",
    energy: bool = False,
) -> Profile:
    """Measure ``fn(*args)``.

    FLOPs and memory are read in untimed calls of their own, then ``rounds`` calls are timed one by
    one. On CUDA each starts with a cold L2 and is stamped by events on the current stream;
    ``clock="wall"`` synchronises instead and holds the launches. A CPU has the wall clock only.

    Args:
        fn: what to measure; for a backward, a function that runs forward and backward.
        args: its arguments.
        device: ``cpu``, ``cuda`` or ``cuda:1``; where the first tensor among the arguments is unless given.
        rounds: timed calls, at least 1.
        warmup: calls before the rounds, at least 1, besides those that read FLOPs and memory.
        clock: ``device`` or ``wall``.
        energy: whether to measure energy as well, after the rounds, in half a second to some seconds: see
            `energy.measure_energy`. Where the device has no counter, ``energy.reason`` says so.

    Raises:
        TypeError: what is to be measured cannot be called, a count is no integer, or a device no name.
        ValueError: counts below 1, an unknown device or clock, a CUDA device that is not there, no tensor to
            tell the device by, or a function that leaves work on a CUDA stream other than the current one.
    """
    if not callable(fn):
        raise TypeError(f"profile() measures a function; got an object of type {type(fn).__name__}")
    for name, count in (("rounds", rounds), ("warmup", warmup)):
        if type(count) is not int:
            raise TypeError(f"{name} must be an integer, got {count!r:.60}")
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    where = _device(device, args)
    if where.type not in ("cpu", "cuda") or clock not in ("device", "wall"):
        asked = f"{where.type!r} and {clock!r}"
        raise ValueError(f"device must be cpu or cuda and clock device or wall, got {asked}")
    with torch.cuda.device(where) if where.type == "cuda" else nullcontext():
        found = _measured(lambda: fn(*args), args, where.type, clock_name(where.type, clock), rounds, warmup)
        if not energy:
            return found
        return replace(found, energy=measure_energy(lambda: fn(*args), find_meter(str(where)), where.type))


def _device(asked: str | torch.device | None, args: tuple[Any, ...]) -> torch.device:
    """The device asked for, or that of the first tensor."""
    if asked is None:
        tensor = next(_tensors(args), None)
        if tensor is None and torch.cuda.is_available():
            raise ValueError(
                "no tensor among the arguments tells the device; name it: device='cuda' or 'cpu'"
            )
        return torch.device("cpu") if tensor is None else tensor.device
    if not isinstance(asked, str | torch.device):
        raise TypeError(f"device must be the name of a device, got {asked!r:.60}")
    try:
        device = torch.device(asked)
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be cpu or cuda, got {asked!r}") from None
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        found = f"torch finds {count} of them" if count else "torch finds none"
        raise ValueError(f"device {str(device)!r} is a CUDA device, and {found} here; pass device='cpu'")
    return device


def _measured(
    call: Callable[[], object], args: tuple[Any, ...], device: str, clock: str, rounds: int, warmup: int
) -> Profile:
    min_bytes = sum(x.numel() * x.element_size() for x in _tensors((*args, call())))
    flops = try_count_flops(call).flops
    peak = peak_memory(call, device)
    for _ in range(warmup):
        call()
    _, before_round = warm_up(call, device, clock)
    stamp = CLOCKS[device, clock]
    times = []
    for _ in range(rounds):
        if before_round:
            before_round()
        start = stamp()
        result = call()
        times.append(float(stamp() - start))
        del result
    return Profile(
        device=device,
        clock=clock,
        times_s=tuple(times),
        flops=flops,
        min_bytes=min_bytes,
        peak_bytes=peak.tensor_bytes,
        rss_before_bytes=peak.rss_before_bytes,
        rss_peak_bytes=peak.rss_peak_bytes,
        rss_after_bytes=peak.rss_after_bytes,
    )


def _tensors(values: object) -> Iterator[Tensor]:
    """The tensors among values, inside tuples, lists and dictionaries too."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(tuple(values.values()))
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)
