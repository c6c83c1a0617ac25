"""One line that lives on the terminal while a session measures: where it is, and how much is left."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import pytest

from attention import Case
from benchmarks.apart import Measuring
from benchmarks.forecast import Forecast, Visit
from benchmarks.ledger import Ledger
from benchmarks.measure import Measurer
from benchmarks.subjects import SUBJECTS

USUAL_RATES = {"cpu": (5e9, 5e10), "cuda": (1e12, 1e14)}
"""Bytes and FLOPs a second of a small device, until it has shown its own."""
RECOMPUTED_S = 0.5
"""Seconds between two forecasts, so that a grid of many cases costs no time."""


def follow(
    config: pytest.Config, items: Sequence[pytest.Item], measurer: Measurer, measuring: Measuring
) -> None:
    """Show the line in place of pytest's dots, where there is a terminal and nothing else writes to it."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    visits = [visit for item in items for visit in _visit(item, measurer.ledger)]
    if reporter and len(visits) == len(items) and _is_quiet_terminal(config, reporter):
        forecast = forecast_of(visits, measurer)
        config.pluginmanager.register(Progress(reporter, visits, measuring, forecast))


def _visit(item: pytest.Item, ledger: Ledger) -> Iterator[Visit]:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if "case" in parameters:
        yield Visit(ledger.cases[parameters["case"]], parameters["repetition"])


def _is_quiet_terminal(config: pytest.Config, reporter: Any) -> bool:
    get = config.getoption
    others = get("capture") == "no" or get("usepdb") or get("trace") or get("setupshow")
    return reporter.isatty() and reporter.verbosity <= 0 and not others and not config.getini("log_cli")


def forecast_of(visits: Sequence[Visit], measurer: Measurer) -> Forecast:
    """The forecast of a schedule by what the books of its run know."""
    ledger = measurer.ledger

    def call_seconds(case: Case) -> float | None:
        try:
            return ledger.seconds_of(case) or ledger.predict_seconds(case) or _guess(case)
        except Exception:  # the costs of a user's own kernel, which its case will tell of
            return None

    def is_left_out(case: Case, seconds: float | None) -> bool:
        too_long = seconds is not None and seconds > measurer.round_seconds
        return ledger.reason_left_out(case) is not None or (too_long and case.key not in ledger.measured)

    return Forecast(visits, call_seconds, measurer.planned_rounds, is_left_out)


def _guess(case: Case) -> float | None:
    """Seconds of a call of a ceiling, which has no shorter lengths to predict it by."""
    costs = SUBJECTS[case.subject].costs(case) if case.subject == "ceiling" else None
    bytes_per_s, flops_per_s = USUAL_RATES[case.device]
    return costs.min_bytes / bytes_per_s + costs.flops / flops_per_s if costs else None


class Progress:
    """Writes the line before each case, and nothing while one is timed."""

    def __init__(
        self,
        reporter: Any,
        visits: Sequence[Visit],
        measuring: Measuring,
        forecast: Forecast,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is written yet.

        Args:
            reporter: pytest's own writer to the terminal.
            visits: The cases in their order.
            measuring: Measures them, and keeps the books of the run.
            forecast: Tells how much is left.
            clock: Seconds of a clock that nobody sets.
        """
        self._reporter, self._visits, self._measuring, self._forecast = reporter, visits, measuring, forecast
        self._clock, self._began = clock, clock()
        self._left: tuple[float, float | None] = -RECOMPUTED_S, None
        self._running = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, Any, Any]:
        """However the loop ends, the line is gone before anything else is written."""
        self._began, self._running, self._reporter.showfspath = self._clock(), True, False
        try:
            return (yield)
        finally:
            self._running = False
            self._write("")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None, Any, Any]:
        began = self._clock()
        self._write(self.line(self._width()))
        try:
            return (yield)
        finally:
            self._forecast.finish(self._clock() - began, self._measuring.once_s)

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self) -> Generator[None, Any, tuple[Any, ...]]:
        """While the line is shown there are no dots; the summary names outcomes as ever."""
        category, letter, word = yield
        return (category, "", "") if self._running else (category, letter, word)

    def line(self, width: int) -> str:
        """The line for the case that begins, of at most so many columns."""
        now, total = self._clock() - self._began, len(self._visits)
        place = f"{min(self._forecast.done + 1, total):>{len(str(total))}}/{total}"
        left = self._seconds_left(now)
        times = f"{clock_words(now)} elapsed" + ("" if left is None else f", {clock_words(left)} left")
        gone = self._measuring.ledger.left_out()
        out = f", {len(gone)} left out" if gone else ""
        ends = f"{place}  ", f"  {times}{out}"
        room = width - sum(map(len, ends))
        last = f" (last {_named(gone[-1])})" if gone else ""
        case = _named(self._visits[min(self._forecast.done, total - 1)].case)
        last = last if len(case) + len(last) <= room else ""
        return f"{ends[0]}{_cut(case, room)}{ends[1]}{last}"[:width]

    def _seconds_left(self, now: float) -> float | None:
        then, left = self._left
        if now - then >= RECOMPUTED_S:
            self._left = then, left = now, self._forecast.left()
        return None if left is None else max(0.0, left - (now - then))

    def _width(self) -> int:
        # In the last column some terminals begin the next line.
        return shutil.get_terminal_size().columns - 1

    def _write(self, line: str) -> None:
        self._reporter.write_raw(f"\r{line.ljust(self._width())}" + ("" if line else "\r"), flush=True)


def _named(case: Case) -> str:
    """A case in words, what tells it apart first: it may be cut."""
    length = f"N={case.seq_len} " if case.seq_len else ""
    words = "" if case.subject == "ceiling" else f" {case.mode} {case.phase}"
    return f"{length}{case.kernel}{words}" + (" layer" if case.subject == "layer" else "")


def _cut(words: str, room: int) -> str:
    return words if len(words) <= room else f"{words[: max(0, room - 2)]}.."


def clock_words(seconds: float) -> str:
    """Seconds as a clock shows them: "0:07", "12:30", "1:02:30"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
