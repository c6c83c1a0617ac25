"""The C++ compiler: a program that may be missing, broken, silent or hanging, and what it says then."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

HEADERS = ("chunks.h", "products.h", "vectors.h")
"""What the programs share, in this folder; a program may have others beside it."""
COMPILERS = ("g++", "clang++")
FLAGS = ("-std=c++17", "-O2", "-march=native", "-fopenmp", "-shared", "-fPIC")
VERSION_PATIENCE, BUILD_PATIENCE = 20.0, 180.0
"""Seconds after which a compiler counts as hanging, asked for its version or to build, which takes one."""
LACKS = (
    *map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOMEM, errno.EMFILE)),
    "Killed", "memory exhausted",
)  # fmt: skip
"""Words of a compiler that lacks something on this machine, whatever its version."""


class BuildError(Exception):
    """The reason, in one sentence, why there is no library."""


def chosen_compiler(wanted: str | None) -> list[str]:
    """The compiler's command: what ``CXX`` holds, else the first of those known that is installed.

    Raises:
        BuildError: there is none, or CXX cannot be split into words.
    """
    try:
        words = shlex.split(wanted or "")
    except ValueError as error:
        raise BuildError(f"CXX is {wanted!r}, which is no command ({error}); set it to a compiler") from None
    words = words or [name for name in COMPILERS if shutil.which(name)][:1]
    if not words:
        raise BuildError(
            f"it is compiled here, and there is no C++ compiler; install {' or '.join(COMPILERS)}"
        )
    return words


def digest_of(compiler: list[str], source: Path, storage: str) -> str:
    """What a library is made of: source, headers, compiler, flags, storage type, and the CPU.

    Raises:
        BuildError: the compiler does not tell its version.
        OSError: it cannot be started.
    """
    status, version = _run([*compiler, "--version"], VERSION_PATIENCE)
    if status:
        raise BuildError(
            f"{compiler[0]} --version failed ({_gist(version, status)}); set CXX to a C++ compiler"
        )
    beside = sorted(source.parent.glob("*.h"))
    sources = (source, *beside, *(Path(__file__).parent / name for name in HEADERS))
    parts = (*(file.read_text() for file in sources), *compiler, version, *FLAGS, storage, _cpu())
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()


def compile_library(compiler: list[str], source: Path, storage: str, path: Path) -> None:
    """Compile the library for one storage type.

    Raises:
        BuildError: the compiler failed, took too long or left no library.
        OSError: it cannot be started.
    """
    command = [*compiler, *FLAGS, f"-DSTORAGE={storage}", str(source), "-o", str(path)]
    status, said = _run(command, BUILD_PATIENCE)
    gist = _gist(said, status, *LACKS)
    if status and any(words in said for words in LACKS):
        raise BuildError(
            f"{compiler[0]} could not finish ({gist}); make room, or set TMPDIR to another folder"
        )
    if status:
        raise BuildError(f"{compiler[0]} cannot compile it ({gist}); install GCC 12 or later, or set CXX")
    if not path.is_file() or not path.stat().st_size:
        raise BuildError(f"{compiler[0]} left no library and no error; set CXX to a C++ compiler")


def _run(command: list[str], patience: float) -> tuple[int, str]:
    """Exit status of a program and what it said, in English; a hanging one is ended with its children."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "LC_ALL": "C"}, start_new_session=True,
    )  # fmt: skip
    with process:
        try:
            said, _ = process.communicate(timeout=patience)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise BuildError(f"{command[0]} hangs: it was ended after {patience:g} s") from None
            raise
    return process.returncode, said.decode(errors="replace")


def _gist(said: str, status: int, *words: str) -> str:
    """The first line with one of the words, those named first before others; else the first line at all."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for word in (*words, "error", "") for line in lines if word in line]
    return telling[0][:200] if telling else f"exit status {status}, without a word"


def _cpu() -> str:
    """The properties that ``-march=native`` depends on: machines that differ may share a home."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(errors="replace").splitlines() if listing.exists() else []
    names = ("model name", "flags", "Features", "CPU part")
    return "\n".join([platform.machine(), *sorted({line for line in lines if line.startswith(names)})])
