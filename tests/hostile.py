"""Runs as nobody should write them: sound files in which anything may be anything."""

from __future__ import annotations

import copy
import json
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.synthetic import Law, Machine, Noise, Run, ceilings

Content = dict[str, Any]
LAWS = {("standard-sdpa", "causal"): Law(1e-9, 2), ("linear-chunked", "causal"): Law(1e-6, 1)}
SMALL = Run(
    LAWS,
    (512, 1024, 2048),
    repetitions=2,
    rounds=2,
    noise=Noise(),
    not_measured=[("standard-sdpa", "causal", 4096, "oom", "out of memory")],
)
LAYER = replace(SMALL, subject="layer", theory=True, not_measured=())
READING = {
    "repetition": 1, "interval_s": 10.0, "others_cores": 0.5, "cpu_mhz": 3000.0, "gpu_sm_clock_mhz": 1980,
    "gpu_temperature_c": 60, "gpu_throttle_reasons": 0, "gpu_utilization_percent": 1,
    "gpu_memory_used_bytes": 1e9, "gpu_own_bytes": 1e9,
}  # fmt: skip


def sound(seed: int, *, layer: bool = False) -> Content:
    """A small run of everything: kernels, ceilings, a case left out, conditions; or of a layer."""
    content: Content = json.loads(_sound(seed, layer))  # a copy: its parts are free to be changed
    return content


@cache
def _sound(seed: int, layer: bool) -> str:
    content = replace(LAYER if layer else SMALL, seed=seed).content()
    content["benchmarks"] += ceilings(Machine(), 2e10, 1e11, (1.0, 1.1))
    content["datetime"] = f"2025-01-{1 + seed:02d}T00:00:00+00:00"
    content["commit_info"] = {
        "id": f"{seed:07x}" + "c" * 33, "time": f"2025-01-{1 + seed:02d}T00:00:00+00:00",
        "author_time": f"2025-01-{1 + seed:02d}T00:00:00+00:00", "dirty": False,
    }  # fmt: skip
    content["machine_info"]["devices"] = {"cuda": "A card"}
    content["run"] |= {
        "node": "host", "pair": seed, "driver": "1", "torch": "2", "threads": 2, "usable_cores": 2,
        "quota_cores": None, "governor": "performance", "on_battery": False, "python": "3",
        "conditions": [READING, {**READING, "repetition": 2}],
    }  # fmt: skip
    return json.dumps(content)


TEXTS = (
    "", " ", "-", "\x1b[31mred", "\x9b2J", "nul\x00", "\x7f", "back\u202eward", "\u2066isolate",
    "line\u2028end", "\ud800", "two\nlines", "$a$ $b$", "\\frac{", "_hidden", "a|b", "`code`", "```",
    "![x](http://e.org/a.png)", "[x](javascript:alert(1))", "<script>alert(1)</script>", "&lt;", "=1+1",
    "+1", "@x", "-x", "--help", "../../up", "/etc/passwd", "中文", "\U0001f600", "e\u0301", "9" * 400,
    "x" * 3000, "nan", "null", "$(touch x)", "a b'c\"d", "linear-chunked", "standard-sdpa", "ceiling-copy",
    "ceiling-matmul", "layer", "operator", "ceiling", "linear", "standard", "cuda", "cpu", "wall", "device",
    "forward", "forward_backward", "bidirectional", "measured", "oom", "failed", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00", "2025-01-01", "float16", "float32",
)  # fmt: skip
NUMBERS = (
    -1, 2**63, 2**64, 10**308, 10**400, -(10**400), -0.0, 5e-324, 1e-300, 1e300, 1.7976931348623157e308,
    -1e300, math.nan, math.inf, -math.inf, True, False, None,
)  # fmt: skip
SOUND_NUMBERS = (
    0, 1, 2, 3, 511, 512, 513, 10**9, 2**31, 2**39, 2**40, 2**53, 10**30, 0.5, 1e-30, 1e-15, 1e-12, 1e-6,
    1.0, 1e9, 1e15, 1e30,
)  # fmt: skip
"""Extreme, but of a kind that may be."""
SHAPES: tuple[Any, ...] = ([], {}, [[]], {"": {}}, [1, "a", None], {"a": [1]})


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


