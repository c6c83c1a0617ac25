"""A C++ program as a library: built for the CPU at hand on first use, then kept in a cache.

A program is a file named as the function in it, such as ``linear_native.cpp``.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from attention.cache import cache_folder, replacing
from attention.kernels.feature_maps import FEATURE_MAPS
from attention.kernels.native.build import BuildError, chosen_compiler, compile_library, digest_of
from attention.kernels.native.plan import segment_tokens
from attention.kernels.tensors import dtype_name
from attention.torch_internals.transforms import constant_when_compiled

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
MAPS = list(FEATURE_MAPS)
"""Their numbers in C++ are their places here."""
BUFFERS = ("inverse", "gates", "grad_gates", "before", "states", "sums", "scratch")

Native = Callable[[Any, int], None]


def wide(x: Tensor) -> torch.dtype:
    """The dtype in which sums of such a tensor are."""
    return torch.promote_types(x.dtype, torch.float32)


def address(x: Tensor) -> int:
    """Where a tensor lies; null for one of no elements.

    Raises:
        ValueError: it has elements and no memory.
    """
    address = x.data_ptr()
    if not address and x.numel():
        raise ValueError(f"a tensor {tuple(x.shape)} has no memory: its storage was freed or never made")
    return address


class Strided(ctypes.Structure):
    """A tensor ``[B, H, N, W]`` as the C++ struct has it: strides in elements; the last stride is 1."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("batch", "head", "token", "heads", "tokens")),
    ]

    @classmethod
    def of(cls, x: Tensor) -> Strided:
        return cls(address(x), *x.stride()[:3], *x.shape[1:3])


class Sums(ctypes.Structure):
    """A state or its gradient: S ``[B, Hkv, D, Dv]`` and z ``[B, Hkv, D]``, contiguous; or null."""

    _fields_ = [("S", ctypes.c_void_p), ("z", ctypes.c_void_p)]

    @classmethod
    def of(cls, state: Sequence[Tensor]) -> Sums:
        return cls(*map(address, state))


class Call(ctypes.Structure):
    """The arguments of one call, in the order of the C++ struct; what is not given is null or zero."""

    _fields_ = [
        *((name, Strided) for name in ("q", "k", "v", "out", "grad_out", "dq", "dk", "dv")),
        *((name, ctypes.c_void_p) for name in BUFFERS),
        *((name, Sums) for name in ("first", "last", "behind")),
        *((name, ctypes.c_int64) for name in ("batch", "heads", "tokens", "key_width", "value_width")),
        *((name, ctypes.c_int64) for name in ("segments", "segment_tokens", "threads", "scratch_size")),
        *((name, ctypes.c_int64) for name in ("map", "causal", "group")),
        *((name, ctypes.c_int64) for name in ("query_segments", "query_segment_tokens", "sequences")),
        ("ends", ctypes.c_void_p),
        ("eps", ctypes.c_double),
    ]


Addresses = ctypes.c_void_p * 8
"""Where the tensors of a step are: q, k, v, the output, S and z before, and behind."""


def call(
    program: str, tensors: Mapping[str, Tensor], buffers: Mapping[str, Tensor], parts: int, scratch: int,
    phi: str, *, backward: bool, causal: bool = True, eps: float = 0.0, query_parts: int | None = None,
    states: Mapping[str, Sequence[Tensor]] | None = None, ends: Tensor | None = None,
) -> None:  # fmt: skip
    """Call a program on tensors and buffers by their names in its struct.

    Args:
        program: The C++ file.
        tensors: ``[B, H, N, W]``, q and v among them.
        buffers: contiguous, of the dtype that sums are in.
        parts: segments that a sequence of keys is cut into, or all tokens of packed ones.
        scratch: elements that a thread works in.
        phi: name of the feature map.
        backward: whether gradients are computed.
        causal: as the program has it.
        eps: as the program has it.
        query_parts: segments of a sequence of queries; as many as of keys unless given.
        states: S and z ``first``, ``last`` and ``behind``, contiguous.
        ends: where packed sequences begin, and the last ends: int64, contiguous, and right.
    """
    q, v = tensors["q"], tensors["v"]
    query_parts = query_parts or parts
    threads = torch.get_num_threads()  # a backward may have others
    room = q.new_empty(threads * scratch, dtype=wide(q))
    given = Call(**{name: Strided.of(x) for name, x in tensors.items()})
    for name, x in buffers.items():
        setattr(given, name, address(x))
    given.scratch, given.scratch_size, given.threads = room.data_ptr(), scratch, threads
    for name, state in (states or {}).items():
        setattr(given, name, Sums.of(state))
    _size(given, q, v)
    given.segments, given.segment_tokens = parts, segment_tokens(v.shape[2], parts)
    given.query_segments, given.query_segment_tokens = query_parts, segment_tokens(q.shape[2], query_parts)
    given.sequences, given.ends = (1, None) if ends is None else (len(ends) - 1, address(ends))
    given.map, given.causal, given.eps = MAPS.index(phi), causal, eps
    native(program, q.dtype)(ctypes.byref(given), backward)


