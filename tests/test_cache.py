"""The cache folder: where it is, and that others find each file in it complete."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from attention.cache import cache_folder, replacing


@pytest.mark.parametrize(
    ("named", "home", "listed", "folder"),
    [
        ("/cache", "/home/me", "/listed", "/cache"),
        ("", "/home/me", "/listed", "/home/me/.cache"),
        (None, "/home/me", "/listed", "/home/me/.cache"),
        ("relative", "/home/me", "/listed", "/home/me/.cache"),
        ("./here", None, "/listed", "/listed/.cache"),
        (None, "", "/listed", "/listed/.cache"),
        (None, "relative", "/listed", "/listed/.cache"),
    ],
)
def test_the_cache_folder_is_an_absolute_one_of_the_variable_or_below_the_home(
    named: str | None, home: str | None, listed: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pwd.getpwuid", lambda user: SimpleNamespace(pw_dir=listed))
    for name, value in (("XDG_CACHE_HOME", named), ("HOME", home)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder) / "attention-scaling"


def test_no_home_is_told_as_a_file_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader takes it for a cache without the file, a writer for one that cannot be written."""
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    monkeypatch.delenv("HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    with pytest.raises(FileNotFoundError, match="there is no home folder; name a cache folder with XDG"):
        cache_folder()


def test_a_file_is_replaced_when_its_block_ends_well_only(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "file"
    with replacing(file) as provisional:
        provisional.write_text("old")
        assert not file.exists()
    with pytest.raises(RuntimeError), replacing(file) as provisional:
        provisional.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old" and os.listdir(file.parent) == ["file"]
