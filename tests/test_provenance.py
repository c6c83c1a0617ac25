"""Provenance: the commit of the measured kernels, and the refusal of kernels from another folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import provenance
from tests.repository import Repository


def config(**options: Any) -> Any:
    """A stand-in for pytest's config with the options of provenance."""
    return SimpleNamespace(getoption=lambda name, default=None: options.get(name, default))


def test_the_recorded_commit_is_that_of_the_kernels_wherever_the_run_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(tmp_path / "repository")
    monkeypatch.setattr(provenance, "KERNELS", repository.folder / "attention")
    monkeypatch.chdir(tmp_path)

    def info() -> dict[str, Any]:
        found: dict[str, Any] = {"id": "unversioned", "dirty": False, "project": "elsewhere"}
        provenance.pytest_benchmark_update_commit_info(config(), found)
        assert Path.cwd() == tmp_path
        return found

    assert (info()["id"], info()["dirty"]) == (repository.first, False)
    (repository.folder / "README.md").write_text("no kernel")
    assert not info()["dirty"]
    (repository.folder / "attention" / "new.py").write_text("a kernel that git does not know yet")
    assert info()["dirty"]


def test_kernels_imported_from_another_folder_are_refused(tmp_path: Path) -> None:
    provenance.refuse_other_kernels(config())
    provenance.refuse_other_kernels(config(kernels_from=str(provenance.KERNELS.parent)))
    with pytest.raises(
        pytest.UsageError, match=r"was asked for, but attention was imported from .*PYTHONPATH"
    ):
        provenance.refuse_other_kernels(config(kernels_from=str(tmp_path)))


def test_only_runs_of_a_pair_have_the_fields_pair_and_side() -> None:
    assert provenance.pair_fields(config()) == {}
    assert provenance.pair_fields(config(pair=2, side="head")) == {"pair": 2, "side": "head"}
