"""Measuring in a process of its own, so that a case which crashes or hangs costs nothing but itself.

The worker is pytest with the options of this session: it holds the same cases and measures those that it is
asked for, one after another, as a session that is not isolated does. A new one takes over where one ended.
The session receives the journal's entries of each case, and waits for them without doing anything.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

from benchmarks.survival.children import how_ended
from benchmarks.survival.endings import end_with_parent, with_parent

WORKER = "ATTENTION_WORKER"
"""Variable that holds the two ends of pipes by which a worker is asked and answers."""
# A worker ends a case that takes too long by itself, unless the case keeps it from that.
GRACE_S = 10.0
START_S = 600.0
LAST_LINES = 20

Entry = dict[str, Any]


class WorkerError(Exception):
    """The worker ended; the text says how, and the notes hold what it printed last.

    Attributes:
        hung: Whether it was ended because it did not answer.
    """

    def __init__(self, text: str, notes: Sequence[str] = (), *, hung: bool = False) -> None:
        super().__init__(text)
        self.notes, self.hung = notes, hung


class Worker:
    """The process that measures, as the session sees it."""

    def __init__(self, options: Sequence[str], folder: Path) -> None:
        """Nothing is started yet.

        Args:
            options: The words of pytest's command line.
            folder: The folder in which they were given.
        """
        self._options, self._folder = options, folder
        self._process: subprocess.Popen[bytes] | None = None

    def measure(self, nodeid: str, known: Mapping[str, float], limit_s: float) -> Iterator[Entry]:
        """Have one benchmark measured.

        Args:
            nodeid: Its name in pytest.
            known: Seconds of a call of each case, by its key, that a new worker could not know.
            limit_s: The time limit of a case.

        Yields:
            The entries of the journal, and last how the benchmark ended: `outcome` and `text`.

        Raises:
            WorkerError: The worker ended meanwhile, or did not answer in time.
        """
        if self._process is None:
            self._start(known)
        self._ask({"nodeid": nodeid})
        while True:
            entry = self._answer(limit_s + GRACE_S)
            yield entry
            if "outcome" in entry:
                return

    def finish(self) -> Iterator[Entry]:
        """Let the process end by itself; yields the entries that it leaves."""
        if self._process is None:
            return
        self._questions.close()
        try:
            while True:
                yield self._answer(GRACE_S)
        except WorkerError:
            self.end()

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for file in (self._questions, self._answers, self._log):
                with suppress(OSError):  # what was not read by the process that ended
                    file.close()
            self._cache.cleanup()
            self._process = None

    def _start(self, known: Mapping[str, float]) -> None:
        asked, questions = os.pipe()
        answers, answered = os.pipe()
        # Of the session's last failures it must know nothing, or it would leave out what passed.
        self._cache = tempfile.TemporaryDirectory()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *self._options, *self._own_cache()],
            cwd=self._folder,
            env={**with_parent(dict(os.environ)), WORKER: f"{asked},{answered}"},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            pass_fds=(asked, answered),
        )
        os.close(asked)
        os.close(answered)
        self._questions, self._answers = os.fdopen(questions, "w"), os.fdopen(answers, "rb", buffering=0)
        self._unread = b""
        try:
            self._ask({"known": dict(known)})
            self._answer(START_S)
        except WorkerError as error:
            said = " ".join(" ".join(error.notes).split()[-30:])
            pytest.exit(f"the process that is to measure did not start: {said or error}", returncode=3)

    def _own_cache(self) -> tuple[str, ...]:
        """A cache of its own, by options that pytest knows only where its cache is in use."""
        if "no:cacheprovider" in " ".join(self._options):
            return ()
        return "-o", f"cache_dir={self._cache.name}"

    def _ask(self, question: Entry) -> None:
        try:
            self._questions.write(json.dumps(question) + "\n")
            self._questions.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _answer(self, limit_s: float) -> Entry:
        assert self._process is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._answers, selectors.EVENT_READ)
            until = time.monotonic() + limit_s
            while b"\n" not in self._unread:
                if not waiting.select(1.0):
                    if self._process.poll() is not None:  # and a child of it keeps the pipe open
                        raise self._ended()
                    if time.monotonic() < until:
                        continue
                    self.end()
                    raise WorkerError(
                        f"no end within {limit_s - GRACE_S:g} s, nor when asked to end", hung=True
                    )
                read = self._answers.read(2**16)
                if not read:
                    raise self._ended()
                self._unread += read
        line, _, self._unread = self._unread.partition(b"\n")
        entry: Entry = json.loads(line)
        return entry

    def _ended(self) -> WorkerError:
        assert self._process is not None
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        fatal = [place for place, line in enumerate(lines) if line.startswith("Fatal Python error")]
        lines = lines[fatal[0] :][:LAST_LINES] if fatal else lines[-LAST_LINES:]
        self.end()
        return WorkerError(f"the process that measured it ended with {how_ended(code)}", lines)


def pipes() -> tuple[IO[str], IO[str]] | None:
    """In a worker, where it reads questions and writes answers; None elsewhere."""
    ends = os.environ.pop(WORKER, None)
    if ends is None:
        return None
    end_with_parent()
    asked, answered = map(int, ends.split(","))
    return os.fdopen(asked), os.fdopen(answered, "w")


def silence(config: pytest.Config) -> None:
    """The session writes files and compares; its worker does neither."""
    for option, nothing in (
        ("benchmark_json", None), ("benchmark_save", None), ("benchmark_autosave", None),
        ("benchmark_compare", []), ("benchmark_compare_fail", None), ("benchmark_quiet", True),
        ("xmlpath", None), ("benchmark_histogram", None), ("basetemp", None), ("log_file", None),
    ):  # fmt: skip
        setattr(config.option, option, nothing)


def serve(
    session: pytest.Session,
    questions: IO[str],
    answers: IO[str],
    learn: Callable[[Mapping[str, float]], None],
) -> None:
    """Measure what the session asks for, until it asks no more.

    Args:
        session: The worker's own session, which has collected its benchmarks.
        questions: Lines of JSON: first what is `known`, then the `nodeid` of a benchmark each.
        answers: Takes the lines of JSON that `Worker.measure` yields.
        learn: Takes the seconds of a call of each case, by its key.
    """
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.SIG_IGN)  # the session says when it ends
    items = {item.nodeid: item for item in session.items}
    reports = _Reports()
    session.config.pluginmanager.register(reports)
    learn(json.loads(questions.readline())["known"])
    _say(answers, {"ready": True})
    for line in questions:
        item = items[json.loads(line)["nodeid"]]
        reports.found = {"outcome": "passed", "text": ""}
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        _say(answers, reports.found)


class _Reports:
    """Keeps how a benchmark ended."""

    found: Entry

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed" and self.found["outcome"] == "passed":
            text = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            self.found = {"outcome": report.outcome, "text": text.removeprefix("Skipped: ")}


def _say(answers: IO[str], entry: Entry) -> None:
    answers.write(json.dumps(entry) + "\n")
    answers.flush()


class Replay:
    """A timer that stamps what another process measured: `later - earlier` is one duration after another."""

    def __init__(self) -> None:
        self.__name__ = "replay"
        self._stamps: Iterator[float] = iter(())

    def load(self, seconds: Sequence[float]) -> None:
        """Durations for the next rounds."""
        self._stamps = (stamp for duration in seconds for stamp in (0.0, duration))

    def __call__(self) -> float:
        return next(self._stamps)
