"""The bend of a sliding window: found in times of such a law with its interval, and in no others.

Every test of rates prints them: `pytest tests/test_bends.py -s`; with `-m table` those under every
noise, which the README of scaling shows, and with `-m slow` those of fewer draws.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.analysis.reading.records import load
from benchmarks.analysis.report.cases import case_table
from benchmarks.analysis.report.pictures.theory import law_of_theory, theory_picture
from benchmarks.analysis.report.pictures.views import views
from benchmarks.analysis.report.summary import summarise
from benchmarks.analysis.scaling.bends import Bend, counted_law, fit_bent, log_scores
from benchmarks.analysis.scaling.exponent import estimate_exponent
from benchmarks.analysis.scaling.fitted import compare_laws
from benchmarks.analysis.scaling.laws import LAWS
from tests.concluded import conclude, console, find
from tests.noise import ALL, CALM, NOISES, Unrest
from tests.sampling import FILES, RUNS, SHORT_RUNS, Sample, drawn
from tests.synthetic import DOUBLINGS, Law, Noise, Run
from tests.test_coverage import assert_rate, lies_within
from tests.test_decisions import BENT, POWERS
from tests.test_scaling import table

SAMPLES = (RUNS[0], SHORT_RUNS, FILES[1])
DRAWS = [20, pytest.param(100, marks=pytest.mark.slow)]
"""Draws of each sample: few bound a rate loosely, by the standard error of theirs."""
LONG = tuple(2**power for power in range(8, 15))


@dataclass(frozen=True)
class Window(Law):
    """overhead + coefficient · N² / 2 up to the window, and linear beyond: `power` is not asked."""

    window: int = 1024

    def __call__(self, length: int) -> float:
        """Seconds at this length."""
        seen = min(length, self.window)
        return self.overhead + self.coefficient * seen * (length - seen / 2)


@dataclass(frozen=True)
class ThreeTerms(Law):
    """overhead + linear · N + coefficient · N²."""

    linear: float = 1e-6

    def __call__(self, length: int) -> float:
        """Seconds at this length."""
        return super().__call__(length) + self.linear * length


BENDING = {
    "w = 1024": Window(2e-9, 2),
    "w = 1024 beside c": Window(2e-9, 2, 1e-4),
    "w = 700": Window(2e-9, 2, 2e-5, window=700),
    "w = 2048": Window(2e-9, 2, 2e-4, window=2048),
}
STRAIGHT = {
    **POWERS,
    **{name: law for name, (law, _) in BENT.items()},
    "c + aN + bN², even at N = 1000": ThreeTerms(1e-9, 2, 1e-4),
    "c + aN + bN², c of 1 ms": ThreeTerms(1e-9, 2, 1e-3),
}


def bend_of(times: pd.DataFrame, unseen: float = 0.0, flops: pd.Series | None = None) -> Bend | None:
    found = compare_laws(times, unseen, flops)[0].bent
    return None if found is None else found.bends_at


def bends(law: Law, unrest: Unrest, sample: Sample, draws: int) -> list[Bend]:
    """The bends that the times of a law show in these draws; none for a draw without."""
    found = [bend_of(one, sample.unseen) for one in drawn((law,), unrest, sample, draws)[0]]
    return [one for one in found if one is not None]


def held(found: Sequence[Bend], window: int) -> float:
    """The share of the intervals that hold the window."""
    return float(np.mean([one.low <= window <= one.high for one in found if one.low and one.high]))


def scores(window: int, lengths: Sequence[int]) -> pd.Series:
    """Scores that a window sees."""
    seen = {n: min(n, window) * (min(n, window) + 1) // 2 + max(0, n - window) * window for n in lengths}
    return pd.Series(seen, dtype=float)


# Without noise


@pytest.mark.parametrize("window", [600, 1024, 1500, 4000])
@pytest.mark.parametrize("constant", [0.0, 1e-5, 1e-3])
def test_a_fit_of_the_bent_law_finds_its_coefficients(window: int, constant: float) -> None:
    law = Window(2e-9, 2, constant, window)
    lengths = np.array(LONG, dtype=float)
    fit, bend = fit_bent(lengths, np.array([law(n) for n in LONG]))
    assert bend == pytest.approx(window, rel=1e-4)
    assert fit.a == pytest.approx(2e-9, rel=1e-4)
    assert fit.c == pytest.approx(constant, rel=1e-3, abs=1e-4 * law(256))
    assert fit.error < 1e-5


def test_the_law_is_smooth_in_the_length_and_in_the_bend() -> None:
    for bend in (999.0, 1000.0, 1001.0):
        around = log_scores(np.array([999.0, 1000.0, 1001.0]), bend)
        assert np.diff(around) == pytest.approx(2e-3, rel=2e-3)
    beyond = [log_scores(np.array([1000.0]), bend)[0] for bend in (1000.0, 1000.1)]
    assert beyond[1] - beyond[0] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("window", [700, 1024, 2048])
def test_a_bend_inside_the_lengths_is_told_by_times_and_by_flops(window: int) -> None:
    times = table(Window(2e-9, 2, 1e-5, window), 0.01, 5, lengths=LONG)
    laws, best = compare_laws(times, flops=scores(window, LONG))
    assert best == "bent" and laws.counted == "bent" and laws.bent is not None
    found = laws.bent.bends_at
    assert found.kind == "inside" and found.counted_n == pytest.approx(window, rel=1e-9)
    assert found.low is not None and found.high is not None and found.n is not None
    assert found.low <= found.n <= found.high < 1.2 * found.low
    assert laws.bent.tenable and laws.bent.coefficients.bend == found.n
    expected = times.mean().to_numpy()
    assert laws.bent.coefficients.seconds(np.array(LONG)) == pytest.approx(expected, rel=0.03)


def test_a_bend_outside_of_the_lengths_is_said_and_not_invented() -> None:
    lengths = LONG[2:]
    after = bend_of(table(Window(2e-9, 2, window=100), 0.005, 5, lengths=lengths), 0, scores(100, lengths))
    assert after == Bend("below", None, None, None, pytest.approx(100))  # type: ignore[arg-type]
    before, best = compare_laws(table(Window(2e-9, 2, window=10**6)), 0, scores(10**6, DOUBLINGS))
    assert before.bent is None and before.counted == "quadratic" and best == "quadratic"
    # Between the two shortest lengths, one alone tells of N²: that is too little.
    first = bend_of(table(Window(2e-9, 2, window=400), 0.01, 5), 0, scores(400, DOUBLINGS))
    assert first is not None and (first.kind, first.n) == ("untold", None)


@pytest.mark.parametrize("units", [1, 2])
def test_few_units_tell_of_no_bend_or_of_a_wide_one(units: int) -> None:
    found = bend_of(table(Window(2e-9, 2), 0.02, units, lengths=LONG))
    assert found is None or (units == 2 and found.low is not None and found.high is not None)
    assert units == 2 or found is None


def test_the_law_of_counts_is_the_simplest_that_they_follow() -> None:
    lengths = np.array(LONG, dtype=float)
    for name, counts in {
        "linear": 3 * lengths + 5,
        "quadratic": lengths * (lengths + 1) / 2,
        "mixed": lengths**2 + 700 * lengths,
        "bent": scores(1000, LONG).to_numpy(),
    }.items():
        assert counted_law(lengths, counts)[0] == name
    assert counted_law(lengths, lengths**1.5) == (None, None)
    assert counted_law(lengths, np.where(lengths > 300, np.nan, lengths)) == (None, None)


# With noise


@pytest.mark.parametrize("unrest", [CALM, ALL], ids=["calm", "all noises"])
@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize("law", BENDING)
def test_the_interval_of_a_bend_covers_at_its_confidence(law: str, draws: int, unrest: Unrest) -> None:
    window = BENDING[law].window
    found = [one for sample in SAMPLES for one in bends(BENDING[law], unrest, sample, draws)]
    assert_rate(held(found, window), 0.93, 1, len(found), f"bend, {law}")
    if unrest is CALM:
        asked = draws * len(SAMPLES)
        assert_rate(len(found) / asked, 0.95, 1, asked, f"bend found, {law}")


@pytest.mark.parametrize("law", STRAIGHT)
def test_no_bend_is_found_in_times_of_another_law(law: str) -> None:
    false, asked = sum(len(bends(STRAIGHT[law], ALL, sample, 20)) for sample in SAMPLES), 60
    assert_rate(false / asked, 0, 0.01, asked, f"bend found in {law}")


@pytest.mark.parametrize("draws", [10, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("law", POWERS)
def test_a_bent_law_beside_them_changes_nothing_that_is_said_of_the_others(law: str, draws: int) -> None:
    for times in drawn((POWERS[law],), ALL, RUNS[0], draws)[0]:
        laws, best = compare_laws(times)
        assert set(laws.known) == set(LAWS) and best in LAWS
        with_flops = compare_laws(times, flops=pd.Series(np.square(DOUBLINGS, dtype=float), DOUBLINGS))
        assert with_flops[1] == best and with_flops[0].known == laws.known


def test_a_window_is_never_called_quadratic_where_it_bent_long_ago() -> None:
    wrong = [
        estimate_exponent(times).verdict in ("quadratic", "like quadratic")
        for sample in SAMPLES
        for times in drawn((Window(2e-9, 2, window=512),), ALL, sample, 100)[0]
    ]
    assert_rate(float(np.mean(wrong)), 0, 0.01, len(wrong), "N called N² beyond a bend")


@pytest.mark.parametrize(
    "draws", [pytest.param(20, marks=pytest.mark.slow), pytest.param(50, marks=pytest.mark.table)]
)
def test_rates_of_bends_under_every_noise(draws: int) -> None:
    """The table of bends in the README of scaling is printed."""
    print("\n| law | found: " + " | ".join(map(str, SAMPLES)) + " | held | false |\n|---|" + "---|" * 5)
    misses = []
    for name, law in BENDING.items():
        found = [[bends(law, unrest, one, draws) for unrest in NOISES.values()] for one in SAMPLES]
        cells = [f"{np.mean([len(some) / draws for some in ours]):.0%}" for ours in found]
        every = [one for ours in found for some in ours for one in some]
        print(f"| {name} | {' | '.join(cells)} | {held(every, law.window):.1%} | |", flush=True)
        misses += [name] if not lies_within(held(every, law.window), 0.94, 1, len(every)) else []
    for name, other in STRAIGHT.items():
        false = np.array([[len(bends(other, u, one, draws)) for one in SAMPLES] for u in NOISES.values()])
        print(f"| {name} | | | | | {false.max() / draws:.1%} |", flush=True)
        each = draws * len(SAMPLES)
        bounded = lies_within(false.sum(axis=1).max() / each, 0, 0.01, each)
        bounded &= lies_within(false.sum() / (each * len(false)), 0, 0.01, each * len(false))
        misses += [] if bounded else [name]
    assert not misses


# In a report


def windowed(lengths: Sequence[int] = LONG) -> Run:
    """A window of 1024 beside a standard and a linear kernel."""
    laws: dict[tuple[str, str], Any] = {
        ("window-sdpa", "causal"): Window(2e-9, 2, 1e-5),
        ("standard-sdpa", "causal"): Law(1.2e-9, 2),
        ("linear-chunked", "causal"): Law(1.6e-6, 1),
    }
    return Run(laws, lengths, noise=Noise(0.005, 0.005, 0.01))


def with_scores(run: Run, path: Path) -> Path:
    """The file of a run whose window has the FLOPs of its scores."""
    content = run.content()
    for one in content["benchmarks"]:
        info = one["extra_info"]
        if info["family"] == "window":
            seen = scores(1024, run.lengths)[info["seq_len"]]
            info["macs"] = int(8 * 128 * seen)
            info["flops"] = 2 * info["macs"]
    path.write_text(json.dumps(content))
    return path


def test_a_report_tells_where_a_window_bends(tmp_path: Path) -> None:
    path = with_scores(windowed(), tmp_path / "out.json")
    series = find(conclude(path)["series"], kernel="window-sdpa")
    bent = series["laws"]["bent"]
    assert bent["bends_at"]["kind"] == "inside" and bent["bends_at"]["counted_n"] == pytest.approx(1024)
    assert bent["bends_at"]["low"] <= 1024 <= bent["bends_at"]["high"]
    assert series["laws"]["counted"] == series["best_law"] == "bent" and bent["tenable"]
    for name in ("standard-sdpa", "linear-chunked"):
        other = find(conclude(path)["series"], kernel=name)
        assert other["laws"]["bent"] is None and other["laws"]["counted"] == other["exponent"]["verdict"]
    text = " ".join(console(path).split())
    assert "time grows like N² up to N = 1008 [963, 1055] and like N beyond; FLOPs bend at N = 1024." in text
    assert "and like N beyond; FLOPs bend at N = 1024" in text


def test_a_report_says_that_every_length_lies_on_one_side_of_a_bend(tmp_path: Path) -> None:
    beyond = " ".join(console(with_scores(windowed(LONG[3:]), tmp_path / "beyond.json")).split())
    assert "FLOPs bend at N = 1024, before every length measured" in beyond
    within = " ".join(console(with_scores(windowed((64, 128, 256, 512)), tmp_path / "within.json")).split())
    assert "no length measured is beyond the window" in within
    assert "time grows like N² up to" not in beyond + within


def test_the_picture_of_theory_draws_the_law_that_the_flops_follow(tmp_path: Path) -> None:
    records = load([with_scores(windowed(), tmp_path / "out.json")])
    summary = summarise(records)
    laws = {one.kernel: one.laws for one in summary.series}
    drawn_laws = {one.kernel: law_of_theory(one) for one in summary.series}
    assert drawn_laws["window-sdpa"] is laws["window-sdpa"].bent
    assert drawn_laws["standard-sdpa"] is laws["standard-sdpa"].quadratic
    assert drawn_laws["linear-chunked"] is laws["linear-chunked"].linear
    ((_, view),) = views(summary, case_table(records))
    figure = theory_picture(view)
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    words = " ".join(text.get_text() for text in legend.get_texts())
    assert "window-sdpa" in words and "linear beyond" in words
    bent = laws["window-sdpa"].bent
    assert bent is not None
    curves = [line.get_ydata() for line in axes.lines if len(np.asarray(line.get_xdata())) == 200]
    expected = bent.coefficients.seconds(np.geomspace(LONG[0], LONG[-1], 200))
    assert any(np.allclose(np.asarray(curve), expected) for curve in curves)
    assert math.isclose(expected[-1], Window(2e-9, 2, 1e-5)(LONG[-1]), rel_tol=0.05)
