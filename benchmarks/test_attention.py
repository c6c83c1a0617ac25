"""The attention operator alone: every kernel, mode, phase and length of the grid."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from attention import Case
from benchmarks.apart import Measuring


@pytest.mark.subject("operator")
def test_attention(benchmark: BenchmarkFixture, measuring: Measuring, case: Case, repetition: int) -> None:
    """One case, measured in one repetition of the grid."""
    measuring.measure(benchmark, case, repetition)
