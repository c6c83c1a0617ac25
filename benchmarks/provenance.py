"""The origin of a file's times: the commit of the kernels, not of the benchmark code, and the machine."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.utils import get_commit_info

import attention
from benchmarks.analysis.reading.machines import Machine, differences
from benchmarks.machine.cards import FACTS, find_card

RUN: pytest.StashKey[dict[str, Any]] = pytest.StashKey()
"""The facts that a run records about itself."""

KERNELS = Path(attention.__file__).resolve().parent
OPTIONS = ("pair", "side")


def add_options(parser: pytest.Parser) -> None:
    """The options that a comparison of revisions gives to its runs."""
    group = parser.getgroup("attention")
    group.addoption(
        "--kernels-from", metavar="DIR", help="Measure the attention/ of this folder, and refuse any other."
    )
    group.addoption("--commit-of", metavar="DIR", help="Record the commit of this folder, not of attention/.")
    group.addoption("--pair", type=int, metavar="N", help="Recorded: the runs of a pair are compared.")
    group.addoption("--side", choices=("base", "head"), help="Recorded: which side of it this run is.")


def pair_fields(config: pytest.Config) -> dict[str, Any]:
    """The fields that a run of a pair records."""
    given = {name: config.getoption(name) for name in OPTIONS}
    return {name: value for name, value in given.items() if value is not None}


def refuse_other_kernels(config: pytest.Config) -> None:
    """The right folder being on the path is not enough: an installation could come first.

    Raises:
        pytest.UsageError: `attention` was not imported from where `--kernels-from` says.
    """
    wanted = config.getoption("kernels_from")
    if wanted is not None and KERNELS.parent != Path(wanted).resolve():
        raise pytest.UsageError(
            f"--kernels-from {wanted} was asked for, but attention was imported from {KERNELS.parent}; "
            "put the folder first on PYTHONPATH, and run from a folder that has no attention/ of its own"
        )


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict[str, Any]) -> None:
    """pytest-benchmark asks the working folder, which need not be where the kernels come from."""
    project = config.getoption("benchmark_project_name", None)
    commit_info.update(commit_of(config.getoption("commit_of") or KERNELS, project))


def identify(machine_info: dict[str, Any], devices: Mapping[str, str]) -> None:
    """Leave in pytest-benchmark's facts what tells a machine from another, and add the models of its devices.

    pytest-benchmark warns where any of them differs, but neither the clock of this instant, which stands in
    for the advertised one where the model does not name it, nor a container's name is the machine's.
    """
    for clock in ("hz_actual", "hz_actual_friendly", "hz_advertised", "hz_advertised_friendly"):
        machine_info["cpu"].pop(clock, None)
    machine_info.pop("node", None)
    machine_info["devices"] = dict(devices)


def commit_of(folder: Path | str, project: str | None = None) -> dict[str, Any]:
    """The commit of a folder as pytest-benchmark records it; kernels new to git make it dirty."""
    with chdir(folder):
        found: dict[str, Any] = get_commit_info(project)  # type: ignore[no-untyped-call]
        found["dirty"] |= _has_new_files()
    return found


def _has_new_files() -> bool:
    """Whether there are kernels that git does not know yet, which pytest-benchmark does not look for."""
    command = ["git", "ls-files", "--others", "--exclude-standard", "."]
    try:
        return bool(subprocess.run(command, capture_output=True, check=False).stdout.strip())
    except FileNotFoundError:
        return False


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_compare_machine_info(
    config: pytest.Config,
    benchmarksession: Any,
    machine_info: dict[str, Any],
    compared_benchmark: dict[str, Any],
) -> None:
    """Warn of a saved run from another machine: another by what decides times, not by any detail."""
    card = find_card()(FACTS) if torch.cuda.is_available() else {}
    run: dict[str, Any] = config.stash[RUN]
    now = {"machine_info": machine_info, "run": {**run, **card}}
    found = differences(Machine.of(compared_benchmark), Machine.of(now))
    if found:
        benchmarksession.logger.warning(
            f"The saved run is of another machine ({'; '.join(found)}), so the comparison says nothing "
            "about the code."
        )
    # pytest-benchmark's own comparison comes after this one, and finds nothing left to warn of.
    compared_benchmark["machine_info"] = machine_info
