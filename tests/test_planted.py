"""The command compare on real runs: planted slowdown and memory are found, equal commits do not differ."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.repository import Repository

LINEAR = "attention/kernels/linear_explicit.py"
CASES = (
    "-k", "test_attention", "--kernel=linear-explicit", "--kernel=linear-chunked", "--mode=bidirectional",
)  # fmt: skip
ON = {
    "cpu": ("--device=cpu", "--seq-len=64,128,256,512", "--repetitions=20", "--case-seconds=0.03"),
    "cuda": ("--device=cuda", "--seq-len=8192,16384,32768,65536", "--repetitions=3", "--case-seconds=0.05"),
}
CONTROL = "linear-chunked"
PLANTED = 0.10
QUIET = PLANTED / 3
MAPPED = "    phi_q, phi_k, values = phi(q.to(wide)), phi(k.to(wide)), v.to(wide)\n"
# Copies in parts take time and no memory.
COPY = "    for part in [*phi_q.chunk(4, dim=2), *phi_k.chunk(4, dim=2)]:\n        part.clone()\n"
OUT = "    out: Tensor = chunked_forward("


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Commits tagged `sound` (unchanged), `slow` (copies in a kernel) and `large` (memory held by it)."""
    repository = Repository(tmp_path_factory.mktemp("planted") / "repository")
    repository.git("tag", "sound")
    repository.edit(LINEAR, MAPPED, MAPPED + COPY)
    repository.commit("copy the inputs")
    repository.git("tag", "slow")
    repository.edit(LINEAR, OUT, f"    spare = torch.empty_like(q)  # noqa: F841\n{OUT}")
    repository.commit("hold a spare")
    repository.git("tag", "large")
    return repository


def compare(
    repository: Repository, base: str, head: str, pairs: int, device: str, output: Path
) -> dict[str, Any]:
    """The comparison of two revisions, with its exit code."""
    revisions = ("--rev", base, "--rev", head, f"--pairs={pairs}", "-o", str(output))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "compare", *revisions, "--format=json", *CASES, *ON[device]],
        cwd=repository.folder,
        # With several threads, other work on the machine would slow each call by its slowest thread.
        env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(output.parent / "cache")},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    print((output / "summary.md").read_text(), done.stderr.splitlines()[-1])
    return {**json.loads(done.stdout), "exit": done.returncode}


def named(rows: Sequence[dict[str, Any]], *verdicts: str) -> set[tuple[str, int]]:
    return {(row["kernel"], row["seq_len"]) for row in rows if row["verdict"] in verdicts}


@pytest.mark.real
def test_compare_finds_a_planted_copy_in_its_kernel_and_in_no_other(
    repository: Repository, device: str, tmp_path: Path
) -> None:
    comparison = compare(repository, "sound", "slow", 6, device, tmp_path / "out")
    assert not named(comparison["cases"], "faster")
    assert comparison["base"]["commits"] == [repository.first]
    slower = named(comparison["cases"], "slower")
    assert {kernel for kernel, _ in slower} <= {"linear-explicit"}
    # The kernel that did not change says how well this machine tells times at the moment.
    width = max(
        math.log(row["high"] / row["low"]) / 2 for row in comparison["cases"] if row["kernel"] == CONTROL
    )
    if not slower and width > QUIET:
        pytest.skip(
            f"too much else runs here to see {PLANTED:.0%}: unchanged cases are known to ±{width:.0%}"
        )
    assert slower and comparison["exit"] == 1 and not comparison["counts"]


@pytest.mark.real
def test_compare_finds_planted_memory_in_its_kernel_and_in_no_other(
    repository: Repository, device: str, tmp_path: Path
) -> None:
    comparison = compare(repository, "slow", "large", 2, device, tmp_path / "out")
    larger = [row for row in comparison["counts"] if row["verdict"] == "larger"]
    assert {(row["kernel"], row["quantity"]) for row in larger} == {(CONTROL, "peak_bytes")}
    assert len(larger) == 4 and comparison["exit"] == 1


@pytest.mark.real
@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_compare_finds_no_change_between_a_commit_and_itself(
    repository: Repository, device: str, tmp_path: Path, attempt: int
) -> None:
    comparison = compare(repository, "sound", "sound", 6, device, tmp_path / "out")
    assert not named(comparison["cases"], "slower", "faster") and comparison["exit"] == 0
    assert not [row for row in comparison["counts"] if row["verdict"] in ("larger", "smaller")]
    (stored,) = (tmp_path / "cache" / "attention-scaling").iterdir()
    assert 0 < json.loads(stored.read_text())["share"] < 1
