"""A plugin for sessions: a counter by which the device draws 50 W, whatever it does, updated every 5 ms."""

from __future__ import annotations

from time import perf_counter

import pytest

from attention.profiler import energy

WATTS, UPDATE_S = 50.0, 0.005


def pytest_configure() -> None:
    """Put the counter in the place of that of the machine."""
    pytest.MonkeyPatch().setattr(energy, "find_counter", lambda device: read)


def read() -> float:
    """Joules."""
    return WATTS * (perf_counter() // UPDATE_S * UPDATE_S)
