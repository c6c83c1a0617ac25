"""Synthetic runs of known law, written as real JSON files of the same schema as measured ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

DOUBLINGS = (256, 512, 1024, 2048, 4096, 8192)


@dataclass(frozen=True)
class Law:
    """t(N) = overhead + coefficient N^power, in seconds."""

    coefficient: float
    power: float
    overhead: float = 0.0

    def __call__(self, length: int) -> float:
        """Seconds at this length."""
        return float(self.overhead + self.coefficient * length**self.power)


@dataclass(frozen=True)
class Noise:
    """Relative standard deviations on the log scale, each level drawn for every case.

    `round` noise is autoregressive of first order, so the rounds of a case are not independent of each other.
    """

    run: float = 0.01
    repetition: float = 0.01
    round: float = 0.02
    correlation: float = 0.7


SILENT = Noise(0, 0, 0)


@dataclass(frozen=True)
class Machine:
    """Device, clock and shape that a synthetic run names."""

    device: str = "cpu"
    device_name: str = "Synthetic CPU"
    dtype: str = "float32"
    clock: str = "wall"
    batch: int = 1
    heads: int = 8
    head_dim: int = 64


@dataclass
class Run:
    """One run: a law per kernel and mode, or times given point by point as {length: seconds}.

    `not_measured` holds (kernel, mode, length, outcome, reason). A `subject` of None leaves the field out, as
    older files do; with `theory`, FLOPs are also counted and peaks also predicted, both exactly. So do
    `kv_heads` and `query_len` unless they are given; a decode has one query unless it is said.
    """

    laws: Mapping[tuple[str, str], Law | Mapping[int, float]]
    lengths: Sequence[int] = DOUBLINGS
    repetitions: int = 3
    rounds: int = 5
    noise: Noise = SILENT
    machine: Machine = field(default_factory=Machine)
    phase: str = "forward"
    not_measured: Sequence[tuple[str, str, int, str, str]] = ()
    seed: int = 0
    subject: str | None = None
    theory: bool = False
    kv_heads: int | None = None
    query_len: int | None = None

    def content(self) -> dict[str, Any]:
        """Content of the JSON file."""
        random = np.random.default_rng(self.seed)
        left_out = {entry[:3] for entry in self.not_measured}
        benchmarks = []
        for (kernel, mode), law in self.laws.items():
            for length in law if isinstance(law, Mapping) else self.lengths:
                if (kernel, mode, length) in left_out:
                    continue
                second = law[length] if isinstance(law, Mapping) else law(length)
                run_effect = self.noise.run * random.standard_normal()
                for repetition in range(1, self.repetitions + 1):
                    effect = run_effect + self.noise.repetition * random.standard_normal()
                    data = second * np.exp(effect + self._rounds(random))
                    record = self._record(kernel, mode, length, repetition)
                    benchmarks.append(benchmark(record, data.tolist()))
        return {
            "machine_info": {"node": "synthetic", "cpu": {"brand_raw": "Synthetic", "count": 2}},
            "commit_info": {"id": "0" * 40, "dirty": False},
            "benchmarks": benchmarks,
            "datetime": "2025-01-01T00:00:00+00:00",
            "version": "5.3.1",
            "not_measured": [self._left_out(*entry) for entry in self.not_measured],
            "run": {"seed": self.seed, "repetitions": self.repetitions, "options": ""},
        }

    def write(self, path: Path) -> Path:
        """Write the file and return its path."""
        path.write_text(json.dumps(self.content()))
        return path

    def _rounds(self, random: np.random.Generator) -> np.ndarray:
        steps = random.standard_normal(self.rounds)
        noise = [steps[0]]
        for step in steps[1:]:
            noise.append(self.noise.correlation * noise[-1] + (1 - self.noise.correlation**2) ** 0.5 * step)
        return self.noise.round * np.array(noise)

    def _case(self, kernel: str, mode: str, length: int) -> dict[str, Any]:
        case = {"kernel": kernel, "mode": mode, "phase": self.phase, "seq_len": length, **vars(self.machine)}
        if self.subject == "layer":
            case["embed_dim"] = self.machine.heads * self.machine.head_dim
        queries = self.query_len or (1 if self.phase == "decode" else None)
        case |= {} if self.kv_heads is None else {"kv_heads": self.kv_heads}
        case |= {} if queries is None else {"query_len": queries}
        return case if self.subject is None else {**case, "subject": self.subject}

    def _left_out(self, kernel: str, mode: str, length: int, outcome: str, reason: str) -> dict[str, Any]:
        return {**self._case(kernel, mode, length), "outcome": outcome, "reason": reason}

    def _record(self, kernel: str, mode: str, length: int, repetition: int) -> dict[str, Any]:
        machine, family = self.machine, kernel.partition("-")[0]
        heads, dim = machine.batch * machine.heads, machine.head_dim
        macs = heads * 2 * dim * length * (length if family == "standard" else dim)
        if kernel.startswith("standard-sdpa") and mode == "causal":
            macs //= 2
        if self.subject == "layer":
            macs += 4 * machine.batch * length * (machine.heads * dim) ** 2
        tensor = 4 * heads * length * dim
        matrix = 8 * heads * length**2 if kernel == "standard-explicit" else 0
        shape = f"B{machine.batch}-H{machine.heads}-N{length}-D{dim}"
        layer = "layer/" if self.subject == "layer" else ""
        amounts = {} if self.phase != "decode" else self._of_decode(family, length)
        shape += "" if self.kv_heads is None else f"-KV{self.kv_heads}"
        shape += "" if self.phase != "decode" else f"-Q{self.query_len or 1}"
        theory = {"counted_flops": 2 * macs, "predicted_peak_bytes": tensor + matrix}
        return {
            "schema": 1,
            "key": f"{layer}{kernel}/{mode}/{self.phase}/{machine.device}/{machine.dtype}/{shape}",
            **self._case(kernel, mode, length),
            "family": family,
            "repetition": repetition,
            "flops": 2 * macs,
            "macs": macs,
            "min_bytes": 4 * tensor,
            "peak_bytes": tensor + matrix,
            "peak_rss_bytes": 3 * tensor if machine.device == "cpu" else None,
            **(theory if self.theory else {}),
            **amounts,
        }

    def _of_decode(self, family: str, length: int) -> dict[str, Any]:
        """Keys and values are read, or a state is read and written; both are what is kept."""
        machine, queries = self.machine, self.query_len or 1
        dim, kv_heads = machine.head_dim, self.kv_heads or machine.heads
        size = 4 if machine.dtype == "float32" else 2
        keys = kv_heads * dim
        if family == "standard":
            kept = read = 2 * keys * length * size
            macs = 2 * machine.heads * dim * length * queries
        else:
            kept, macs = 4 * keys * (dim + 1), (keys + machine.heads * (dim + 1)) * dim * queries
            read = 2 * kept
        kept, read, macs = (machine.batch * one for one in (kept, read, macs))
        return {"cache_bytes": kept, "min_bytes": read, "macs": macs, "flops": 2 * macs}


def ceilings(
    machine: Machine, bytes_per_s: float, flops_per_s: float, spread: Sequence[float] = (1.0, 1.0, 1.0)
) -> list[dict[str, Any]]:
    """Rows of a machine's ceilings, to be added to the benchmarks of a run.

    `spread` slows one repetition after the other by a factor.
    """
    rows, side = 2**20, 2048
    shapes = {
        "ceiling-copy": (rows, 64, 0, 2 * rows * 64 * 4),
        "ceiling-matmul": (side, side, side**3, 8 * side**2),
    }
    benchmarks = []
    for kernel, (length, dim, macs, min_bytes) in shapes.items():
        seconds = min_bytes / bytes_per_s if kernel == "ceiling-copy" else 2 * macs / flops_per_s
        for repetition, factor in enumerate(spread, start=1):
            shape = f"B1-H1-N{length}-D{dim}"
            record = {
                "schema": 1, "subject": "ceiling", "kernel": kernel, "family": "ceiling",
                "key": f"{kernel}/bidirectional/forward/{machine.device}/{machine.dtype}/{shape}",
                "mode": "bidirectional", "phase": "forward", "seq_len": length, **vars(machine),
                "batch": 1, "heads": 1, "head_dim": dim, "repetition": repetition,
                "flops": 2 * macs, "macs": macs, "min_bytes": min_bytes, "peak_bytes": 0,
                "peak_rss_bytes": None,
            }  # fmt: skip
            benchmarks.append(benchmark(record, [factor * seconds] * 5))
    return benchmarks


def write_together(path: Path, runs: Sequence[Run], *more: Sequence[Mapping[str, Any]]) -> Path:
    """Write several runs, and further benchmarks, as one file."""
    contents = [run.content() for run in runs]
    merged = dict(contents[0])
    for name in ("benchmarks", "not_measured"):
        merged[name] = [row for content in contents for row in content[name]]
    merged["benchmarks"] += [row for rows in more for row in rows]
    path.write_text(json.dumps(merged))
    return path


def benchmark(record: Mapping[str, Any], data: Sequence[float]) -> dict[str, Any]:
    """One entry of pytest-benchmark's list, with its statistics."""
    low, q1, median, q3, high = np.quantile(data, [0, 0.25, 0.5, 0.75, 1])
    name = f"test_attention[{record['kernel']}-{record['mode']}-N{record['seq_len']}-r{record['repetition']}]"
    return {
        "group": "synthetic",
        "name": name,
        "fullname": f"benchmarks/test_attention.py::{name}",
        "params": None,
        "param": None,
        "extra_info": dict(record),
        "options": {"disable_gc": False, "warmup": False},
        "stats": {
            "min": low, "max": high, "mean": float(np.mean(data)), "stddev": float(np.std(data)),
            "rounds": len(data), "median": median, "q1": q1, "q3": q3, "iterations": 1, "data": list(data),
        },
    }  # fmt: skip


WHOLE = Run({("linear-chunked", "causal"): {64: 1e-3}}, repetitions=1, rounds=1)
"""The least that is a run."""
