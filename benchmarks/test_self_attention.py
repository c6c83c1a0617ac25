"""The profiling experiment: a whole self-attention layer, d_model 512, 8 heads, four decades of lengths.

Standard and linear attention, 20 rounds, every device present; the suite's options choose otherwise.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from attention import Case
from benchmarks.apart import Measuring


@pytest.mark.subject("layer")
def test_self_attention(
    benchmark: BenchmarkFixture, measuring: Measuring, case: Case, repetition: int
) -> None:
    """One length of one kernel inside the layer, in one repetition."""
    measuring.measure(benchmark, case, repetition)
