"""The C++ of this folder as a library: built for the CPU at hand on first use, then kept in a cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attention.cache import cache_folder, replacing
from attention.torch_internals import constant_when_compiled

SOURCES = ("linear.cpp", "products.h", "vectors.h")
COMPILERS = ("g++", "clang++")
FLAGS = ("-std=c++17", "-O2", "-march=native", "-fopenmp", "-shared", "-fPIC")
STORAGE = {
    torch.float32: "float",
    torch.float64: "double",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
"""The C++ type of a dtype."""

Native = Callable[[Any, int], None]


class Strided(ctypes.Structure):
    """A tensor ``[B, H, N, W]`` as the C++ struct has it: strides in elements; the last stride is 1."""

    _fields_ = [("data", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("batch", "head", "token"))]

    @classmethod
    def of(cls, x: Tensor) -> Strided:
        return cls(x.data_ptr(), *x.stride()[:3])


class Call(ctypes.Structure):
    """The arguments of one call, in the order of the C++ struct."""

    _fields_ = [
        *((name, Strided) for name in ("q", "k", "v", "out", "grad_out", "dq", "dk", "dv")),
        *((name, ctypes.c_void_p) for name in ("inverse", "states", "sums", "scratch")),
        *((name, ctypes.c_int64) for name in ("batch", "heads", "tokens", "key_width", "value_width")),
        *((name, ctypes.c_int64) for name in ("segments", "segment_tokens", "threads", "scratch_size")),
        *((name, ctypes.c_int64) for name in ("map", "causal")),
        ("eps", ctypes.c_double),
    ]


def native(dtype: torch.dtype) -> Native:
    """The compiled function, ``linear_native(Call, backward)``.

    Raises:
        RuntimeError: it cannot be built here; the message says why.
    """
    function, reason = _loaded(STORAGE[dtype], os.environ.get("CXX"))
    if function is None:
        raise RuntimeError(f"linear-native: {reason}")
    return function


@constant_when_compiled
def missing(dtype: torch.dtype) -> str | None:
    """The reason why this dtype has no library here, or None where it has one."""
    return _loaded(STORAGE[dtype], os.environ.get("CXX"))[1]


@lru_cache(maxsize=16)
def _loaded(storage: str, wanted: str | None) -> tuple[Native | None, str | None]:
    compiler = shlex.split(wanted) if wanted else [name for name in COMPILERS if shutil.which(name)][:1]
    if not compiler:
        return None, f"it is compiled here, and there is no C++ compiler; install {' or '.join(COMPILERS)}"
    try:
        path = _library(compiler, storage)
        if not path.exists():
            _build(compiler, storage, path)
        # torch is loaded: where its OpenMP has the name that this library asks for, both share its threads.
        function = ctypes.CDLL(str(path)).linear_native
    except subprocess.CalledProcessError as error:
        said = next((line for line in error.stderr.splitlines() if "error" in line), error.stderr[:200])
        return None, f"{compiler[0]} cannot compile it ({said.strip()}); install GCC 12 or later, or set CXX"
    except (OSError, RuntimeError) as error:  # no such program, no place to write to, no home
        return None, f"it cannot be built with {compiler[0]} or loaded: {error}"
    function.argtypes, function.restype = (ctypes.POINTER(Call), ctypes.c_int), None
    return function, None


def _library(compiler: list[str], storage: str) -> Path:
    """The path of the library, which names its sources, compiler and CPU by a digest."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=True).stdout
    sources = "".join((Path(__file__).parent / name).read_text() for name in SOURCES)
    parts = (sources, *compiler, version, *FLAGS, storage, _cpu())
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return cache_folder() / f"linear-native-{storage}-{digest}.so"


def _cpu() -> str:
    """The properties that ``-march=native`` depends on: machines that differ may share a home."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = ("model name", "flags", "Features", "CPU part")
    return "\n".join([platform.machine(), *sorted({line for line in lines if line.startswith(names)})])


def _build(compiler: list[str], storage: str, path: Path) -> None:
    source = Path(__file__).parent / SOURCES[0]
    with replacing(path) as unfinished:
        command = [*compiler, *FLAGS, f"-DSTORAGE={storage}", str(source), "-o", str(unfinished)]
        subprocess.run(command, capture_output=True, text=True, check=True)
