"""The ceilings of the device: copy bandwidth and matrix rate, measured in the run that they judge."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from attention import Case
from benchmarks.apart import Measuring


@pytest.mark.subject("ceiling")
def test_ceiling(benchmark: BenchmarkFixture, measuring: Measuring, case: Case, repetition: int) -> None:
    """One ceiling of one device and dtype, in one repetition."""
    measuring.measure(benchmark, case, repetition)
