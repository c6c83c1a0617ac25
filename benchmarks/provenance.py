"""Whose times a file holds: the commit of the kernels, which need not be that of the benchmark code."""

from __future__ import annotations

import subprocess
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.utils import get_commit_info

import attention

KERNELS = Path(attention.__file__).resolve().parent
OPTIONS = ("pair", "side")


def add_options(parser: pytest.Parser) -> None:
    """The options that a comparison of revisions gives to its runs."""
    group = parser.getgroup("attention")
    group.addoption(
        "--kernels-from", metavar="DIR", help="Measure the attention/ of this folder, and refuse any other."
    )
    group.addoption("--pair", type=int, metavar="N", help="Recorded: the runs of a pair are compared.")
    group.addoption("--side", choices=("base", "head"), help="Recorded: which side of it this run is.")


def pair_fields(config: pytest.Config) -> dict[str, Any]:
    """What is recorded of a run that is one of a pair."""
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
    with chdir(KERNELS):
        project = config.getoption("benchmark_project_name", None)
        commit_info.update(get_commit_info(project))  # type: ignore[no-untyped-call]
        commit_info["dirty"] |= _has_new_files()


def _has_new_files() -> bool:
    """Whether there are kernels that git does not know yet, which pytest-benchmark does not look for."""
    command = ["git", "ls-files", "--others", "--exclude-standard", "."]
    try:
        return bool(subprocess.run(command, capture_output=True, check=False).stdout.strip())
    except FileNotFoundError:
        return False
