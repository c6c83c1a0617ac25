"""The memory that a case may take, under the limits of containers and of a shell."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from attention import Case
from benchmarks.ledger import Ledger
from benchmarks.machine import memory
from benchmarks.machine.cgroups import groups
from benchmarks.machine.conditions import environment, quota_cores
from benchmarks.machine.memory import MEMORY_RESERVE, Limit, free_bytes, group_limits, memory_limit_bytes
from tests.sessions import ROOT

GIB = 2**30
UNLIMITED = "9223372036854771712\n"
Files = dict[str, str]
Container = Callable[[Files, str], list[Limit]]


@pytest.fixture
def container(tmp_path: Path) -> Container:
    """The limits on a process of this line in /proc/self/cgroup, under a tree of files."""

    def limits(files: Files, line: str) -> list[Limit]:
        for name, text in files.items():
            (tmp_path / "mount" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "mount" / name).write_text(text)
        (tmp_path / "membership").write_text(line)
        return list(group_limits(groups("memory", tmp_path / "mount", tmp_path / "membership")))

    return limits


V1, V2 = "7:cpu,cpuacct:/a/b\n5:memory:/a/b\n1:name=systemd:/\n", "0::/a/b\n"


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"memory.max": f"{2 * GIB}\n", "memory.current": f"{GIB}\n"}, "0::/\n"),
        ({"a/b/memory.max": f"{2 * GIB}", "a/b/memory.current": f"{GIB}", "a/memory.max": "max"}, V2),
        ({"a/memory.max": f"{2 * GIB}", "a/memory.current": f"{GIB}", "a/b/memory.max": "max"}, V2),
        ({"unified/a/memory.max": f"{2 * GIB}", "unified/a/memory.current": f"{GIB}"}, "0::/a"),
        # A container that sees its own group as the root, or one above its own.
        ({"memory.max": f"{2 * GIB}", "memory.current": f"{GIB}"}, "0::/docker/1f/x"),
        ({"x/memory.max": f"{2 * GIB}", "x/memory.current": f"{GIB}"}, "0::/docker/1f/x"),
        ({"memory.max": f"{2 * GIB}", "memory.current": f"{GIB}"}, "0::/../..\n"),
        ({"memory.max": f"{2 * GIB}", "memory.current": f"{GIB}"}, "what is this"),
        ({"memory.max": "max", "memory.high": f"{2 * GIB}", "memory.current": f"{GIB}"}, "0::/"),
        (
            {
                "memory/a/b/memory.limit_in_bytes": f"{2 * GIB}",
                "memory/a/b/memory.usage_in_bytes": f"{GIB}",
                "memory/a/memory.limit_in_bytes": "-1",
            },
            V1,
        ),
        ({"memory/memory.limit_in_bytes": f"{2 * GIB}", "memory/memory.usage_in_bytes": f"{GIB}"}, V1),
    ],
)
def test_the_limit_of_a_container_is_found_in_either_version_wherever_its_group_stands(
    files: Files, line: str, container: Container
) -> None:
    known = [limit for limit in container(files, line) if limit.total >= 0]
    assert min(known) == Limit(2 * GIB, GIB)


def test_each_group_above_limits_all_that_is_below_it(container: Container) -> None:
    files = {
        "a/b/memory.max": f"{8 * GIB}",
        "a/b/memory.current": f"{GIB}",
        "a/memory.max": f"{10 * GIB}",
        "a/memory.current": f"{9 * GIB}",
        "memory.max": f"{100 * GIB}",
        "memory.current": f"{9 * GIB}",
    }
    free = [limit.free for limit in container(files, V2)]
    assert free == [7 * GIB, GIB, 91 * GIB]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"a/b/memory.max": "max\n"},
        {"a/b/memory.max": "gibberish\n"},
        {"a/b/memory.max": ""},
        {"a/b/memory.max/in_the_way": "a folder where a file should be"},
    ],
)
def test_without_a_limit_that_can_be_read_only_the_host_limits(files: Files, container: Container) -> None:
    assert container(files, V2) == []


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (
            {
                "memory.max": f"{4 * GIB}",
                "memory.current": f"{3 * GIB}",
                "memory.stat": f"anon 5\nfile 7\ninactive_file {2 * GIB}\n",
            },
            "0::/",
        ),
        (
            {
                "memory/memory.limit_in_bytes": f"{4 * GIB}",
                "memory/memory.usage_in_bytes": f"{3 * GIB}",
                "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {2 * GIB}\n",
            },
            V1,
        ),
    ],
)
def test_a_cache_of_files_that_the_kernel_would_drop_counts_as_free(
    files: Files, line: str, container: Container
) -> None:
    assert container(files, line) == [Limit(4 * GIB, 3 * GIB)]


def test_the_reserve_is_a_share_of_the_limit_and_not_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "host_memory", lambda: Limit(100 * GIB, 90 * GIB))
    monkeypatch.setattr(memory, "limits", lambda: [Limit(2 * GIB, GIB)])
    assert free_bytes("cpu") == int(GIB - MEMORY_RESERVE * 2 * GIB)
    assert memory_limit_bytes() == 2 * GIB
    # A limit beyond the host's memory, as version 1 writes for none, is no limit.
    monkeypatch.setattr(memory, "limits", lambda: [Limit(int(UNLIMITED), int(UNLIMITED) - GIB)])
    assert free_bytes("cpu") == 80 * GIB
    assert memory_limit_bytes() is None
    # What is used beyond a limit leaves nothing, not less than nothing.
    monkeypatch.setattr(memory, "limits", lambda: [Limit(2 * GIB, -GIB)])
    assert free_bytes("cpu") == 0


def test_a_case_that_the_host_could_hold_is_left_out_of_a_small_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case("standard-explicit", "causal", 8192)  # 4.3 GB
    monkeypatch.setattr(memory, "host_memory", lambda: Limit(24 * GIB, 23 * GIB))
    monkeypatch.setattr(memory, "limits", lambda: [])
    assert Ledger([case]).refuse(case, 10) is None
    monkeypatch.setattr(memory, "limits", lambda: [Limit(2 * GIB, GIB)])
    ledger = Ledger([case])
    assert "predicted to need" in str(ledger.refuse(case, 10))
    assert [row["outcome"] for row in ledger.not_measured()] == ["over_memory"]


def test_the_limit_stands_in_the_facts_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "limits", lambda: [Limit(GIB, GIB)])
    assert environment()["memory_limit_bytes"] == GIB
    monkeypatch.setattr(memory, "limits", lambda: [])
    assert environment()["memory_limit_bytes"] is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no ulimit")
def test_a_limit_of_the_shell_on_the_address_space_limits_a_case() -> None:
    program = (
        "import resource; import psutil;"
        "from benchmarks.machine.memory import free_bytes, memory_limit_bytes;"
        "before = free_bytes('cpu'); used = psutil.Process().memory_info().vms; limit = used + 2**30;"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit));"
        "print(before, free_bytes('cpu'), memory_limit_bytes() == limit)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    before, limited, known = done.stdout.split()
    assert int(limited) <= 2**30 and int(limited) <= int(before)
    assert known == str(psutil.virtual_memory().total > 2**30)


@pytest.mark.parametrize(
    ("files", "line", "cores"),
    [
        (
            {"a/b/cpu.max": "200000 100000\n", "a/cpu.max": "150000 100000\n", "cpu.max": "max 100000"},
            V2,
            1.5,
        ),
        (
            {
                "cpu,cpuacct/a/cpu.cfs_quota_us": "50000",
                "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
                "cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1",
            },
            V1,
            0.5,
        ),
        ({"cpu/a/b/cpu.cfs_quota_us": "50000", "cpu/a/b/cpu.cfs_period_us": "100000"}, V1, 0.5),
        ({"a/b/cpu.max": "nonsense"}, V2, None),
        ({"a/b/cpu.max": "100000 0"}, V2, None),
    ],
)
def test_the_cpu_quota_is_the_least_of_a_group_and_those_above_it(
    files: Files, line: str, cores: float | None, tmp_path: Path, container: Container
) -> None:
    container(files, line)
    assert quota_cores(groups("cpu", tmp_path / "mount", tmp_path / "membership")) == cores
