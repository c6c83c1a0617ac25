"""Numbers and settings in words, the same on the console, in markdown and in pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Protocol

from benchmarks.analysis.reading.setting import Setting

OUTCOME_WORDS = {
    "over_time": "left out: time",
    "over_memory": "left out: memory",
    "oom": "OOM",
    "unsupported": "unsupported",
    "failed": "failed",
}
UNITS: tuple[tuple[float, str], ...] = (
    (1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"), (1e-12, "ps"), (1e-15, "fs"),
)  # fmt: skip
PREFIXES = ("", "k", "M", "G", "T", "P", "E")
PHASE_WORDS = {"forward_backward": "forward and backward"}
PURPOSES = {"forward_backward": "training"}
MOST_FILES = 5
"""The most files that are named; many runs of one experiment need no list."""


class Placed(Protocol):
    """Something measured on a device of a machine: a setting or a ceiling."""

    @property
    def device(self) -> str | None: ...
    @property
    def device_name(self) -> str | None: ...
    @property
    def machine(self) -> str: ...


def seconds(value: float | None) -> str:
    """A time in its natural unit with three digits: "4.45 s", "12.0 ms", "310 µs", "1.30 ns"."""
    if value is None or math.isnan(value):
        return "-"
    scale, unit = _unit_of_time(value)
    return f"{digits(value / scale)} {unit}"


def mean(value: float, error: float) -> str:
    """A mean time and its standard error in one unit: "12.3 ± 0.41 ms"; without an error "12.3 ms"."""
    if math.isnan(error):
        return seconds(value)
    scale, unit = _unit_of_time(value)
    return f"{digits(value / scale)} ± {digits(error / scale, 2)} {unit}"


def seconds_tick(value: float) -> str:
    """A time at a tick of an axis, without idle zeros: "30 ms"."""
    scale, unit = _unit_of_time(value)
    return f"{float(digits(value / scale)):g} {unit}"


def joules(value: float | None) -> str:
    """An energy in its natural unit with three digits: "4.45 J", "12.0 mJ"."""
    return seconds(value).replace("s", "J")  # with the same prefixes


def joules_tick(value: float) -> str:
    """An energy at a tick of an axis, without idle zeros: "30 mJ"."""
    return seconds_tick(value).replace("s", "J")


def _unit_of_time(value: float) -> tuple[float, str]:
    """The unit in which a time has one to three digits before the point, in seconds and by name."""
    if value == 0:
        return UNITS[0]
    return next((one for one in UNITS if value >= 0.9995 * one[0]), UNITS[-1])


def digits(value: float, count: int = 3) -> str:
    """A positive number with so many significant digits and no exponent: "0.123", "12.3", "1234"."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, count - 1 - math.floor(math.log10(abs(value)) + 1e-3))}f}"


def amount(value: float | None, unit: str) -> str:
    """A count of bytes, FLOPs or their rates with three digits: "512 B", "21.2 MFLOP", "4.27 TB/s"."""
    if value is None or math.isnan(value):
        return "-"
    scale, prefix = _prefix(value)
    return f"{digits(value / scale) if scale > 1 else f'{value:.0f}'} {prefix}{unit}"


def amount_range(value: float, low: float, high: float, unit: str) -> str:
    """A rate and between which it lay, in one unit: "20.7 GB/s (20.1 to 20.9)"."""
    scale, _ = _prefix(value)
    return f"{amount(value, unit)} ({digits(low / scale)} to {digits(high / scale)})"


def amount_tick(value: float, unit: str) -> str:
    """A count at a tick of an axis, without idle zeros: "30 MB"."""
    scale, prefix = _prefix(value)
    return f"{float(digits(value / scale)):g} {prefix}{unit}"


def _prefix(value: float) -> tuple[float, str]:
    """The power of 1000 that leaves one to three digits before the point, and its prefix."""
    power = min(len(PREFIXES) - 1, max(0, math.floor(math.log10(max(value, 1) * 1.0005) / 3)))
    return 1000**power, PREFIXES[power]


def percent(share: float | None) -> str:
    """A share with two digits: "0.32 %", "4.1 %", "120 %"."""
    if share is None or math.isnan(share):
        return "-"
    count = 2 if share < 0.995 else 3
    return f"{digits(float(f'{100 * share:.{count}g}'), count)} %"


def times(value: float) -> str:
    """A ratio: "0.12x", "8.1x", "310x"."""
    return f"{digits(value, 2 if value < 100 else 3)}x"


def length(value: float) -> str:
    """A length on an axis: multiples of 1024 as "1k", others in full."""
    return f"{int(value) // 1024}k" if value >= 1024 and value % 1024 == 0 else f"{value:.0f}"


def interval(value: float | None, low: float | None, high: float | None, spec: str = ".2f") -> str:
    """A value and its interval: "2.01 [1.98, 2.04]"; the value alone if that is exact or all there is."""
    if value is None:
        return "-"
    alone = low is None or high is None or low == high
    return f"{value:{spec}}" if alone else f"{value:{spec}} [{low:{spec}}, {high:{spec}}]"


