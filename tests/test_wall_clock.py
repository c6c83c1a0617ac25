"""Exponents and ratios of wall-clock time, in a range where overhead and caches matter little."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest

from attention import Case
from benchmarks.subjects import prepare

pytestmark = pytest.mark.usefixtures("one_thread")  # another process may have the other core


def seconds_of(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def exponent(case: Case, seq_lens: Sequence[int], repetitions: int = 7) -> float:
    """The slope of log time over log N, from the medians of interleaved repetitions."""
    calls = [prepare(replace(case, seq_len=n)) for n in seq_lens]
    for call in calls:
        call()
    times = [[seconds_of(call) for call in calls] for _ in range(repetitions)]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    return float(np.polyfit(np.log(seq_lens), np.log(medians), 1)[0])


@pytest.mark.parametrize("mode", ["causal", pytest.param("bidirectional", marks=pytest.mark.slow)])
def test_the_exponent_of_time_is_two_for_standard_explicit_and_one_for_linear_chunked(mode: str) -> None:
    """Bounds leave room for caches and other processes, and three tries for stalls."""
    for _ in range(3):
        quadratic = exponent(Case("standard-explicit", mode, 0, heads=2), (512, 1024, 2048))
        linear = exponent(Case("linear-chunked", mode, 0, heads=2), (4096, 8192, 16384))
        if 1.6 < quadratic < 2.6 and 0.7 < linear < 1.3:
            break
    assert 1.6 < quadratic < 2.6
    assert 0.7 < linear < 1.3


@pytest.mark.slow
def test_linear_chunked_takes_at_most_a_fortieth_of_the_textbook_causal_form() -> None:
    """Both forms are timed in turns at B1 H4 N8192 D64 in float32, with three tries for stalls.

    Of more heads both take longer in proportion, and less of the time of linear-chunked is overhead.
    """
    textbook, chunked = (
        prepare(Case(f"linear-{backend}", "causal", 8192, heads=4)) for backend in ("explicit", "chunked")
    )
    chunked()

    def ratio() -> float:
        return seconds_of(textbook) / min(seconds_of(chunked) for _ in range(3))

    assert any(ratio() > 40 for _ in range(3))
