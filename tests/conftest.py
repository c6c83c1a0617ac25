"""What the tests share: the devices, dtypes and kernels they run on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attention import list_kernels
from attention.case import DTYPES
from benchmarks.grid import serves
from conftest import chosen, chosen_devices

KERNEL_FIXTURES = {"kernel": None, "linear_kernel": "linear"}
INTERPRETER = pytest.StashKey[subprocess.Popen[str]]()
"""A process of tests/test_triton.py under Triton's interpreter."""


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


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the interpreter's process where a test waits for its end: half a minute, beside the others."""
    waits = any("interpreter" in getattr(item, "fixturenames", ()) for item in session.items)
    if waits and os.environ.get("TRITON_INTERPRET") != "1" and not session.config.option.collectonly:
        command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_triton.py")
        session.config.stash[INTERPRETER] = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "TRITON_INTERPRET": "1"}, cwd=Path(__file__).parent.parent,
        )  # fmt: skip


def pytest_sessionfinish(session: pytest.Session) -> None:
    """It goes with a session that ends early."""
    if INTERPRETER in session.config.stash:
        session.config.stash[INTERPRETER].kill()


@pytest.fixture
def interpreter(request: pytest.FixtureRequest) -> subprocess.Popen[str]:
    return request.config.stash[INTERPRETER]
