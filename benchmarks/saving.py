"""What a session leaves behind: a journal while it measures, and at its end the files it was asked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.storage.file import FileStorage

from benchmarks.analysis.reading.fields import InputError
from benchmarks.survival.journal import SUFFIX, Journal, journal_of, recover
from benchmarks.survival.writing import place, rescue, try_target

Document = dict[str, Any]
STORAGE = "--benchmark-storage"


def _path(target: Any) -> Path:
    """The file of --benchmark-json, which releases of pytest-benchmark before 5.3 have opened already."""
    return target if isinstance(target, Path) else Path(getattr(target, "name", target))


class Saving:
    """The files of a session, written here in the place of pytest-benchmark.

    Attributes:
        told: Sentences about the files, for the end of the console's text.
        document: The run, once it is finished.
        file: Where it is; None where no file was asked for, or none could be written.
    """

    def __init__(self, config: pytest.Config, journal: Journal) -> None:
        """Nothing is tried yet."""
        self.told: list[str] = []
        self.document: Document = {}
        self.file: Path | None = None
        self._config, self._journal = config, journal
        self._session: Any = config._benchmarksession  # type: ignore[attr-defined]
        hook = config.hook
        self._machine_info = self._session.get_machine_info()
        self._commit_info = hook.pytest_benchmark_generate_commit_info(config=config)
        hook.pytest_benchmark_update_commit_info(config=config, commit_info=self._commit_info)

    def begin(self, run: Document, cases: Mapping[str, Document]) -> None:
        """Try the files, turn the journals of processes that are gone into JSON, and begin one.

        Args:
            run: The facts that the run records about itself.
            cases: The fields of every case asked for, by its key.

        Raises:
            pytest.UsageError: A file cannot be written, or another process writes it.
        """
        head = {
            "machine_info": self._machine_info,
            "commit_info": self._commit_info,
            "datetime": datetime.now(UTC).isoformat(),
            "run": run,
        }
        for option, target in self._targets():
            try:
                try_target(target)
                own = journal_of(target)
                # A stored run has a name of its own each time: that of a killed one is not asked for again.
                beside = own.parent.glob(f"*.json{SUFFIX}") if option == STORAGE else ()
                self._recover(own, sorted(set(beside) - {own}))
                if self._journal.path is None:
                    self._journal.open(own, head, cases)
                for left in target.parent.glob(f".{escape(target.name)}-????????"):
                    shutil.rmtree(left, ignore_errors=True)  # of a process that was killed while it wrote
            except (OSError, InputError) as error:
                raise pytest.UsageError(
                    f"{option}: {error}; nothing was measured, name a file that can be written"
                ) from None

    def _targets(self) -> Iterator[tuple[str, Path]]:
        """The files with their options; a stored run is numbered at its end, and nameless until then."""
        if self._session.json:
            yield "--benchmark-json", _path(self._session.json)
        if self._name and isinstance(self._session.storage, FileStorage):
            yield STORAGE, self._in_storage(f"{self._name}.json")

    @property
    def _name(self) -> str | None:
        name: str | None = self._session.save or self._session.autosave
        return name

    def _in_storage(self, name: str) -> Path:
        path: Path = self._session.storage.get(name)
        return path

    def _recover(self, own: Path, others: Sequence[Path]) -> None:
        """Turn journals into JSON; those of `others` may be of sessions that still measure."""
        for journal in (own, *others):
            try:
                found = recover(journal)
            except InputError:
                if journal == own:
                    raise
                continue
            if found:
                self.told.append(f"An earlier run was killed; what it had measured is in {found}.")

    def finish(self) -> bool:
        """Write the files, each whole or not at all, and leave pytest-benchmark nothing to write.

        What cannot be written where it was asked for is written elsewhere, and the console says where.

        Returns:
            Whether all is where it was asked for.
        """
        session, saved = self._session, [self._journal.trouble is None]
        self.document = self._document(include_data=True)
        if session.json:
            saved.append(self._write(self.document, _path(session.json)))
        if self._name:
            kept = self._document(include_data=session.save_data)
            if isinstance(session.storage, FileStorage):
                saved.append(self._write(kept, self._numbered()))
            else:
                session.storage.save(kept, self._name)
        session.json = session.save = session.autosave = None
        if self._journal.trouble:
            self.told.append(self._journal.trouble)
        if all(saved[1:]):
            self._journal.remove()
        return all(saved)

    def _document(self, *, include_data: bool) -> Document:
        config, hook = self._config, self._config.hook
        measured = [bench for bench in self._session.benchmarks if bench and not bench.has_error]
        made: Document = hook.pytest_benchmark_generate_json(
            config=config,
            benchmarks=measured,
            include_data=include_data,
            machine_info=self._machine_info,
            commit_info=self._commit_info,
        )
        hook.pytest_benchmark_update_json(config=config, benchmarks=measured, output_json=made)
        return made

    def _numbered(self) -> Path:
        """The file of the next stored run."""
        numbers = [path.name.partition("_")[0] for path in self._session.storage.query("[0-9]*_")]
        number = 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)
        return self._in_storage(f"{number:04}_{self._name}.json")

    def _write(self, document: Document, path: Path) -> bool:
        """Whether there was a place for it."""
        try:
            found = place(document, path)
        except OSError as error:
            elsewhere, sentence = rescue(document, path, error, f"; see {self._journal.path}")
            self.file = self.file or elsewhere
            self.told.append(sentence)
            return False
        moved = found != path.resolve()
        self.file = self.file or (found if moved else path)
        if moved:
            self.told.append(f"{path} holds a run with cases that this one lacks; this one is in {found}.")
        else:
            self._session.logger.info(f"Wrote benchmark data in: {path}", purple=True)
        return True
