"""A case: one point that can be measured, and the tensors that belong to it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

MODES = ("bidirectional", "causal")
PHASES = ("forward", "forward_backward")
INFERENCE = ("prefill", "decode")
"""Phases of a model that writes: of what it was given, and of each new token."""
SUBJECTS = ("operator", "layer", "ceiling")
DTYPES = ("float64", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Case:
    """One kernel at one shape, mode, phase, dtype and device.

    ``value_dim`` is the width Dv of the values; 0 stands for "as wide as the keys" (D). ``subject``
    is what is measured: the attention ``operator``, a self-attention ``layer`` of width H x D around
    it, or a ``ceiling`` of the device.

    ``kv_heads`` is the number of heads of keys and values, Hkv, each of which serves H / Hkv heads of
    queries; 0 stands for "as many as heads". ``query_len`` is the number of queries, Nq; None stands for as
    many as keys, ``seq_len``, and in the phase ``decode`` for one. Phases: ``forward``,
    ``forward_backward``, ``prefill`` (a forward that keeps the state or cache) and ``decode``
    (``query_len`` new tokens behind a context; ``seq_len`` counts them among the keys).

    Raises:
        TypeError: a size that is no integer.
        ValueError: a mode, phase or dtype that does not exist, a size below its minimum (``seq_len`` and
            ``batch`` may be 0, as they may in torch), heads that the heads of keys do not divide, or a
            decode that is bidirectional.
    """

    kernel: str
    mode: str
    seq_len: int
    phase: str = "forward"
    device: str = "cpu"
    dtype: str = "float32"
    batch: int = 1
    heads: int = 8
    head_dim: int = 64
    value_dim: int = 0
    subject: str = "operator"
    kv_heads: int = 0
    query_len: int | None = None

    def __post_init__(self) -> None:
        for field, value, known in (
            ("mode", self.mode, MODES),
            ("phase", self.phase, (*PHASES, *INFERENCE)),
            ("dtype", self.dtype, DTYPES),
            ("subject", self.subject, SUBJECTS),
        ):
            if value not in known:
                raise ValueError(f"{field} {value!r} does not exist; choose one of {', '.join(known)}")
        object.__setattr__(self, "value_dim", self.value_dim or self.head_dim)
        for field, least in (("seq_len", 0), ("batch", 0), ("heads", 1), ("head_dim", 1), ("value_dim", 1)):
            if not isinstance(value := getattr(self, field), (Integral, torch.SymInt)):
                raise TypeError(f"{field} must be an integer, got {value!r:.60}")
            if value < least:
                raise ValueError(f"{field} must be at least {least}, got {value}")
        if self.kv_heads < 0 or self.heads % self.key_heads:
            raise ValueError(f"heads must be a multiple of kv_heads, got {self.heads} and {self.kv_heads}")
        if self.query_len is not None and self.query_len < 0:
            raise ValueError(f"query_len must be at least 0, got {self.query_len}")
        if self.phase == "decode" and not self.causal:
            raise ValueError("decode is causal: a new token sees those before it")

    @property
    def family(self) -> str:
        """``standard`` or ``linear``: the kernel's name up to its first dash."""
        return self.kernel.partition("-")[0]

    @property
    def key_heads(self) -> int:
        """Heads of keys and values, Hkv."""
        return self.kv_heads or self.heads

    @property
    def queries(self) -> int:
        """Queries of a sequence, Nq."""
        if self.query_len is not None:
            return self.query_len
        return 1 if self.phase == "decode" else self.seq_len

    @property
    def causal(self) -> bool:
        return self.mode == "causal"

    @property
    def backward(self) -> bool:
        return self.phase == "forward_backward"

    @property
    def torch_dtype(self) -> torch.dtype:
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.torch_dtype.itemsize

    @property
    def key(self) -> str:
        """The stable identity, made from the fields alone.

        Example: ``linear-chunked/causal/forward/cpu/float32/B1-H8-N4096-D64``; what differs from that is
        appended: a width of values as ``-V32``, heads of keys as ``-KV2``, a number of queries as ``-Q1``; a
        layer begins with ``layer/``.
        """
        shape = f"B{self.batch}-H{self.heads}-N{self.seq_len}-D{self.head_dim}{self._suffix}"
        parts = (self.kernel, self.mode, self.phase, self.device, self.dtype, shape)
        return "/".join((*self._subject_prefix, *parts))

    @property
    def id(self) -> str:
        """The name of the case among pytest's ids, readable and good for ``-k``."""
        shape = f"N{self.seq_len}-B{self.batch}-H{self.heads}-D{self.head_dim}{self._suffix}"
        parts = (self.kernel, self.mode, self.phase, shape, self.dtype, self.device)
        return "-".join((*self._subject_prefix, *parts))

    @property
    def _subject_prefix(self) -> tuple[str, ...]:
        return ("layer",) if self.subject == "layer" else ()

    @property
    def _suffix(self) -> str:
        width = "" if self.value_dim == self.head_dim else f"-V{self.value_dim}"
        heads = "" if self.key_heads == self.heads else f"-KV{self.key_heads}"
        queries = "" if self.query_len is None and self.phase != "decode" else f"-Q{self.queries}"
        return width + heads + queries

    def fields(self) -> dict[str, Any]:
        """The case as flat JSON scalars, under the names of the record."""
        resolved = {"kv_heads": self.key_heads, "query_len": self.queries}
        return {"key": self.key, "family": self.family, **asdict(self), **resolved}


def make_inputs(case: Case, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Standard normal q ``[B, H, Nq, D]``, k ``[B, Hkv, N, D]`` and v ``[B, Hkv, N, Dv]`` of a case.

    Of its dtype and device, from a generator of their own, so that they are the same on every call. They
    require gradients where the case times a backward pass.
    """
    generator = torch.Generator(case.device).manual_seed(seed)
    q, k, v = (
        torch.randn(
            (case.batch, heads, tokens, width),
            generator=generator,
            dtype=case.torch_dtype,
            device=case.device,
            requires_grad=case.backward,
        )
        for heads, tokens, width in (
            (case.heads, case.queries, case.head_dim),
            (case.key_heads, case.seq_len, case.head_dim),
            (case.key_heads, case.seq_len, case.value_dim),
        )
    )
    return q, k, v
