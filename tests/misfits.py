"""Tensors that are no q, k and v of one attention, each made from three that are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Three = tuple[Tensor, Tensor, Tensor]

MISFITS: dict[str, Callable[[Tensor, Tensor, Tensor], Three]] = {
    "k a head short": lambda q, k, v: (q, k[:, :1], v),
    "k a batch short": lambda q, k, v: (q, k[:1], v),
    "k a token short": lambda q, k, v: (q, k[:, :, 1:], v),
    "k narrower": lambda q, k, v: (q, k[..., 1:].contiguous(), v),
    "k wider": lambda q, k, v: (q, torch.cat([k, k], -1), v),
    "v a head short": lambda q, k, v: (q, k, v[:, :1]),
    "v a token short": lambda q, k, v: (q, k, v[:, :, 1:]),
    "v a batch short": lambda q, k, v: (q, k, v[:1]),
    "q a head more": lambda q, k, v: (torch.cat([q, q[:, :1]], 1), k, v),
    "all of rank 3": lambda q, k, v: (q[0], k[0], v[0]),
    "v of rank 5": lambda q, k, v: (q, k, v[None]),
    "v of rank 0": lambda q, k, v: (q, k, v[0, 0, 0, 0]),
    "q of rank 0": lambda q, k, v: (q[0, 0, 0, 0], k, v),
    "no width of q and k": lambda q, k, v: (q[..., :0], k[..., :0], v),
    "no width of v": lambda q, k, v: (q, k, v[..., :0]),
    "q of another dtype": lambda q, k, v: (q.double(), k, v),
    "k of another dtype": lambda q, k, v: (q, k.half(), v),
    "v of another dtype": lambda q, k, v: (q, k, v.bfloat16()),
    "all integers": lambda q, k, v: (q.long(), k.long(), v.long()),
    "all complex": lambda q, k, v: (q + 0j, k + 0j, v + 0j),
    "v elsewhere": lambda q, k, v: (q, k, v.to("meta")),
}


def three(batch: int = 2, heads: int = 2, tokens: int = 70, width: int = 8, value_width: int = 8) -> Three:
    """q, k and v that fit together, in float32."""
    q, k = torch.randn(2, batch, heads, tokens, width)
    return q, k, torch.randn(batch, heads, tokens, value_width)
