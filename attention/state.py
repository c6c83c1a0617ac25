"""The state of linear attention: what it keeps of all tokens so far."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from attention.case import DTYPES


class State(NamedTuple):
    """S = sum phi(k) v' and z = sum phi(k) over the tokens so far, of each sequence and head of keys.

    Its size does not depend on how many tokens there were: Hkv D (Dv + 1) numbers a sequence. It is a tuple,
    so that torch's compilers and transforms take it apart and put it together.

    Attributes:
        S: ``[B, Hkv, D, Dv]``; float32, and float64 where the tokens are.
        z: ``[B, Hkv, D]`` of the same dtype, on the same device.
    """

    S: Tensor
    z: Tensor

    @classmethod
    def empty(
        cls,
        batch: int,
        kv_heads: int,
        head_dim: int,
        value_dim: int | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> State:
        """The state before the first token, all zeros; ``value_dim`` is ``head_dim`` unless given.

        Raises:
            TypeError: a size that is no integer, or no dtype.
            ValueError: a size below 0, or a dtype in which nothing is computed.
        """
        shape, width = (batch, kv_heads, head_dim), head_dim if value_dim is None else value_dim
        sizes = f"got batch {batch}, kv_heads {kv_heads}, head_dim {head_dim}, value_dim {value_dim}"
        if not all(isinstance(n, int | torch.SymInt) and not isinstance(n, bool) for n in (*shape, width)):
            raise TypeError(f"a state has integers for sizes; {sizes:.200}")
        if min(*shape, width) < 0:
            raise ValueError(f"a state has sizes of at least 0; {sizes}")
        check_kept_dtype("a state", dtype)
        S = torch.zeros(*shape, width, dtype=dtype, device=device)
        return cls(S, torch.zeros(shape, dtype=dtype, device=device))

    @property
    def dtype(self) -> torch.dtype:
        return self.S.dtype

    @property
    def device(self) -> torch.device:
        return self.S.device

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values, Hkv."""
        return self.S.shape[1]

    @property
    def bytes(self) -> int:
        """Bytes that both take."""
        return sum(x.numel() * x.element_size() for x in self)

    def to(self, *args: object, **kwargs: object) -> State:
        """On another device or in another dtype, by the arguments of ``Tensor.to``."""
        S, z = (x.to(*args, **kwargs) for x in self)  # type: ignore[call-overload]
        return State(S, z)

    def clone(self) -> State:
        """A copy."""
        return State(self.S.clone(), self.z.clone())

    def detach(self) -> State:
        """The state without the graph that made it; the tensors share its memory."""
        return State(self.S.detach(), self.z.detach())


def check_kept_dtype(what: str, dtype: object) -> None:
    """Refuse to keep a context in a dtype that attention is not computed in.

    Raises:
        TypeError: no dtype.
        ValueError: integers, bool, complex numbers, or floating-point numbers of less than 16 bits.
    """
    known = ", ".join(DTYPES)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"the dtype of {what} must be one of {known}; got {dtype!r:.60}")
    if str(dtype).removeprefix("torch.") not in DTYPES:
        raise ValueError(f"{what} is kept in one of {known}; got {dtype}")
