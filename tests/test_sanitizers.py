"""The C++ of kernels under the sanitizers of addresses and of undefined behaviour."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.misfits import MISFITS

SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=undefined"


def runtime() -> list[str]:
    """The libraries of g++'s sanitizers, to be loaded before Python; empty where it has none."""
    if not shutil.which("g++"):
        return []
    asked = (["g++", f"-print-file-name={name}"] for name in ("libasan.so", "libubsan.so"))
    found = [subprocess.run(command, capture_output=True, text=True).stdout.strip() for command in asked]
    return found if all(map(os.path.isabs, found)) else []


@pytest.mark.slow
def test_no_sanitizer_reports_a_kernel_in_cpp_on_odd_shapes_and_strides(tmp_path: Path) -> None:
    """Every tensor is an allocation of its own, so that a read or write beside it is seen."""
    preload = runtime()
    if not preload:
        pytest.skip("g++ has no sanitizers here; install libasan and libubsan of its version")
    done = subprocess.run(
        [sys.executable, "-m", "tests.sanitized"],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True,
        env={
            **os.environ, "CXX": f"g++ {SANITIZE}", "LD_PRELOAD": " ".join(preload),
            "ASAN_OPTIONS": "detect_leaks=0", "XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "3",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert "runtime error" not in done.stderr and "AddressSanitizer" not in done.stderr, done.stderr
    calls, refused = map(int, done.stdout.split())
    assert calls > 500 and refused == 4 * len(MISFITS)
