"""A case: one point that can be measured, and the tensors that belong to it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

MODES = ("bidirectional", "causal")
PHASES = ("forward", "forward_backward")
SUBJECTS = ("operator", "layer", "ceiling")
DTYPES = ("float64", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Case:
    """One kernel at one shape, mode, phase, dtype and device.

    ``value_dim`` is the width Dv of the values; 0 stands for "as wide as the keys" (D). ``subject``
    is what is measured: the attention ``operator``, a self-attention ``layer`` of width H x D around
    it, or a ``ceiling`` of the device.

    Raises:
        ValueError: a mode, phase or dtype that does not exist, or a size below its minimum
            (``seq_len`` and ``batch`` may be 0, as they may in torch).
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

    def __post_init__(self) -> None:
        for field, value, known in (
            ("mode", self.mode, MODES),
            ("phase", self.phase, PHASES),
            ("dtype", self.dtype, DTYPES),
            ("subject", self.subject, SUBJECTS),
        ):
            if value not in known:
                raise ValueError(f"{field} {value!r} does not exist; choose one of {', '.join(known)}")
        object.__setattr__(self, "value_dim", self.value_dim or self.head_dim)
        for field, least in (("seq_len", 0), ("batch", 0), ("heads", 1), ("head_dim", 1), ("value_dim", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"{field} must be at least {least}, got {getattr(self, field)}")

    @property
    def family(self) -> str:
        """``standard`` or ``linear``: the kernel's name up to its first dash."""
        return self.kernel.partition("-")[0]

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

        Example: ``linear-chunked/causal/forward/cpu/float32/B1-H8-N4096-D64``; a value width
        that differs from D is appended as ``-V32``; a layer begins with ``layer/``.
        """
        shape = f"B{self.batch}-H{self.heads}-N{self.seq_len}-D{self.head_dim}{self._value_suffix}"
        parts = (self.kernel, self.mode, self.phase, self.device, self.dtype, shape)
        return "/".join((*self._subject_prefix, *parts))

    @property
    def id(self) -> str:
        """The name of the case among pytest's ids, readable and good for ``-k``."""
        shape = f"N{self.seq_len}-B{self.batch}-H{self.heads}-D{self.head_dim}{self._value_suffix}"
        parts = (self.kernel, self.mode, self.phase, shape, self.dtype, self.device)
        return "-".join((*self._subject_prefix, *parts))

    @property
    def _subject_prefix(self) -> tuple[str, ...]:
        return ("layer",) if self.subject == "layer" else ()

    @property
    def _value_suffix(self) -> str:
        return "" if self.value_dim == self.head_dim else f"-V{self.value_dim}"

    def fields(self) -> dict[str, Any]:
        """The case as flat JSON scalars, under the names of the record."""
        return {"key": self.key, "family": self.family, **asdict(self)}


def make_inputs(case: Case, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Standard normal q, k ``[B, H, N, D]`` and v ``[B, H, N, Dv]`` of the case's dtype and device.

    Drawn from a generator of their own, so that they are the same on every call. They require
    gradients where the case times a backward pass.
    """
    generator = torch.Generator(case.device).manual_seed(seed)
    q, k, v = (
        torch.randn(
            (case.batch, case.heads, case.seq_len, width),
            generator=generator,
            dtype=case.torch_dtype,
            device=case.device,
            requires_grad=case.backward,
        )
        for width in (case.head_dim, case.head_dim, case.value_dim)
    )
    return q, k, v
