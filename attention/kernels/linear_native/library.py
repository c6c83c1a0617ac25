"""The C++ of this folder as a library: built for the CPU at hand on first use, then kept in a cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from attention.cache import cache_folder, replacing
from attention.kernels.linear_native.build import BuildError, chosen_compiler, compile_library, digest_of
from attention.torch_internals import constant_when_compiled

SEAL_BYTES = hashlib.sha256().digest_size
MOST_BYTES = 2**24
"""No library is as large: a larger file is another's, and not read."""
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
        address = x.data_ptr()
        if not address:
            raise ValueError(f"a tensor {tuple(x.shape)} has no memory: its storage was freed or never made")
        return cls(address, *x.stride()[:3])


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
    """The function, or the reason why there is none, for the rest of the process.

    A refusal holds as long: were it asked anew, ``auto`` could change its kernel within one measurement.
    """
    name = wanted or "the C++ compiler"
    try:
        compiler = chosen_compiler(wanted)
        name = compiler[0]
        digest = digest_of(compiler, storage)
        kept = _kept_file(storage, digest)
        return _kept(kept, digest) or _built(compiler, storage, kept, digest), None
    except BuildError as error:
        reason = str(error)
    except OSError as error:  # no such program, no place to write to, no library that loads
        reason = f"it cannot be built with {name} or loaded: {error}"
    return None, "".join(c if c.isprintable() else "?" for c in reason)


def _kept_file(storage: str, digest: str) -> Path | None:
    """Where the library is kept, under the digest of what it is made of; None where nothing can be."""
    try:
        return cache_folder() / f"linear-native-{storage}-{digest[:16]}.so"
    except FileNotFoundError:
        return None


def _kept(file: Path | None, digest: str) -> Native | None:
    """The function of a kept library, unless it is damaged, another's, or not to be loaded from there."""
    try:
        if file is None or not file.is_file() or file.stat().st_size > MOST_BYTES:
            return None
        content = file.read_bytes()
        library, seal = content[:-SEAL_BYTES], content[-SEAL_BYTES:]
        return _function(file) if seal == _seal(library, digest) else None
    except OSError:
        return None


def _built(compiler: list[str], storage: str, kept: Path | None, digest: str) -> Native:
    """The function of a new library, which is kept for other processes where that is possible."""
    with TemporaryDirectory(prefix="linear-native-") as folder:  # a loaded library needs no file
        file = Path(folder) / "linear-native.so"
        compile_library(compiler, storage, file)
        function = _function(file)  # what does not load is not kept
        library = file.read_bytes()
        with suppress(OSError):
            if kept is not None:
                with replacing(kept) as provisional:
                    provisional.write_bytes(library + _seal(library, digest))
        return function


def _seal(library: bytes, digest: str) -> bytes:
    """The end of a kept file: loading one that was cut or changed would end the process.

    It depends on what the library is made of as well, so that no other one takes its place.
    """
    return hashlib.sha256(digest.encode() + library).digest()


def _function(file: Path) -> Native:
    # torch is loaded: where its OpenMP has the name that this library asks for, both share its threads.
    function = getattr(ctypes.CDLL(str(file)), "linear_native", None)
    if function is None:
        raise OSError(f"{file.name} has no function linear_native")
    function.argtypes, function.restype = (ctypes.POINTER(Call), ctypes.c_int), None
    loaded: Native = function
    return loaded
