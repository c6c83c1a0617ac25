"""What a session leaves behind: a journal while it measures, and at its end the files it was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.storage.file import FileStorage

from benchmarks.analysis.reading.fields import InputError
from benchmarks.survival.journal import SUFFIX, Journal, journal_of, recover
from benchmarks.survival.writing import place, try_target, write_elsewhere

Document = dict[str, Any]


@dataclass
class Saving:
    """The files of a session of pytest-benchmark, which this writes in its stead.

    Attributes:
        session: pytest-benchmark's.
        journal: Of the cases finished so far.
        told: Sentences about the files, for the end of the console's text.
    """

    session: Any
    journal: Journal = field(default_factory=Journal)
    told: list[str] = field(default_factory=list)

    def begin(self, document: Document, cases: Mapping[str, Document]) -> None:
        """Try the files, turn the journals of processes that are gone into JSON, and begin one.

        Args:
            document: What the JSON will hold, without its cases.
            cases: The fields of every case asked for, by its key.

        Raises:
            pytest.UsageError: A file cannot be written, or another process writes it.
        """
        for option, target in self._targets():
            try:
                try_target(target)
            except OSError as error:
                raise pytest.UsageError(
                    f"{option}: {error}; nothing was measured, name a file that can be written"
                ) from None
            try:
                self._recover(target)
                if self.journal.path is None:
                    self.journal = Journal(journal_of(target))
                    self.journal.open(document, cases)
            except InputError as error:
                raise pytest.UsageError(f"{option}: {error}") from None

    def _targets(self) -> Iterator[tuple[str, Path]]:
        """The files with their options; a stored run is numbered at its end, and nameless until then."""
        if self.session.json:
            yield "--benchmark-json", Path(self.session.json)
        name = self.session.save or self.session.autosave
        if name and isinstance(self.session.storage, FileStorage):
            yield "--benchmark-storage", self._in_storage(f"{name}.json")

    def _recover(self, target: Path) -> None:
        own = journal_of(target)
        stored = isinstance(self.session.storage, FileStorage) and target.parent == self._stored().parent
        for journal in [own, *(sorted(own.parent.glob(f"*{SUFFIX}")) if stored else [])]:
            try:
                found = recover(journal)
            except InputError:
                if journal == own:
                    raise
                continue  # another session measures
            if found:
                self.told.append(f"An earlier run was killed; what it had measured is in {found}.")

    def _stored(self) -> Path:
        """The place of the next stored run."""
        numbers = [path.name.partition("_")[0] for path in self.session.storage.query("[0-9]*_")]
        number = 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)
        return self._in_storage(f"{number:04}_{self.session.save or self.session.autosave}.json")

    def _in_storage(self, name: str) -> Path:
        place: Path = self.session.storage.get(name)
        return place

    def finish(self, config: pytest.Config, machine_info: Document, commit_info: Document) -> None:
        """Write the files, each whole or not at all, and leave pytest-benchmark nothing to write.

        What cannot be written where it was asked for is written elsewhere, and the console says where.
        """
        session = self.session

        def document(include_data: bool) -> Document:
            measured = [bench for bench in session.benchmarks if bench and not bench.has_error]
            common = {"config": config, "benchmarks": measured}
            made: Document = config.hook.pytest_benchmark_generate_json(
                **common, include_data=include_data, machine_info=machine_info, commit_info=commit_info
            )
            config.hook.pytest_benchmark_update_json(**common, output_json=made)
            return made

        whole = True
        if session.json:
            whole &= self._write(document(True), Path(session.json))
        if session.save or session.autosave:
            kept = document(session.save_data)
            if isinstance(session.storage, FileStorage):
                whole &= self._write(kept, self._stored())
            else:
                session.storage.save(kept, session.save or session.autosave)
        session.json = session.save = session.autosave = None
        if whole:
            self.journal.remove()

    def _write(self, document: Document, path: Path) -> bool:
        """Whether there was a place for it."""
        try:
            found = place(document, path)
        except OSError as error:
            elsewhere = write_elsewhere(document, path.name)
            where = f"so it is in {elsewhere}" if elsewhere else f"nor elsewhere; see {self.journal.path}"
            self.told.append(f"The run cannot be written to {path} ({error.strerror}), {where}.")
            return elsewhere is not None
        if found != path.resolve():
            self.told.append(f"{path} holds a run with cases that this one lacks; this one is in {found}.")
        else:
            self.session.logger.info(f"Wrote benchmark data in: {path}", purple=True)
        return True
