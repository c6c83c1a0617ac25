"""The live line of a session: how well it tells what is left, and that it spoils nothing else."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from attention import Case
from benchmarks.closing import asks_for_table
from benchmarks.forecast import CALLS, Forecast, Kind, Visit
from benchmarks.grid import schedule, series_of
from benchmarks.ledger import Ledger
from benchmarks.measure import Measurer
from benchmarks.progress import Progress, clock_words, forecast_of
from tests.sessions import TINY, command

LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
SECONDS = {
    "standard-explicit": (3e-8, 2),
    "standard-sdpa": (6e-9, 2),
    "linear-native": (1e-6, 1),
    "linear-explicit": (3e-6, 1),
}
"""The coefficient and the power of the time of a call of each kernel."""
BESIDE: dict[str, dict[Kind, float]] = {
    "much again": {"first": 0.9, "new": 0.35, "again": 0.25},
    "much once": {"first": 2.5, "new": 1.0, "again": 0.2},
}
"""Seconds beside the calls, of each kind of visit, on two machines."""
CASES = [Case(kernel, mode, n) for kernel, mode, n in product(SECONDS, ("causal", "bidirectional"), LENGTHS)]


def simulated(repetitions: int, seed: int, beside: dict[Kind, float]) -> Iterator[tuple[Forecast, float]]:
    """A session whose visits take random times; yields its forecast and the true time left before each."""
    ledger = Ledger(CASES)
    ledger.selected = {case.key for case in CASES}
    measurer = Measurer(ledger, "device", repetitions, {"layer": 20}, None, 0.3, 2.0)
    visits = [Visit(*one) for one in schedule(CASES, repetitions, seed)]
    random, forecast = np.random.default_rng(seed), forecast_of(visits, measurer)
    seen, durations, known = set[Case](), list[tuple[float, float]](), list[tuple[Case, float | None]]()
    for case, repetition in visits:
        coefficient, power = SECONDS[case.kernel]
        call = coefficient * case.seq_len**power
        if call > measurer.round_seconds:
            durations.append((0.01, 0.0))
            known.append((case, None))
            continue
        kind: Kind = "again" if case in seen else "new" if series_of(case) in seen else "first"
        seen |= {case, series_of(case)}
        # More calls than the forecast takes for granted, and the scatter of a shared machine.
        scatter = float(np.exp(random.normal(0, 0.3)))
        again = beside["again"] + call * (
            1.2 * CALLS["again"] + measurer.planned_rounds(case, call, repetition)
        )
        once = beside[kind] - beside["again"] + 1.2 * call * (CALLS[kind] - CALLS["again"])
        durations.append(((again + once) * scatter, once * scatter))
        known.append((case, call))
    for place, (case, call) in enumerate(known):
        yield forecast, sum(seconds for seconds, _ in durations[place:])
        if call is None:
            ledger.leave_out(case, "over_time", "predicted")
        else:
            ledger.learn_seconds(case, call)
            ledger.measured.add(case.key)
        forecast.finish(*durations[place])


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("repetitions", [1, 2, 6])
def test_at_half_of_the_time_the_forecast_is_right_to_a_quarter(repetitions: int, beside: str) -> None:
    for seed in range(3):
        total = next(left for _, left in simulated(repetitions, seed, BESIDE[beside]))
        told, left = next(
            (forecast.left(), left)
            for forecast, left in simulated(repetitions, seed, BESIDE[beside])
            if left <= total / 2
        )
        assert told == pytest.approx(left, rel=0.25)


def progress(width: int, written: list[str]) -> Progress:
    """A line after the first of all visits, one of which was left out."""
    ledger = Ledger(CASES)
    visits = [Visit(*one) for one in schedule(CASES, 2, 0)]
    ledger.leave_out(CASES[5], "over_time", "predicted")
    reporter: Any = SimpleNamespace(write_raw=lambda text, flush: written.append(text), showfspath=True)
    measuring: Any = SimpleNamespace(ledger=ledger)
    forecast: Any = SimpleNamespace(done=17, left=lambda: 4321.0)
    found = Progress(reporter, visits, measuring, forecast, clock=iter(range(10**6)).__next__)
    found._width = lambda: width  # type: ignore[method-assign]
    return found


@pytest.mark.parametrize("width", [10, 39, 79, 199])
def test_the_line_is_no_wider_than_the_terminal_and_names_what_fits(width: int) -> None:
    line = progress(width, []).line(width)
    assert len(line) <= width and line.startswith("18/96")
    fitting = {"elapsed, 1:12:01 left": 39, "1 left out": 79, "N=": 79, "(last N=8192 standard-e": 199}
    for words, least in fitting.items():
        assert (words in line) is (width >= least)


def test_the_line_is_gone_before_an_interrupt_is_told_and_hides_no_word_of_the_summary() -> None:
    written: list[str] = []
    found = progress(40, written)
    loop = found.pytest_runtestloop()
    next(loop)
    shown, told = (found.pytest_report_teststatus() for _ in range(2))
    next(shown)
    with pytest.raises(StopIteration) as dotless:
        shown.send(("failed", "F", "FAILED"))
    with pytest.raises(KeyboardInterrupt):
        loop.throw(KeyboardInterrupt())
    next(told)
    with pytest.raises(StopIteration) as summary:
        told.send(("failed", "F", "FAILED"))
    assert (dotless.value.value, summary.value.value) == (("failed", "", ""), ("failed", "F", "FAILED"))
    assert written == [f"\r{' ' * 40}\r"]


def test_a_clock_shows_hours_only_where_there_are_some() -> None:
    assert [clock_words(seconds) for seconds in (0.4, 59.6, 754, 3754)] == [
        "0:00",
        "1:00",
        "12:34",
        "1:02:34",
    ]


@pytest.mark.parametrize(
    ("verbosity", "words", "asks"),
    [
        (0, ["benchmarks", "--benchmark-json=out.json", "--benchmark-save=name"], False),
        (1, ["benchmarks"], True),
        (0, ["--benchmark-columns=min"], True),
        (0, ["--benchmark-sort", "mean"], True),
        (0, ["--benchmark-compare-fail=min:5%"], True),
    ],
)
def test_the_table_of_pytest_benchmark_is_for_who_asks(verbosity: int, words: list[str], asks: bool) -> None:
    assert asks_for_table(verbosity, words) is asks


def on_a_terminal(words: list[str], until: str = "") -> tuple[int, str]:
    """The exit code and all output of a command on a terminal, interrupted once it has written `until`."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "80"}
    process = subprocess.Popen(
        words,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
        # A shell that runs tests in its background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(theirs)
    text, began = b"", time.monotonic()
    while time.monotonic() - began < 200:
        try:
            read = os.read(ours, 2**16)
        except OSError:  # nobody holds the other end
            break
        text += read
        if until and until.encode() in text:
            process.send_signal(signal.SIGINT)
            until = ""
    os.close(ours)
    return process.wait(timeout=60), text.decode()


@pytest.mark.slow
@pytest.mark.parametrize("isolated", [[], ["--isolate"]])
def test_a_session_on_a_terminal_shows_its_line_and_then_all_else(
    isolated: list[str], tmp_path: Path
) -> None:
    (tmp_path / "my.py").write_text("def broken(q, k, v, causal):\n    raise ValueError('not today')\n")
    own = [f"--kernel-from={tmp_path}/my.py:broken"]
    code, text = on_a_terminal(command(*TINY, *own, *isolated))
    live, _, summary = text.rpartition(f"\r{' ' * 79}\r")
    assert code == 1 and re.search(r"\r 5/12  N=\d+ \S+ causal fo\S+  \d:\d\d elapsed", live)
    assert "left out" in live and max(map(len, live.split("collected")[1].split("\r"))) <= 80
    assert "elapsed" not in summary and "not today" in summary and "\x1b" not in text
    assert "Linear attention against" in summary and re.search("broken +not measured +open", summary)
    assert "--benchmark-json=out.json keeps a run for: python -m benchmarks report out.json" in summary


@pytest.mark.slow
def test_an_interrupt_on_a_terminal_ends_the_line_and_tells_what_was_measured() -> None:
    words = command(*TINY, "--case-seconds=2")
    code, text = on_a_terminal(words, until="3/8")
    summary = text.rpartition(f"\r{' ' * 79}\r")[2]
    assert code == 2 and "KeyboardInterrupt" in summary and "series measured in" in summary
