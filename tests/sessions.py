"""A session of the suite as its user runs it, in a process of its own, and the JSON it writes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TINY = (
    "--device=cpu",
    "--kernel=standard-explicit",
    "--kernel=linear-explicit",
    "--mode=causal",
    "--seq-len=16,32",
    "--case-seconds=0.001",
    "--repetitions=2",
)


OPERATOR = ("benchmarks/test_attention.py",)


def command(*options: str, files: Sequence[str] = OPERATOR) -> list[str]:
    return [sys.executable, "-m", "pytest", *files, "-p", "no:cacheprovider", *options]


def run(*options: str, files: Sequence[str] = OPERATOR, exit_code: int = 0) -> str:
    done = subprocess.run(
        command(*options, files=files), cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    text = done.stdout + done.stderr
    assert done.returncode == exit_code, text
    return text


def rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [benchmark["extra_info"] for benchmark in document["benchmarks"]]
