"""Wording of numbers, settings, laws and crossovers."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from benchmarks.analysis import wording
from benchmarks.analysis.report.conclusions import PairCrossover
from benchmarks.analysis.report.sentences import joined, law, predicate, short_crossover
from benchmarks.analysis.scaling.crossover import Crossover
from benchmarks.analysis.scaling.forms import Coefficients, Free, Linear, Mixed, Quadratic
from tests.concluded import SETTING

INSIDE = Crossover("inside", 1000, 900, 1100, "contender", (256, 8192), units=3)
BELOW = Crossover("below", ahead_beyond="contender", lengths=(256, 8192), units=3)


def pair(standard: str, found: Crossover, quantity: Literal["time", "peak_bytes"] = "time") -> PairCrossover:
    return PairCrossover("linear-a", standard, SETTING, quantity, found, "firm")


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [
        (20.74e9, 20.1e9, 20.9e9, "20.7 GB/s (20.1 to 20.9)"),
        (808.34e12, 800.51e12, 808.84e12, "808 TB/s (801 to 809)"),
        (999.6e9, 990e9, 1.01e12, "1.00 TB/s (0.990 to 1.01)"),
        (12.0, 11.0, 13.0, "12 B/s (11.0 to 13.0)"),
    ],
)
def test_the_range_of_a_rate_is_rounded_from_its_own_numbers(
    value: float, low: float, high: float, words: str
) -> None:
    assert wording.amount_range(value, low, high, "B/s") == words


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (12.3e-3, 0.41e-3, "12.3 ± 0.41 ms"),
        (12.3e-3, float("nan"), "12.3 ms"),
        (0.99999, 0.002, "1.00 ± 0.0020 s"),
        (0.0, 0.5, "0 ± 0.50 s"),
    ],
)
def test_a_mean_and_its_standard_error_have_one_unit(value: float, error: float, words: str) -> None:
    assert wording.mean(value, error) == words


def test_ticks_have_no_trailing_zeros() -> None:
    assert [wording.seconds_tick(value) for value in (0.03, 1e-6, 100.0)] == ["30 ms", "1 µs", "100 s"]
    assert [wording.amount_tick(value, "B") for value in (3e7, 1.0, 5e3)] == ["30 MB", "1 B", "5 kB"]


@pytest.mark.parametrize(
    ("coefficients", "words"),
    [
        (Linear(47.4e-6, 9.83e-9), "47.4 µs + 9.83 ns · N"),
        (Quadratic(0.0, 9.83e-9), "9.83 ns · N²"),
        (Mixed(1e-6, 1e-9), "1.00 µs · N + 1.00 ns · N²"),
        (Free(1e-3, 1e-9, 1.5), "1.00 ms + 1.00 ns · N^1.50"),
        (Free(1e-3, 0.0, None), "1.00 ms"),
    ],
)
def test_a_law_is_written_with_its_numbers_and_without_zeros(coefficients: Coefficients, words: str) -> None:
    assert law(coefficients.terms) == words


def test_a_setting_is_written_with_its_phase_subject_place_and_machine() -> None:
    layer = replace(SETTING, subject="layer", phase="forward_backward", value_dim=32, machine="machine 2")
    assert wording.what(layer) == "causal forward and backward of the layer"
    assert wording.place(layer) == "A CPU (cpu, machine 2), float32, B1 H8 D64 Dv32, wall clock"
    assert wording.machine(replace(SETTING, device_name="cpu")) == "cpu"


def test_standard_kernels_with_equal_crossovers_share_a_sentence() -> None:
    same = [pair("standard", BELOW), pair("standard-sdpa", BELOW), pair("standard-b", INSIDE)]
    assert joined(map(predicate, same)) == (
        "beats standard and standard-sdpa at every length measured (N = 256 to 8192), "
        "standard-b from N = 1000 [900, 1100]"
    )
    mixed = [pair("standard-a", BELOW), pair("standard-b", replace(BELOW, kind="above"))]
    assert joined(map(predicate, mixed)) == (
        "beats standard-a at every length measured (N = 256 to 8192); "
        "never beats standard-b (N = 256 to 8192)"
    )


def test_a_standard_kernel_ahead_at_the_longest_length_has_a_sentence_of_its_own() -> None:
    several = replace(BELOW, kind="multiple", ahead_beyond="baseline")
    words = joined(predicate(pair(name, several)) for name in ("standard-a", "standard-b"))
    assert "in the end standard-a is ahead" in words and "in the end standard-b is ahead" in words


def test_the_verb_of_a_crossover_of_memory_is_needs_less_memory() -> None:
    assert predicate(pair("standard-a", INSIDE, "peak_bytes")).verb == "needs less memory than"
    assert short_crossover(pair("standard-a", Crossover("none"))) == (
        "linear-a against standard-a: no common length"
    )
