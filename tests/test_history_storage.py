"""A history reads the runs of a storage folder as they come, in the order of their commits."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

from benchmarks.analysis.history.lines import timelines
from benchmarks.analysis.history.storage import read_storage
from tests.histories import EPOCH, KERNELS, SMALL, commit_id, store


def test_a_history_reads_compressed_runs_and_counts_a_compressed_copy_once(tmp_path: Path) -> None:
    for number in range(2):
        path = store(tmp_path, number, KERNELS, **SMALL)
        packed = path.with_name(f"{path.name}.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    runs, left_out = read_storage(tmp_path)
    assert len(runs) == 2 and len(left_out) == 1 and "is a copy of" in left_out[0]


def test_a_history_is_ordered_by_commits_and_pools_the_runs_of_each(tmp_path: Path) -> None:
    for number, commit in enumerate((3, 1, 1, 2, 1)):
        store(tmp_path, number, KERNELS, commit=commit, **SMALL)
    store(tmp_path, 5, KERNELS, commit=1, changes={"dirty": True}, **SMALL)
    store(tmp_path, 6, KERNELS, commit=1, changes={"dirty": True}, **SMALL)
    runs, left_out = read_storage(tmp_path)
    (timeline,) = timelines(runs)
    names = [commit_id(commit)[:7] for commit in (1, 2, 3)]
    assert not left_out
    dirty = f"{names[0]}+changes"
    assert [revision.name for revision in timeline.revisions] == [names[0], dirty, dirty, *names[1:]]
    assert timeline.lines[0].runs.tolist() == [3, 1, 1, 1, 1]


def test_commits_of_one_second_are_ordered_by_author_date_and_unversioned_runs_by_their_own(
    tmp_path: Path,
) -> None:
    rebased = {"time": EPOCH.isoformat()}
    for number, commit in enumerate((9, 7, 8)):
        store(tmp_path, number, KERNELS, commit=commit, changes=rebased, **SMALL)
    store(tmp_path, 3, KERNELS, changes={"id": "unversioned", "time": None, "author_time": None}, **SMALL)
    runs, _ = read_storage(tmp_path)
    assert [run.revision.name for run in runs] == [*(commit_id(n)[:7] for n in (7, 8, 9)), "2025-01-04 01:00"]


def test_runs_of_a_commit_without_a_date_are_pooled_in_a_history(tmp_path: Path) -> None:
    for number, commit in enumerate((5, 6, 5)):
        store(tmp_path, number, KERNELS, commit=commit, changes={"time": None, "author_time": None}, **SMALL)
    runs, _ = read_storage(tmp_path)
    assert [run.revision.commit for run in runs] == [commit_id(commit) for commit in (5, 5, 6)]
    assert len(timelines(runs)[0].revisions) == 2


def test_damaged_foreign_and_copied_files_of_a_history_are_named_and_left_out(tmp_path: Path) -> None:
    path = store(tmp_path, 1, KERNELS, **SMALL)
    (tmp_path / "cut.json").write_text(path.read_text()[:500])
    (tmp_path / "foreign.json").write_text('{"benchmarks": [{"name": "x", "stats": {}}]}')
    shutil.copy(path, tmp_path / "copy.json")
    runs, left_out = read_storage(tmp_path)
    assert len(runs) == 1 and len(left_out) == 3
    for name, reason in (("cut.json", "cut off"), ("foreign.json", "no record"), (path.name, "copy of")):
        assert any(name in sentence and reason in sentence for sentence in left_out)
