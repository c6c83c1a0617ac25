"""The options of a session that measures functions of a user's own, and what they choose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from attention import Case, get_kernel
from attention.kernels.registry import CLAIMS
from benchmarks.analysis.reading.fields import BASELINES
from benchmarks.grid import foreign_kernels, select_kernels
from benchmarks.own.functions import OwnKernelError, register_own


def add_own_options(parser: pytest.Parser) -> None:
    """The options that name functions, what they are called, compute, and are compared with."""
    add = parser.getgroup("attention").addoption
    add(
        "--kernel-from",
        action="append",
        default=[],
        metavar="FILE:FUNCTION",
        help="Measure a function of your own: my.py:my_attention or a module:function; repeatable.",
    )
    add(
        "--name",
        action="append",
        default=[],
        metavar="NAME",
        help="Name of the kernel that --kernel-from makes; repeatable. Default: the function's.",
    )
    add(
        "--reference",
        metavar="FILE:FUNCTION",
        help="What the functions of --kernel-from compute: an oracle of yours (float64 inputs), one out of "
        f"{', '.join(CLAIMS)}, or none. Default: it is found out.",
    )
    add(
        "--against",
        action="append",
        metavar="PATTERN",
        help="Kernels that the others are compared with, as a shell pattern; repeatable. "
        "Default: 'standard-*'.",
    )
    add("--kernel-path", metavar="DIR", help="Where --kernel-from looks first. Default: the current folder.")


def own_kernels(config: pytest.Config) -> list[str]:
    """Register the functions that the options name, and return the names of their kernels.

    Raises:
        pytest.UsageError: One cannot be registered.
    """
    get = config.getoption
    if (get("name") or get("reference")) and not get("kernel_from"):
        raise pytest.UsageError(
            "--name and --reference speak of a function that --kernel-from names; name it"
        )
    folder = Path(get("kernel_path") or config.invocation_params.dir)
    try:
        return register_own(get("kernel_from"), get("name"), get("reference"), folder)
    except OwnKernelError as error:
        raise pytest.UsageError(f"--kernel-from {error}") from None


def measured_own(cases: Iterable[Case]) -> list[str]:
    """The kernels of a user's own among cases, in the order in which they were registered."""
    measured = {case.kernel for case in cases}
    return [kernel for kernel in foreign_kernels() if kernel in measured]


def own_options(config: pytest.Config) -> list[str]:
    """The options by which another session measures the same functions."""
    given = {name: config.getoption(name) or [] for name in ("kernel_from", "name", "reference", "against")}
    return [
        f"--{name.replace('_', '-')}={word}"
        for name, words in given.items()
        for word in ([words] if isinstance(words, str) else words)
    ]


def baselines(config: pytest.Config) -> list[str]:
    """The patterns of the kernels that others are compared with.

    Raises:
        pytest.UsageError: A pattern that matches no kernel.
    """
    patterns: list[str] | None = config.getoption("against")
    try:
        select_kernels(patterns or (), "--against")
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    return patterns or list(BASELINES)


def in_modes_of(own: Sequence[str], cases: Sequence[Case]) -> list[Case]:
    """The cases in the modes that at least one of a user's own kernels has."""
    ours = [case for case in cases if case.kernel in own]
    served = {case.mode for case in ours if not get_kernel(case.kernel).supports(case)}
    return [case for case in cases if not served or case.mode in served]
