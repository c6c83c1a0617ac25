"""What the tests share: the devices, dtypes and kernels they run on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from attention import list_kernels
from attention.case import DTYPES
from benchmarks.grid import serves
from conftest import chosen, chosen_devices

KERNEL_FIXTURES = {"kernel": None, "linear_kernel": "linear"}
HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """All tests together run in two processes, a file in one: not if they are watched, nor to share a GPU."""
    option, asked = config.option, [Path(argument).resolve() for argument in config.args]
    watched = option.collectonly or option.usepdb or option.capture == "no"
    undivided = option.numprocesses is None and not hasattr(config, "workerinput")
    if asked == [HERE] and undivided and not watched and option.device in (None, "cpu"):
        option.numprocesses, option.dist = 2, "loadfile"
        option.benchmark_disable = True  # as it is then, but without a warning


def pytest_configure() -> None:
    """Sessions that tests start are not of such a process: pytest-benchmark would measure nothing in them."""
    os.environ.pop("PYTEST_XDIST_WORKER", None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``device``, ``dtype`` and kernels that have anything to do on the device.

    The kernels that refuse a device altogether are left to the tests of refusals.
    """
    devices = chosen_devices(metafunc.config) or ["cpu"]
    for fixture, family in KERNEL_FIXTURES.items():
        if fixture in metafunc.fixturenames:
            pairs = [(d, name) for d in devices for name in list_kernels(family) if serves(name, d)]
            metafunc.parametrize(("device", fixture), pairs)
            break
    else:
        if "device" in metafunc.fixturenames:
            metafunc.parametrize("device", devices)
    if "dtype" in metafunc.fixturenames:
        metafunc.parametrize("dtype", chosen(metafunc.config, "dtype", list(DTYPES)) or list(DTYPES))


@pytest.fixture
def one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    """For tensors too tiny to share, beside processes with which threads would share a core, spinning.

    linear-native keeps its threads, by which it cuts a sequence.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(threads if "linear-native" in request.node.name else 1)
    yield
    torch.set_num_threads(threads)
