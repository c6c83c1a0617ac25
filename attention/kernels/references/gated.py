"""The oracles of gated linear attention and of the gated delta rules, each a recurrence a token at a time.

Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]``, logarithms of gates of a head ``g [B, H, N]`` or of each
column of its keys ``gk [B, H, N, D]``, rates ``beta [B, H, N]`` -> ``[B, H, N, Dv]`` in ``dtype``. All are
causal only, and ``scale`` is 1/sqrt(D) unless it is given.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from attention.kernels.registry import Reference

UNIT_EPS = 1e-6
"""What is added to the squared norm of a query or a key before they are divided by it."""


def gla_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gk: Tensor,
    *,
    causal: bool = True,
    scale: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """S = Diag(exp(gk)) S + k v', o = scale q S (Yang et al. 2023, arXiv 2312.06635).

    Raises:
        ValueError: not causal.
    """
    _check_causal("gated linear attention", causal)
    q, k, v, gk = (x.to(dtype) for x in (q, k, v, gk))
    S, outputs = _states(k, v), [v[:, :, :0]]
    for query, key, value, gate in _tokens(_scaled(q, scale), k, v, gk):
        S = gate.exp()[..., :, None] * S + key[..., :, None] * value[..., None, :]
        outputs.append(query[..., None, :] @ S)
    return torch.cat(outputs, dim=2)


def gated_delta_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    *,
    causal: bool = True,
    scale: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """S = exp(g) (I - beta k k') S + beta k v', o = scale q S (Yang, Kautz, Hatamizadeh 2024).

    arXiv 2412.06464. q and k are divided by their norms first, as the layer of the paper does.

    Raises:
        ValueError: not causal.
    """
    _check_causal("the gated delta rule", causal)
    q, k, v, g, beta = (x.to(dtype) for x in (q, k, v, g, beta))
    q, k = _unit(q), _unit(k)
    S, outputs = _states(k, v), [v[:, :, :0]]
    for query, key, value, gate, rate in _tokens(_scaled(q, scale), k, v, g, beta):
        written = (rate[..., None] * key)[..., :, None]
        erased = S - written @ (key[..., None, :] @ S)
        S = gate.exp()[..., None, None] * erased + written * value[..., None, :]
        outputs.append(query[..., None, :] @ S)
    return torch.cat(outputs, dim=2)


def kda_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gk: Tensor,
    beta: Tensor,
    *,
    causal: bool = True,
    scale: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """S = (I - beta k k') Diag(exp(gk)) S + beta k v', o = scale q S (Kimi Team 2025, Kimi Linear).

    arXiv 2510.26692. q and k are divided by their norms first, as the layer of the paper does.

    Raises:
        ValueError: not causal.
    """
    _check_causal("Kimi delta attention", causal)
    q, k, v, gk, beta = (x.to(dtype) for x in (q, k, v, gk, beta))
    q, k = _unit(q), _unit(k)
    S, outputs = _states(k, v), [v[:, :, :0]]
    for query, key, value, gate, rate in _tokens(_scaled(q, scale), k, v, gk, beta):
        kept = gate.exp()[..., :, None] * S
        error = value[..., None, :] - key[..., None, :] @ kept
        S = kept + (rate[..., None] * key)[..., :, None] * error
        outputs.append(query[..., None, :] @ S)
    return torch.cat(outputs, dim=2)


def _check_causal(what: str, causal: bool) -> None:
    if not causal:
        raise ValueError(f"{what} is causal only; pass causal=True")


def _scaled(q: Tensor, scale: float | None) -> Tensor:
    return q * (q.shape[-1] ** -0.5 if scale is None else scale)


def _unit(x: Tensor) -> Tensor:
    """Vectors divided by their norms: x / sqrt(x.x + eps)."""
    return x * (x.square().sum(-1, keepdim=True) + UNIT_EPS).rsqrt()


def _states(k: Tensor, v: Tensor) -> Tensor:
    """The state before the first token, ``[B, H, D, Dv]``."""
    return v.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1])


def _tokens(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """A token of each tensor at a time."""
    # Taken apart at once: an index a token would have a gradient as large as all of them.
    return zip(*(x.unbind(2) for x in tensors), strict=True)


GLA = Reference("gated linear attention", gla_reference, ("gk",), causal_only=True)
GATED_DELTA = Reference("gated delta rule", gated_delta_reference, ("g", "beta"), causal_only=True)
KDA = Reference("Kimi delta attention", kda_reference, ("gk", "beta"), causal_only=True)
