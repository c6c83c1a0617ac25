"""The derivatives of linear attention that no kernel computes itself, in plain torch.

All follow from one function, the tangent T(x; h) of o(x) along h, for x = (q, k, v). The gradients that a
kernel computes, G(x; g) = J'g, have the derivatives d<h, G>/dg = T(x; h) and d<h, G>/dx = d<g, T(x; h)>/dx.
Memory is O(N D).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from attention.kernels.feature_maps import FEATURE_MAPS, FeatureMap

DERIVATIVES: dict[str, FeatureMap] = {
    "elu": lambda y: y.clamp(max=1),
    "relu": torch.sign,
    "identity": torch.ones_like,
}
"""The derivative phi'(x) of each known map, from y = phi(x) as in ``BLOCK_MAPS``, but not in place."""
CHUNK = 64
"""Tokens whose scores are computed at once, where causal."""

Tensors = tuple[Tensor, Tensor, Tensor]


class Function(NamedTuple):
    """Linear attention as a function of q, k and v alone."""

    causal: bool
    phi: str
    eps: float

    def tangent(self, x: Tensors, h: Tensors) -> Tensor:
        """The tangent ``[B, H, N, Dv]`` of the output at x = (q, k, v) along h = (dq, dk, dv)."""
        with torch.autocast(x[0].device.type, enabled=False):
            return self._tangent(x, h)

    def _tangent(self, x: Tensors, h: Tensors) -> Tensor:
        dtype, wide = x[2].dtype, torch.promote_types(x[0].dtype, torch.float32)
        (q, k, v), (dq, dk, dv) = ([t.to(wide) for t in three] for three in (x, h))
        q, dq = self._map(q, dq)
        k, dk = self._map(k, dk)
        values, width = torch.cat([v, torch.ones_like(v[..., :1])], -1), v.shape[-1]
        sums = self._sums(q, k, torch.cat([values, dv], -1))
        changes = self._sums(dq, k, values) + self._sums(q, dk, values)
        num, den, of_values = sums[..., :width], sums[..., width, None] + self.eps, sums[..., width + 1 :]
        dnum, dden = changes[..., :width], changes[..., width:]
        return ((dnum + of_values - num / den * dden) / den).to(dtype)

    def _map(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """phi(x), and its tangent phi'(x) h."""
        y = FEATURE_MAPS[self.phi](x)
        return y, DERIVATIVES[self.phi](y) * h

    def _sums(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Sum of (q_i . k_j) v_j over j, up to i where causal."""
        if not self.causal:
            return q @ (k.mT @ v)
        tokens = q.shape[-2]
        q, k, v = (_chunks(t) for t in (q, k, v))
        states = pad(k.mT @ v, (0, 0, 0, 0, 1, 0))[..., :-1, :, :].cumsum(-3)
        out = (q @ k.mT).tril() @ v + q @ states
        return out.reshape(*out.shape[:2], -1, out.shape[-1])[:, :, :tokens]

    def gradient_cotangents(self, g: Tensor, x: Tensors, h: Tensors) -> tuple[Tensor, ...]:
        """What a reverse pass through the gradients G(x; g) returns for h: d<h, G>/dg, and d<h, G>/dx."""
        tangent, pull = torch.func.vjp(lambda x: self.tangent(x, h), x)[:2]
        q, k, v = pull(g)[0]
        return tangent, q, k, v

    def gradient_tangents(self, g: Tensor, x: Tensors, dg: Tensor, dx: Tensors) -> Tensors:
        """The tangents of the gradients G(x; g) along dg and dx."""
        pull = torch.func.vjp(self.tangent, x, dx)[1]
        (of_x, _), (_, of_g) = pull(g), pull(dg)
        q, k, v = (a + b for a, b in zip(of_x, of_g, strict=True))
        return q, k, v


def _chunks(x: Tensor) -> Tensor:
    """``[B, H, N, W]`` as ``[B, H, chunks, CHUNK, W]``, filled up with zeros."""
    batch, heads, tokens, width = x.shape
    return pad(x, (0, 0, 0, -tokens % CHUNK)).reshape(batch, heads, -(-tokens // CHUNK), CHUNK, width)
