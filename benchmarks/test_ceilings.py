"""The ceilings of the device: copy bandwidth and matrix rate, measured in the run that they judge."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from attention import Case
from benchmarks.measure import Measurer


@pytest.mark.subject("ceiling")
def test_ceiling(benchmark: BenchmarkFixture, measurer: Measurer, case: Case, repetition: int) -> None:
    """One ceiling of one device and dtype, in one repetition."""
    measurer.measure(benchmark, case, repetition)
