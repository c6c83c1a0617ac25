"""The state of linear attention: what it keeps of all tokens so far."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


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
            ValueError: a size below 0.
        """
        shape = batch, kv_heads, head_dim
        if min(*shape, value_dim or 0) < 0:
            raise ValueError(
                "a state has sizes of at least 0; "
                f"got batch {batch}, kv_heads {kv_heads}, head_dim {head_dim}, value_dim {value_dim}"
            )
        S = torch.zeros(*shape, head_dim if value_dim is None else value_dim, dtype=dtype, device=device)
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
