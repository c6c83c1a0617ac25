"""The library of linear-native: built once, kept, verified before it is loaded, or refused in a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

from attention.kernels.linear_native.costs import PROGRAM
from attention.kernels.native import build, library

ROOT = Path(__file__).parent.parent
BUILT = """
import torch
from attention.kernels.linear_native.costs import PROGRAM
from attention.kernels.native.library import missing
print(missing(PROGRAM, torch.float32))
"""
"""Prints None in a process of its own, in which a damaged library may do no harm to the tests."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of libraries, with none loaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(library, "_loaded", library._loaded.__wrapped__)
    return tmp_path / "attention-scaling"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library for float32 as a process keeps it."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        assert library._loaded.__wrapped__(PROGRAM, "float", os.environ.get("CXX"))[1] is None
    (kept,) = (folder / "attention-scaling").iterdir()
    return kept


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The files that were compiled: here in no time, as copies of a library that is not."""
    made: list[Path] = []

    def compiled(compiler: list[str], program: Path, storage: str, path: Path) -> None:
        made.append(path)
        path.write_bytes(b"no library")

    monkeypatch.setattr(library, "compile_library", compiled)
    yield made


def program(folder: Path, script: str) -> str:
    """A compiler that tells its version, and otherwise does what the script says."""
    folder.mkdir(exist_ok=True)
    path = folder / "compiler"
    path.write_bytes(b"#!/bin/sh\n[ $1 = --version ] && exit 0\n" + script.encode("latin-1") + b"\n")
    path.chmod(0o755)
    return str(path)


def refusal(monkeypatch: pytest.MonkeyPatch, compiler: str) -> str:
    """The reason, of one printable line, why there is no library by this compiler."""
    monkeypatch.setenv("CXX", compiler)
    reason = library.missing(PROGRAM, torch.float32)
    assert reason and reason.isprintable()
    return reason


@pytest.mark.slow
def test_simultaneous_builds_of_linear_native_leave_one_library_and_no_other_file(cache: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(library.missing, [PROGRAM] * 2, [torch.float32] * 2)) == [None, None]
    (kept,) = cache.iterdir()
    assert kept.name.startswith("linear-native-float-") and kept.suffix == ".so"
    built = kept.stat().st_mtime_ns
    assert library.missing(PROGRAM, torch.float32) is None and kept.stat().st_mtime_ns == built


def test_a_kept_library_is_loaded_without_a_build(cache: Path, sealed: Path, builds: list[Path]) -> None:
    place(sealed, cache)
    assert library.missing(PROGRAM, torch.float32) is None and builds == []


def place(sealed: Path, cache: Path, change: Callable[[bytes], bytes] = bytes) -> Path:
    cache.mkdir(exist_ok=True)
    file = cache / sealed.name
    file.write_bytes(change(sealed.read_bytes()))
    return file


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut to nothing": lambda content: b"",
    "cut to 31 bytes": lambda content: content[:31],
    "cut to 4096 bytes": lambda content: content[:4096],
    "cut by a byte": lambda content: content[:-1],
    "a byte longer": lambda content: content + b"\0",
    "a bit changed": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
    "without its seal": lambda content: content[:-32],
    "a text": lambda content: b"not a library",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_library_is_never_loaded_but_built_again(
    damage: str, cache: Path, sealed: Path, builds: list[Path]
) -> None:
    place(sealed, cache, DAMAGES[damage])
    assert "it cannot be built with" in str(
        library.missing(PROGRAM, torch.float32)
    )  # by the compiler of this test
    assert len(builds) == 1


def test_a_library_made_of_something_else_is_not_loaded_under_another_name(
    cache: Path, sealed: Path, builds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = place(sealed, cache)
    monkeypatch.setattr(library, "digest_of", lambda compiler, program, storage: "0" * 64)
    file.rename(cache / "linear-native-float-0000000000000000.so")
    assert library.missing(PROGRAM, torch.float32) and len(builds) == 1


@pytest.mark.slow
def test_a_library_cut_short_is_replaced_by_the_next_process(tmp_path: Path, sealed: Path) -> None:
    file = place(sealed, tmp_path / "attention-scaling", lambda content: content[:4096])
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", BUILT], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["None"]
    assert len(file.read_bytes()) == len(sealed.read_bytes())
    assert [x.name for x in file.parent.iterdir()] == [sealed.name]


def test_a_folder_in_the_place_of_a_library_is_left_and_the_library_built_elsewhere(
    cache: Path, sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / sealed.name / "inside").mkdir(parents=True)
    monkeypatch.setattr(library, "compile_library", copies(sealed))
    assert library.missing(PROGRAM, torch.float32) is None
    assert [x.name for x in cache.iterdir()] == [sealed.name]


def copies(sealed: Path) -> Callable[[list[str], Path, str, Path], None]:
    """A compiler that is done at once."""

    def compiled(compiler: list[str], program: Path, storage: str, path: Path) -> None:
        path.write_bytes(sealed.read_bytes()[: -library.SEAL_BYTES])

    return compiled


@pytest.mark.parametrize("place_of_home", ["a file", "nothing there is writable", "no home"])
def test_a_library_that_cannot_be_kept_serves_its_process(
    place_of_home: str, tmp_path: Path, sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_loaded", library._loaded.__wrapped__)
    monkeypatch.setattr(library, "compile_library", copies(sealed))
    if place_of_home == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    elif place_of_home == "a file":
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc")  # even for a superuser
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = sorted(tmp_path.iterdir())
    assert library.missing(PROGRAM, torch.float32) is None
    assert sorted(tmp_path.iterdir()) == before


def test_a_kept_library_serves_where_nothing_can_be_written(
    cache: Path, sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(sealed, cache)
    monkeypatch.setattr("tempfile.tempdir", "/proc/nowhere")
    assert library.missing(PROGRAM, torch.float32) is None
    (cache / sealed.name).unlink()
    assert "it cannot be built with" in str(library.missing(PROGRAM, torch.float32))


def test_a_build_of_linear_native_that_fails_gives_the_reason(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = program(cache.parent, "echo 'error: no -fopenmp' >&2; exit 1")
    assert refusal(monkeypatch, broken) == (
        f"{broken} cannot compile it (error: no -fopenmp); install GCC 12 or later, or set CXX"
    )
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(cache))
    assert library.missing(PROGRAM, torch.float32) == (
        "it is compiled here, and there is no C++ compiler; install g++ or clang++"
    )
    with pytest.raises(RuntimeError, match="linear-native: it is compiled here, and there is no C"):
        library.native(PROGRAM, torch.float32)
    assert not list(cache.glob("*"))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'c\xf4t\xe9'; echo 'error: d\xe9j\xe0 vu' >&2; exit 1", "(error: d\ufffdj\ufffd vu); install"),
        ("printf '\\033[31merror:\\033[0m\\n'; exit 1", "cannot compile it (?[31merror:?[0m); install"),
        ("exit 3", "cannot compile it (exit status 3, without a word); install GCC 12"),
        ("exit 0", "left no library and no error; set CXX to a C++ compiler"),
        ("kill -9 $$", "cannot compile it (exit status -9, without a word)"),
        (
            "printf 'ld: link failed: No space left on device\\ncollect2: error: ld returned 1\\n'; exit 1",
            "could not finish (ld: link failed: No space left on device); make room, or set TMPDIR",
        ),
        (
            "echo 'g++: fatal error: Killed signal terminated program cc1plus'; exit 1",
            "could not finish (g++: fatal error: Killed signal terminated program cc1plus); make room",
        ),
        ('while [ "$1" != -o ]; do shift; done; echo text > $2', "or loaded: "),
    ],
)  # fmt: skip
def test_whatever_a_compiler_says_is_told_in_one_line(
    script: str, reason: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = refusal(monkeypatch, program(cache.parent, script))
    assert reason in told
    assert ("GCC 12" in told) == ("cannot compile it" in told)


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("g++ 'x", """CXX is "g++ 'x", which is no command (No closing quotation); set it to a compiler"""),
        ("/no/compiler", "it cannot be built with /no/compiler or loaded: [Errno 2] No such file"),
        ("/", "it cannot be built with / or loaded: [Errno 13] Permission denied"),
        (__file__, f"it cannot be built with {__file__} or loaded: [Errno 13] Permission denied"),
        ("sh -c 'exit 1'", "sh --version failed (exit status 1, without a word); set CXX to a C++ compiler"),
        ("\udcff", "it cannot be built with ? or loaded: [Errno 2] No such file"),
    ],
)
def test_what_is_no_compiler_is_told_in_one_line(
    compiler: str, reason: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal(monkeypatch, compiler).startswith(reason)


@pytest.mark.parametrize("option", ["-c", "-E"])
def test_what_does_not_load_is_not_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: str
) -> None:
    compiler = program(tmp_path, f'exec g++ "$@" {option}')
    assert "loaded" in refusal(monkeypatch, compiler)
    assert not list(cache.rglob("*.so"))


def test_a_cxx_of_spaces_counts_as_none(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(cache))
    assert "there is no C++ compiler" in refusal(monkeypatch, "  ")


@pytest.mark.parametrize("asked", ["its version", "to build"])
def test_a_compiler_that_hangs_is_ended_with_its_children(
    asked: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "VERSION_PATIENCE", 0.5)
    monkeypatch.setattr(build, "BUILD_PATIENCE", 0.5)
    compiler = program(cache.parent, "")
    child = cache.parent / "child"
    condition = "true" if asked == "its version" else "[ $1 != --version ]"
    Path(compiler).write_text(f"#!/bin/sh\nif {condition}; then sleep 60 & echo $! > {child}; wait; fi\n")
    assert refusal(monkeypatch, compiler) == f"{compiler} hangs: it was ended after 0.5 s"
    with suppress(psutil.NoSuchProcess):
        orphan = psutil.Process(int(child.read_text()))
        while orphan.status() != psutil.STATUS_ZOMBIE:  # nobody may wait for it here
            time.sleep(0.01)
