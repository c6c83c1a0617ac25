"""What the tests share: the devices, dtypes and kernels they run on."""

from __future__ import annotations

import pytest

from attention import list_kernels
from attention.case import DTYPES
from benchmarks.grid import serves
from conftest import chosen, chosen_devices

KERNEL_FIXTURES = {"kernel": None, "linear_kernel": "linear"}


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
