"""Stand-ins for packages of other projects, and for gated kernels of flash-linear-attention 0.6.

Each of these kernels is a whole matrix of weights without chunks or states. Its arguments have the names and
the layout of the package, [B, N, H, D], and none has a default: what an adapter leaves out is missed.
"""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor


def install(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> None:
    """Install a module that holds these members, within packages that hold nothing else, for one test."""
    for depth in range(1, name.count(".") + 2):
        parent = ".".join(name.split(".")[:depth])
        if not hasattr(sys.modules.get(parent), "stand_in"):
            stand_in = ModuleType(parent)
            monkeypatch.setattr(stand_in, "stand_in", True, raising=False)
            monkeypatch.setitem(sys.modules, parent, stand_in)
    for member, value in members.items():
        monkeypatch.setattr(sys.modules[name], member, value, raising=False)


def weights(x: Tensor, k: Tensor, g: Tensor) -> Tensor:
    """The sums over d of x_id k_jd exp(g_(j+1)d + ... + g_id), ``[B, H, N, N]``, 0 for j > i."""
    sums = g.cumsum(1)
    between = (sums[:, :, None] - sums[:, None]).exp()
    return torch.einsum("bihd,bjhd,bijhd->bhij", x, k, between.expand(*between.shape[:4], k.shape[-1])).tril()


def out_of(weights: Tensor, v: Tensor) -> tuple[Tensor, None]:
    return torch.einsum("bhij,bjhe->bihe", weights, v), None


def chunk_simple_gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor, scale: float) -> tuple[Tensor, None]:
    return out_of(scale * weights(q, k, g[..., None]), v)


def chunk_gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor, scale: float) -> tuple[Tensor, None]:
    assert q.is_contiguous() and q.shape == k.shape == g.shape
    return out_of(scale * weights(q, k, g), v)


def delta(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, scale: float, normalised: bool
) -> tuple[Tensor, None]:
    """What is written at j is u_j = beta_j (v_j - what is read with k_j before): one system of equations."""
    assert normalised and beta.shape == q.shape[:3] and q.is_contiguous()
    q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    rates = beta.transpose(1, 2)[..., None]
    system = torch.eye(k.shape[1]).to(k) + rates * weights(k, k, g).tril(-1)
    written = torch.linalg.solve_triangular(system, rates * v.transpose(1, 2), upper=False)
    return out_of(scale * weights(q, k, g), written.transpose(1, 2))


def chunk_gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, scale: float, use_qk_l2norm_in_kernel: bool
) -> tuple[Tensor, None]:
    return delta(q, k, v, g[..., None], beta, scale, use_qk_l2norm_in_kernel)


def chunk_kda(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, scale: float, use_qk_l2norm_in_kernel: bool
) -> tuple[Tensor, None]:
    assert g.shape == k.shape
    return delta(q, k, v, g, beta, scale, use_qk_l2norm_in_kernel)