def slope(value: float | None) -> str:
    """A local slope: "1.9"; "-" where it could not be measured."""
    return "-" if value is None else f"{round(value, 1) + 0.0:.1f}"


def count(number: int, noun: str) -> str:
    """A counted noun: "1 run", "3 runs"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def shape(setting: Setting) -> str:
    """The shape: "B1 H8 D64", "H32:8" with heads of keys, and Dv where the values have their own width."""
    own_width = setting.value_dim not in (None, setting.head_dim)
    width = f" Dv{setting.value_dim}" if own_width else ""
    return f"B{setting.batch} {heads(setting)} D{setting.head_dim}{width}"


def heads(setting: Setting) -> str:
    """The heads of queries, and those of keys where these are fewer: "H8", "H32:8"."""
    return f"H{setting.heads}" + ("" if setting.kv_heads == setting.heads else f":{setting.kv_heads}")


def machine(place: Placed) -> str:
    """The device: "NVIDIA H200 (cuda)"; "NVIDIA H200 (cuda, machine 2)" where there are several machines."""
    device = ", ".join(filter(None, [place.device, place.machine]))
    named = place.device_name and place.device_name != place.device
    return f"{place.device_name} ({device})" if named else device


def place(setting: Setting) -> str:
    """Where and with what was measured: "NVIDIA H200 (cuda), bfloat16, B4 H8 D64, wall clock"."""
    several = f", {ranks(setting)}" if setting.ranks else ""
    return f"{machine(setting)}, {setting.dtype}, {shape(setting)}, {setting.clock} clock{several}"


def ranks(setting: Setting) -> str:
    """How many share a sequence: "2 ranks"; empty where nobody does."""
    return count(setting.ranks, "rank") if setting.ranks else ""


def phase(setting: Setting) -> str:
    """A phase in words, and of what: "forward", "forward and backward of the layer", "decode of 4 tokens"."""
    words, queries = PHASE_WORDS.get(str(setting.phase), str(setting.phase)), setting.query_len
    if queries is not None and (setting.phase, queries) != ("decode", 1):
        words += f" of {count(queries, 'token')}" if setting.phase == "decode" else f" of {queries} queries"
    return words + (" of the layer" if setting.subject == "layer" else "")


def what(setting: Setting) -> str:
    """A mode and phase in words: "causal forward", "bidirectional forward of the layer"."""
    return f"{setting.mode} {phase(setting)}"


def purpose(setting: Setting) -> str:
    """A mode and what a model does in this phase: "causal training", "causal decode", "causal layer"."""
    phase = PURPOSES.get(str(setting.phase), str(setting.phase))
    queries = setting.query_len
    if queries is not None and (phase, queries) != ("decode", 1):
        phase += f" of {count(queries, 'token')}"
    if setting.subject == "layer":
        phase = f"layer {phase}".removesuffix(" forward")
    return f"{setting.mode} {phase}"


PLACE_PARTS: tuple[Callable[[Setting], str], ...] = (
    lambda setting: str(setting.device),
    lambda setting: setting.machine,
    lambda setting: str(setting.device_name),
    lambda setting: str(setting.dtype),
    shape,
    lambda setting: f"{setting.clock} clock",
    ranks,
)
"""The parts of where and with what was measured."""


def telling(settings: Sequence[Setting], beside: Callable[[Setting], str]) -> Callable[[Setting], str]:
    """Names the place of a setting by as few parts as tell these settings apart, ``beside`` another name.

    The device is named wherever there are two: a dtype may tell them apart, but not to a reader.
    """

    def told(parts: Sequence[Callable[[Setting], str]]) -> int:
        return len({(beside(one), *(part(one) for part in parts)) for one in settings})

    parts = [part for part in PLACE_PARTS if len(set(map(part, settings))) > 1]
    for part in reversed([part for part in parts if part is not PLACE_PARTS[0]]):
        fewer = [one for one in parts if one is not part]
        if told(fewer) == told(parts):
            parts = fewer
    return lambda setting: " ".join(part(setting) for part in parts)


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names in a sentence: "a.json, b.json, c.json and 2 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def files(names: Sequence[str]) -> str:
    """Files in a sentence, their folder once: "3 files in runs: run-001.json, run-002.json, run-003.json"."""
    paths = list(map(PurePath, names))
    folders = {path.parent for path in paths}
    (one, *others) = folders or {PurePath()}
    where = f" in {one}" if not others and one != PurePath() else ""
    shown = [path.name for path in paths] if where else list(names)
    return f"{count(len(names), 'file')}{where}: {listed(shown, MOST_FILES)}"


def ends(lengths: Sequence[int]) -> str:
    """The shortest and the longest of ordered lengths: "256 to 8192", or "256" alone."""
    return " to ".join(map(str, dict.fromkeys((lengths[0], lengths[-1]))))


def ranges(lengths: Sequence[int]) -> str:
    """Lengths in short: "8192" or "256, 512" or "8192 to 131072"."""
    ordered = sorted(lengths)
    if len(ordered) <= 2:
        return ", ".join(map(str, ordered))
    return f"{ordered[0]} to {ordered[-1]}"
