"""Synthetic runs of ranks that share a sequence, of known laws, written as a session writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.synthetic import Machine, Run

LINEAR, STANDARD = "linear-sequence-parallel", "standard-context-parallel"
LENGTHS = (2**14, 2**15, 2**16, 2**17, 2**18)
CARD = Machine("cuda", "Synthetic Card", "bfloat16", "wall", 1, 32, 128)
KV_HEADS = 8
EXCHANGE_S = 30e-6
"""Seconds of any exchange of states."""


def linear_seconds(tokens: int, ranks: int) -> float:
    """Twenty microseconds, a share of the work, and an exchange where there are others."""
    return 20e-6 + 1e-8 * tokens / ranks + (EXCHANGE_S if ranks > 1 else 0.0)


def standard_seconds(tokens: int, ranks: int) -> float:
    """Twenty microseconds, a share of work that grows like N^2, and a nanosecond for each token of others."""
    return 20e-6 + 4e-13 * tokens**2 / ranks + 1e-9 * tokens * (ranks - 1) / ranks


SECONDS: Mapping[str, Callable[[int, int], float]] = {LINEAR: linear_seconds, STANDARD: standard_seconds}


def received(kernel: str, tokens: int, ranks: int) -> int:
    """Bytes that a rank receives, forward and causal."""
    if kernel == LINEAR:
        return (ranks - 1) * KV_HEADS * 128 * 129 * 4
    return (ranks - 1) * 2 * KV_HEADS * tokens // ranks * 128 * 2


def write_session(
    folder: Path, ranks: int, lengths: Sequence[int] = LENGTHS, kernels: Sequence[str] = tuple(SECONDS)
) -> Path:
    """A session at so many ranks, three repetitions, causal forward."""
    laws = {(name, "causal"): {n: SECONDS[name](n, ranks) for n in lengths} for name in kernels}
    content = Run(laws, machine=CARD, kv_heads=KV_HEADS, seed=ranks).content()
    for benchmark in content["benchmarks"]:
        info = benchmark["extra_info"]
        amount = received(info["kernel"], info["seq_len"], ranks)
        info |= {
            "ranks": ranks, "backend": "nccl", "parallelism": "strong", "exchanged_bytes": amount,
            "predicted_exchanged_bytes": amount, "exposed_s": EXCHANGE_S if ranks > 1 else 0.0,
        }  # fmt: skip
        info["key"] += f"-P{ranks}" if ranks > 1 else ""
    path = folder / f"ranks-{ranks}-001.json"
    path.write_text(json.dumps(content))
    return path
