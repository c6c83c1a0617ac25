"""The file of a run: tried before the run, written whole, and never in the place of more."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cache import replacing
from benchmarks.survival import writing
from benchmarks.survival.writing import place, try_target, write, write_elsewhere
from tests.synthetic import Law, Run


def document(*lengths: int, ended: str = "finished") -> dict[str, Any]:
    content = Run({("linear-chunked", "causal"): Law(1e-6, 1)}, lengths, repetitions=1).content()
    return {**content, "run": {**content["run"], "ended": ended}}


def lengths(path: Path) -> list[int]:
    return [one["extra_info"]["seq_len"] for one in json.loads(path.read_text())["benchmarks"]]


def missing(folder: Path) -> Path:
    return folder / "nowhere" / "x.json"


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def below_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "x.json"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (missing, "there is no folder"),
        (lambda folder: folder, "is no file but a folder"),
        (fifo, "is no file but a device or pipe"),
        (lambda folder: Path("/dev/full"), "is no file but a device or pipe"),
        (below_a_file, "there is no folder"),
        (lambda folder: folder / f"{'x' * 230}.json", "is longer than 220 bytes"),
    ],
)
def test_a_target_that_no_file_can_be_written_to_is_refused_beforehand(
    target: Callable[[Path], Path], said: str, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match=said):
        try_target(target(tmp_path))


def test_trying_a_target_leaves_nothing_and_harms_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    try_target(out)
    assert list(tmp_path.iterdir()) == []
    out.write_text("kept")
    try_target(out)
    assert out.read_text() == "kept" and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("older", "newer", "at_target", "beside"),
    [
        (document(64, 128), document(64, ended="interrupted"), [64, 128], [64]),
        (document(64, 128), document(64, ended="killed"), [64, 128], [64]),
        (document(64, 128), document(), [64, 128], []),
        (document(64, 128), document(64, 128, ended="interrupted"), [64, 128], None),
        (document(64, 128), document(256), [256], None),
        (document(64, 128, ended="killed"), document(64), [64], [64, 128]),
        (document(64, ended="killed"), document(64, 128), [64, 128], None),
        (document(), document(), [], None),
    ],
)
def test_a_run_is_never_replaced_by_less(
    older: dict[str, Any],
    newer: dict[str, Any],
    at_target: list[int],
    beside: list[int] | None,
    tmp_path: Path,
) -> None:
    out, apart = tmp_path / "out.json", tmp_path / "out.unfinished.json"
    write(older, out)
    found = place(newer, out)
    assert lengths(out) == at_target and lengths(found) == [
        one["extra_info"]["seq_len"] for one in newer["benchmarks"]
    ]
    assert (lengths(apart) if apart.exists() else None) == beside


def test_files_beside_one_another_have_names_of_their_own(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    write(document(64, 128), out)
    names = [place(document(64, ended="killed"), out).name for _ in range(3)]
    assert names == ["out.unfinished.json", "out.unfinished-2.json", "out.unfinished-3.json"]


def test_a_file_through_a_link_is_written_where_the_link_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "out.json"
    link.symlink_to(tmp_path / "real" / "out.json")
    place(document(64), link)
    assert link.is_symlink() and lengths(tmp_path / "real" / "out.json") == [64]
    assert not stat.S_ISLNK((tmp_path / "real" / "out.json").lstat().st_mode)


def test_a_full_disk_leaves_the_older_file_and_no_half_of_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, roomy = tmp_path / "full", tmp_path / "roomy"
    full.mkdir()
    roomy.mkdir()
    out = full / "out.json"
    write(document(64), out)

    @contextmanager
    def refusing(path: Path) -> Any:
        with replacing(path) as provisional:
            yield provisional
            if full in path.parents:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writing, "replacing", refusing)
    with pytest.raises(OSError, match="No space left"):
        place(document(64, 128), out)
    assert lengths(out) == [64] and list(full.iterdir()) == [out]
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(roomy))
    elsewhere = write_elsewhere(document(64, 128), "out.json")
    assert elsewhere is not None and elsewhere.parent == roomy and lengths(elsewhere) == [64, 128]
