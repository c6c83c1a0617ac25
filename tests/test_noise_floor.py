"""The noise floor of a machine is kept per machine, outside of the repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.analysis.comparison.noise_floor import NoiseFloor, share_of
from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.reading.machines import Machine
from benchmarks.noise_store import floor_file, store_floor, stored_floor

FLOOR = NoiseFloor(share=0.021, cases=40, pairs=6, date="2026-01-31")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def machine(threads: int = 2, python: str | None = None) -> Machine:
    return Machine(cpu="a CPU", threads=threads, python=python)


def test_a_noise_floor_is_found_on_its_own_machine_only(cache: Path) -> None:
    assert stored_floor(machine()) is None
    file = store_floor(machine(), FLOOR)
    assert file.parent == cache / "attention-scaling"
    assert stored_floor(machine(python="3.13.1")) == FLOOR
    assert stored_floor(machine(threads=4)) is None
    store_floor(machine(), NoiseFloor(0.01, 8, 3, "2026-02-01"))
    assert stored_floor(machine()) == NoiseFloor(0.01, 8, 3, "2026-02-01"), "the newest counts"
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_the_noise_floor_covers_19_of_20_cases_faster_or_slower() -> None:
    assert share_of([1.02, 0.99, 1 / 1.03]) == pytest.approx(0.03), "of few cases, all"
    ratios = np.exp(np.random.default_rng(1).normal(0, 0.01, 100_000))
    # 1.96 standard deviations; the quantile of so many draws is known to 1 %.
    assert share_of(list(ratios)) == pytest.approx(np.expm1(0.0196), rel=0.02)
    assert share_of([1.0] * 99 + [3.0]) == 0, "one stalled case does not make a machine noisy"


@pytest.mark.parametrize("text", ["", "[]", '{"share": null}', '{"share": 0.1}'])
def test_a_damaged_noise_floor_is_refused_by_the_name_of_its_file(text: str) -> None:
    file = floor_file(machine())
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(InputError, match=f"{file.name} holds no noise floor that can be read; remove it"):
        stored_floor(machine())


def test_a_cache_of_noise_floors_that_cannot_be_written_is_named(cache: Path) -> None:
    cache.write_text("a file in the place of the folder")
    with pytest.raises(InputError, match=r"cannot be stored in .*; name another folder with XDG_CACHE_HOME"):
        store_floor(machine(), FLOOR)


def test_without_a_home_no_noise_floor_is_known_and_none_can_be_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "")
    assert stored_floor(machine()) is None
    with pytest.raises(
        InputError, match="cannot be stored: there is no home folder; name a cache folder with"
    ):
        store_floor(machine(), FLOOR)


def test_the_noise_floor_is_found_without_torch(cache: Path, tmp_path: Path) -> None:
    store_floor(machine(), FLOOR)
    (tmp_path / "torch.py").write_text("raise OSError('a library of the GPU is missing')")
    ask = (
        "from benchmarks.analysis.reading.machines import Machine\n"
        "from benchmarks.noise_store import stored_floor\n"
        "print(stored_floor(Machine(cpu='a CPU', threads=2)).share)"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", ask], cwd=root, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"},
    )  # fmt: skip
    assert float(done.stdout) == FLOOR.share
