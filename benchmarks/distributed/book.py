"""The file of a session: written anew before and after each case, so that no end of a process loses one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from pytest_benchmark import __version__ as pytest_benchmark_version
from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info
from pytest_benchmark.stats import Stats

from benchmarks.analysis.reading.fields import SCHEMA
from benchmarks.distributed.cases import RankedCase
from benchmarks.distributed.measuring import Measured
from benchmarks.machine.cards import find_card
from benchmarks.machine.conditions import Watch, environment
from benchmarks.measure import device_name
from benchmarks.provenance import KERNELS, commit_of, identify
from benchmarks.survival.writing import FINISHED, KILLED, rescue, write

BEGUN = "the session ended while it was measured"


class Book:
    """The record of a session, as pytest-benchmark writes it.

    Attributes:
        file: Where it is; None where it could be written nowhere.
    """

    def __init__(
        self, path: Path, run: Mapping[str, Any], backend: str, device: str, say: Callable[[str], None]
    ) -> None:
        """Nothing is measured yet, and nothing written; ``say`` tells where that is not possible."""
        self.file: Path | None = path
        self._path, self._backend, self._say = path, backend, say
        self._told = False
        self._watch = Watch(find_card if device == "cuda" else None)
        self._left_out: dict[str, dict[str, Any]] = {}
        self._benchmarks: list[dict[str, Any]] = []
        # A thread writes as well, when the process is asked to end.
        self._turn = threading.RLock()
        machine = pytest_benchmark_generate_machine_info()  # type: ignore[no-untyped-call]
        identify(machine, {device: device_name(device)})
        self._head = {
            "machine_info": machine,
            "commit_info": commit_of(KERNELS),
            "datetime": datetime.now(UTC).isoformat(),
            "version": pytest_benchmark_version,
        }
        self._run = {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            **environment(find_card() if device == "cuda" else None),
            **run,
        }

    @property
    def measured(self) -> bool:
        """Whether it holds a time."""
        return bool(self._benchmarks)

    def holds(self, case: RankedCase) -> bool:
        """Whether a case has times."""
        return any(one["extra_info"]["key"] == case.key for one in self._benchmarks)

    def begin(self, case: RankedCase, repetition: int) -> None:
        """From here on a case counts as failed until it is booked otherwise."""
        self._watch.before_case(repetition)
        if not self.holds(case):
            self._left_out[case.key] = self._entry(case, "failed", BEGUN)
        self._keep()

    def leave_out(self, case: RankedCase, outcome: str, reason: str) -> None:
        """Book a case under an outcome of the record."""
        with self._turn:
            self._left_out[case.key] = self._entry(case, outcome, reason)
        self._keep()

    def add(self, case: RankedCase, repetition: int, measured: Measured) -> None:
        """Book the rounds of a case."""
        stats = Stats()  # type: ignore[no-untyped-call]
        for second in measured.seconds:
            stats.update(second)  # type: ignore[no-untyped-call]
        name = f"{case.id}-r{repetition}"
        info = {"schema": SCHEMA, **self._fields(case), "repetition": repetition, **measured.facts}
        benchmark = {
            "group": case.id.replace(f"{case.kernel}-", "", 1),
            "name": name,
            "fullname": f"benchmarks/distributed::{name}",
            "params": None,
            "param": None,
            "extra_info": info,
            "options": {},
            "stats": {**stats.as_dict(), "data": measured.seconds, "iterations": 1},  # type: ignore[no-untyped-call]
        }
        with self._turn:
            self._left_out.pop(case.key, None)
            self._benchmarks.append(benchmark)
        self._keep()

    def finish(self, ended: str = FINISHED) -> bool:
        """Write it a last time; what cannot be written where it was asked for is written elsewhere.

        Returns:
            Whether it is where it was asked for; else it is told where it is.
        """
        self._watch.end()
        with self._turn:
            document = self._document(ended)
            try:
                write(document, self._path)
            except OSError as error:
                self.file, sentence = rescue(document, self._path, error)
                self._say(sentence)
                return False
        return True

    def _keep(self) -> None:
        """Write it while the session goes on; one that is killed meanwhile leaves what was written before."""
        with self._turn:
            try:
                write(self._document(KILLED), self._path)
            except OSError as error:
                if not self._told:
                    self._say(
                        f"{self._path} cannot be written ({error.strerror}); the session goes on, and tries "
                        "again at its end"
                    )
                self._told = True

    def _document(self, ended: str) -> dict[str, Any]:
        run = {**self._run, "conditions": self._watch.readings, "ended": ended}
        left_out = list(self._left_out.values())
        return {**self._head, "benchmarks": self._benchmarks, "run": run, "not_measured": left_out}

    def _fields(self, case: RankedCase) -> dict[str, Any]:
        return {
            **case.fields(),
            "device_name": device_name(case.device),
            "precision": case.dtype,
            "clock": self._run["clock"],
            "cache_bytes": None,
            "backend": self._backend,
        }

    def _entry(self, case: RankedCase, outcome: str, reason: str) -> dict[str, Any]:
        return {**self._fields(case), "outcome": outcome, "reason": reason}