def prepared_step(
    program: str, tensors: Mapping[str, Tensor], phi: str, eps: float, threads: int
) -> Callable[..., None]:
    """A program's step of tensors of these shapes and strides, to be called with their ``Addresses``."""
    given = Call(**{name: Strided.of(x) for name, x in tensors.items()})
    _size(given, tensors["q"], tensors["v"])
    given.threads, given.map, given.eps = threads, MAPS.index(phi), eps
    step: Callable[..., None] = native(program, tensors["q"].dtype).step  # type: ignore[attr-defined]
    return partial(step, given)


def _size(given: Call, q: Tensor, v: Tensor) -> None:
    given.batch, given.heads, given.tokens, given.value_width = v.shape
    given.key_width, given.group = q.shape[3], q.shape[1] // max(1, v.shape[1])


def native(program: str, dtype: torch.dtype) -> Native:
    """The compiled function of a program, called with a ``Call`` and whether gradients are wanted.

    Raises:
        RuntimeError: it cannot be built here; the message says why.
    """
    function, reason = _loaded(program, STORAGE[dtype], os.environ.get("CXX"))
    if function is None:
        raise RuntimeError(f"{_name(Path(program))}: {reason}")
    return function


def refusal(program: str, device: str, dtype: torch.dtype) -> str | None:
    """The reason why a program does not serve this device and dtype here, or None where it does."""
    if device != "cpu":
        return f"it is compiled for CPUs, and the case is on {device}"
    if dtype not in STORAGE:
        return f"it computes in {', '.join(map(dtype_name, STORAGE))}, not {dtype_name(dtype)}"
    return missing(program, dtype)


@constant_when_compiled
def missing(program: str, dtype: torch.dtype) -> str | None:
    """The reason why this dtype has no library here, or None where it has one.

    A program is a string: torch 2.11's compiler takes a path for no constant.
    """
    return _loaded(program, STORAGE[dtype], os.environ.get("CXX"))[1]


@lru_cache(maxsize=32)
def _loaded(source: str, storage: str, wanted: str | None) -> tuple[Native | None, str | None]:
    """The function, or the reason why there is none, for the rest of the process.

    A refusal holds as long: were it asked anew, ``auto`` could change its kernel within one measurement.
    """
    program, name = Path(source), wanted or "the C++ compiler"
    try:
        compiler = chosen_compiler(wanted)
        name = compiler[0]
        digest = digest_of(compiler, program, storage)
        kept = _kept_file(program, storage, digest)
        return _kept(program, kept, digest) or _built(program, compiler, storage, kept, digest), None
    except BuildError as error:
        reason = str(error)
    except OSError as error:  # no such program, no place to write to, no library that loads
        reason = f"it cannot be built with {name} or loaded: {error}"
    return None, "".join(c if c.isprintable() else "?" for c in reason)


def _name(program: Path) -> str:
    """The name of the kernel that a program serves."""
    return program.stem.replace("_", "-")


def _kept_file(program: Path, storage: str, digest: str) -> Path | None:
    """Where the library is kept, under the digest of what it is made of; None where nothing can be."""
    try:
        return cache_folder() / f"{_name(program)}-{storage}-{digest[:16]}.so"
    except FileNotFoundError:
        return None


def _kept(program: Path, file: Path | None, digest: str) -> Native | None:
    """The function of a kept library, unless it is damaged, another's, or not to be loaded from there."""
    try:
        if file is None or not file.is_file() or file.stat().st_size > MOST_BYTES:
            return None
        content = file.read_bytes()
        library, seal = content[:-SEAL_BYTES], content[-SEAL_BYTES:]
        return _function(program, file) if seal == _seal(library, digest) else None
    except OSError:
        return None


def _built(program: Path, compiler: list[str], storage: str, kept: Path | None, digest: str) -> Native:
    """The function of a new library, which is kept for other processes where that is possible."""
    with TemporaryDirectory(prefix=f"{_name(program)}-") as folder:  # a loaded library needs no file
        file = Path(folder) / f"{_name(program)}.so"
        compile_library(compiler, program, storage, file)
        function = _function(program, file)  # what does not load is not kept
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


def _function(program: Path, file: Path) -> Native:
    # torch is loaded: where its OpenMP has the name that this library asks for, both share its threads.
    library = ctypes.CDLL(str(file))
    function = getattr(library, program.stem, None)
    if function is None:
        raise OSError(f"{file.name} has no function {program.stem}")
    function.argtypes, function.restype = (ctypes.POINTER(Call), ctypes.c_int), None
    if (step := getattr(library, f"{program.stem}_step", None)) is not None:
        step.argtypes, step.restype = (ctypes.POINTER(Call), Addresses), None
        function.step = step
    loaded: Native = function
    return loaded
