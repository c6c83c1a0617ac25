"""Linear attention by the matrix of all scores, and how its forms are called and compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attention import linear_attention, linear_attention_step
from attention.kernels.feature_maps import get_feature_map
from tests.interpreted import INTERPRETED

attend: Any = linear_attention
step: Any = linear_attention_step
"""Untyped, because tests choose the options of a form as they run."""
BACKENDS = ["explicit", "chunked", "native"] + ["triton"] * INTERPRETED


def wide_of(backend: str) -> torch.dtype:
    """The widest dtype that a backend computes in."""
    return torch.float32 if backend == "triton" else torch.float64


def tolerance(backend: str) -> float:
    """Sums of some hundred terms, twice (forward and backward), each of which is rounded."""
    return 500 * torch.finfo(wide_of(backend)).eps


def textbook(
    *inputs: Tensor,
    causal: bool = False,
    feature_map: Any = "elu",
    eps: float = 1e-6,
    key_padding_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output and last state by the matrix of all scores, keys repeated, a query that sees no key set to 0."""
    q, k, v, *state = (x.double() for x in inputs)
    phi, group = get_feature_map(feature_map), q.shape[1] // k.shape[1]
    seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).expand(q.shape[0], 1, -1, -1)
    seen = seen.tril(k.shape[2] - q.shape[2]) if causal else seen
    if key_padding_mask is not None:
        seen = seen & ~key_padding_mask[:, None, None, :]
        k, v = (x.masked_fill(key_padding_mask[:, None, :, None], 0) for x in (k, v))
    phi_q, phi_k = phi(q), phi(k)
    if key_padding_mask is not None:
        phi_k = phi_k.masked_fill(key_padding_mask[:, None, :, None], 0)
    weights = (phi_q @ phi_k.repeat_interleave(group, 1).mT) * seen
    num, den = weights @ v.repeat_interleave(group, 1), weights.sum(-1, keepdim=True)
    blind = ~seen.any(-1, keepdim=True)
    last_S, last_z = phi_k.mT @ v, phi_k.sum(2)
    if state:
        (S, z), blind = state, torch.zeros_like(blind)
        num = num + phi_q @ S.repeat_interleave(group, 1)
        den = den + phi_q @ z.repeat_interleave(group, 1).unsqueeze(-1)
        last_S, last_z = last_S + S, last_z + z
    return num / (den + eps).masked_fill(blind, 1), last_S, last_z


def tensors(
    dtype: torch.dtype, batch: int, heads: tuple[int, int], lengths: tuple[int, int], widths: tuple[int, int]
) -> Any:
    """q, k, v, S, z; the state is as of some tokens before."""
    (Hq, Hkv), (Nq, Nk), (D, E) = heads, lengths, widths
    shapes = [(batch, Hq, Nq, D), (batch, Hkv, Nk, D), (batch, Hkv, Nk, E), (batch, Hkv, D, E)]
    made = [torch.randn(shape, dtype=dtype) for shape in shapes]
    return [x.requires_grad_() for x in (*made, torch.rand(batch, Hkv, D, dtype=dtype) + 0.5)]


def cut(inputs: Sequence[Tensor], start: int, stop: int) -> Any:
    """Tokens of q, k and v."""
    return [x[:, :, start:stop] for x in inputs]


def gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], upstream: Sequence[Tensor]
) -> list[Tensor]:
    """Gradients of the outputs in the inputs, 0 where an output does not depend on one."""
    cast = [g.to(y.dtype) for g, y in zip(upstream, outputs, strict=True)]
    found = torch.autograd.grad(outputs, inputs, cast, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


def assert_alike(got: Sequence[Tensor], expected: Sequence[Tensor], backend: str) -> None:
    """Shapes are equal, and each error lies within the tolerance of the backend, times the largest value."""
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        if one.numel():
            one, other = one.detach().double(), other.detach()
            scale = max(1.0, float(other.abs().max()))
            assert float((one - other).abs().max()) < tolerance(backend) * scale