WRITINGS = [f"benchmarks.analysis.{room}.writing" for room in ("report", "comparison", "history")]


@contextmanager
def undrawn() -> Iterator[None]:
    """Let commands make no pictures and no page, which take most of their time."""
    with pytest.MonkeyPatch.context() as patching:
        for module in WRITINGS:
            # A module and a name: a dotted text would be looked up part by part, each time.
            for name in ("save_pictures", "save_page"):
                patching.setattr(import_module(module), name, lambda *_: ([], []))
        yield


ROOMS: tuple[tuple[Any, ...], ...] = (
    *[("benchmarks", int, "extra_info")] * 6,
    ("benchmarks", int, "stats"),
    ("benchmarks", int, "stats", "data"),
    ("benchmarks", int),
    *[("not_measured", int)] * 2,
    ("run",),
    ("run", "conditions", int),
    ("machine_info",),
    ("commit_info",),
    (),
)
"""Where a file is changed: names of fields, and for a list any of its items."""
WAYS = ("put", "put", "put", "everywhere", "everywhere", "scale", "delete", "double", "wrap", "add")
FACTORS = (0, -1, 1e-30, 1e-15, 1e-6, 1.0000001, 3, 1e6, 1e15, 1e30, 1e300)


@dataclass(frozen=True)
class Edit:
    """A change of one place of a run, or of the same field in many records, which a number chooses.

    Numbers make unlike changes, however near they are: the space is wide, and its corners are the point.
    """

    seed: int

    def __call__(self, content: Content) -> None:
        """Change a run in its place."""
        random = Random(self.seed)
        holder = _room(content, random.choice(ROOMS), random)
        names = list(holder) if isinstance(holder, dict) else range(len(holder))
        if not names:
            return
        name, what, value = random.choice(names), random.choice(WAYS), _odd(random)
        old = holder[name]
        if what == "delete":
            del holder[name]
        elif what == "double" and isinstance(holder, list):
            holder.insert(0, copy.deepcopy(old))
        elif what == "wrap":
            holder[name] = [old]
        elif what == "add" and isinstance(holder, dict):
            holder[str(_odd(random))] = value
        elif what == "scale" and type(old) in (int, float) and abs(old) < 1e300:
            holder[name] = float(old) * random.choice(FACTORS)
        elif what == "everywhere":
            # In all records, or in those of every other case: kernels then differ in what they should share.
            for one in list(_like(content, name))[:: random.choice((1, 2, 3))]:
                one[name] = value
        else:
            holder[name] = value


def _odd(random: Random) -> Any:
    """Any value at all, most often one of those that have done harm before."""
    kind = random.randrange(10)
    if kind < 8:
        return random.choice((NUMBERS, NUMBERS, SOUND_NUMBERS, SOUND_NUMBERS, SOUND_NUMBERS, TEXTS)[kind % 6])
    if kind == 8:
        return _nested(random.choice((2, 30, 450))) if random.random() < 0.3 else random.choice(SHAPES)
    number = struct.unpack("d", random.randbytes(8))[0]
    letters = "".join(chr(random.randrange(0x110000)) for _ in range(random.randrange(1, 6)))
    return random.choice((number, letters, random.getrandbits(random.randrange(1, 80))))


def _room(content: Content, room: tuple[Any, ...], random: Random) -> Any:
    """The list or object that a way leads to, or as far as it goes in a file changed before."""
    found: Any = content
    for step in room:
        if step is int and isinstance(found, list) and found:
            inner = random.choice(found)
        elif isinstance(found, dict):
            inner = found.get(step)
        else:
            return found
        if not isinstance(inner, dict | list):
            return found
        found = inner
    return found


def _like(content: Content, name: Any) -> Iterator[Any]:
    """All records that have a field of this name."""
    rows = content.get("benchmarks")
    for row in rows if isinstance(rows, list) else []:
        for part in (row.get("extra_info"), row.get("stats"), row) if isinstance(row, dict) else ():
            if isinstance(part, dict) and name in part:
                yield part


def write(path: Path, content: Content) -> Path:
    """Write a run as JSON, with NaN and infinity where it holds them."""
    path.write_text(json.dumps(content))
    return path
