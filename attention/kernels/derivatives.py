"""The derivatives of linear attention that no kernel computes itself, in plain torch.

All follow from one function, the tangent T(x; h) of o(x) along h, for x = (q, k, v), with decay (q, k, v, g).
The gradients that a kernel computes, G(x; g) = J'g, have the derivatives d<h, G>/dg = T(x; h) and
d<h, G>/dx = d<g, T(x; h)>/dx. Memory is O(N D).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from attention.kernels.feature_maps import FEATURE_MAPS, FeatureMap
from attention.kernels.forms.masks import sequences
from attention.kernels.gates import decays, sums_between

DERIVATIVES: dict[str, FeatureMap] = {
    "elu": lambda y: y.clamp(max=1),
    "relu": torch.sign,
    "identity": torch.ones_like,
}
"""The derivative phi'(x) of each known map, from y = phi(x) as in ``BLOCK_MAPS``, but not in place."""
CHUNK = 64
"""Tokens whose scores are computed at once, where causal."""

Tensors = tuple[Tensor, ...]


class Function(ABC):
    """A function of q, k, v and perhaps gates alone, by its tangents."""

    def tangent(self, x: Tensors, h: Tensors) -> Tensor:
        """The tangent ``[B, H, N, Dv]`` of the output at x = (q, k, v, ...) along h = (dq, dk, dv, ...)."""
        with torch.autocast(x[0].device.type, enabled=False):
            return self._tangent(x, h)

    @abstractmethod
    def _tangent(self, x: Tensors, h: Tensors) -> Tensor:
        """As ``tangent``, where nothing is cast."""

    def gradient_cotangents(self, g: Tensor, x: Tensors, h: Tensors) -> Tensors:
        """What a reverse pass through the gradients G(x; g) returns for h: d<h, G>/dg, and d<h, G>/dx."""
        tangent, pull = torch.func.vjp(lambda x: self.tangent(x, h), x)[:2]
        return tangent, *pull(g)[0]

    def gradient_tangents(self, g: Tensor, x: Tensors, dg: Tensor, dx: Tensors) -> Tensors:
        """The tangents of the gradients G(x; g) along dg and dx."""
        pull = torch.func.vjp(self.tangent, x, dx)[1]
        (of_x, _), (_, of_g) = pull(g), pull(dg)
        return tuple(a + b for a, b in zip(of_x, of_g, strict=True))


@dataclass(frozen=True)
class NormalisedSums(Function):
    """Linear attention, of packed sequences where ``cu_seqlens`` are given."""

    causal: bool
    phi: str
    eps: float
    cu_seqlens: Tensor | None = None

    def _tangent(self, x: Tensors, h: Tensors) -> Tensor:
        group = x[0].shape[1] // max(1, x[1].shape[1])
        x, h = (_repeated(each, group) for each in (x, h))
        if self.cu_seqlens is None:
            return self._tangent_of_one(x, h)
        places = sequences(self.cu_seqlens)
        return torch.cat([self._tangent_of_one(_cut(x, one), _cut(h, one)) for one in places], 2)

    def _tangent_of_one(self, x: Tensors, h: Tensors) -> Tensor:
        dtype, wide = x[2].dtype, torch.promote_types(x[0].dtype, torch.float32)
        (q, k, v), (dq, dk, dv) = ([t.to(wide) for t in three] for three in (x, h))
        (q, dq), (k, dk) = _mapped(self.phi, q, dq), _mapped(self.phi, k, dk)
        values, width = torch.cat([v, torch.ones_like(v[..., :1])], -1), v.shape[-1]
        sums = self._sums(q, k, torch.cat([values, dv], -1))
        changes = self._sums(dq, k, values) + self._sums(q, dk, values)
        num, den, of_values = sums[..., :width], sums[..., width, None] + self.eps, sums[..., width + 1 :]
        dnum, dden = changes[..., :width], changes[..., width:]
        return ((dnum + of_values - num / den * dden) / den).to(dtype)

    def _sums(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Sum of (q_i . k_j) v_j over j, up to i where causal."""
        if not self.causal:
            return q @ (k.mT @ v)
        tokens = q.shape[-2]
        q, k, v = (_chunks(t) for t in (q, k, v))
        states = pad(k.mT @ v, (0, 0, 0, 0, 1, 0))[..., :-1, :, :].cumsum(-3)
        out = (q @ k.mT).tril() @ v + q @ states
        return out.reshape(*out.shape[:2], -1, out.shape[-1])[:, :, :tokens]


@dataclass(frozen=True)
class DecayedSums(Function):
    """Linear attention with decay, causal and not normalised."""

    phi: str

    def _tangent(self, x: Tensors, h: Tensors) -> Tensor:
        dtype, wide = x[2].dtype, torch.promote_types(x[0].dtype, torch.float32)
        (q, k, v, g), (dq, dk, dv, dg) = ([_chunks(t.to(wide)) for t in four] for four in (x, h))
        (q, dq), (k, dk) = _mapped(self.phi, q, dq), _mapped(self.phi, k, dk)
        D, since = decays(g), g.cumsum(-1).exp()[..., None]
        D_, since_ = D * sums_between(dg), since * dg.cumsum(-1)[..., None]
        until, until_ = D[..., -1, :, None], D_[..., -1, :, None]
        A, A_ = q @ k.mT, dq @ k.mT + q @ dk.mT
        S, S_ = _decayed(
            since[..., -1:, :], (until * k).mT @ v,
            since_[..., -1:, :], (until_ * k + until * dk).mT @ v + (until * k).mT @ dv,
        )  # fmt: skip
        out = (A_ * D + A * D_) @ v + (A * D) @ dv + (since_ * q + since * dq) @ S + since * q @ S_
        return out.flatten(2, 3)[:, :, : x[0].shape[2]].to(dtype)


def _decayed(keep: Tensor, terms: Tensor, keep_: Tensor, terms_: Tensor) -> tuple[Tensor, Tensor]:
    """The states ``[B, H, chunks, D, Dv]`` before each chunk, S = keep S + terms, and their tangents."""
    S, S_ = [torch.zeros_like(terms[:, :, 0])], [torch.zeros_like(terms[:, :, 0])]
    for a, b, a_, b_ in zip(*(x.unbind(2) for x in (keep, terms, keep_, terms_)), strict=True):
        S_.append(a_ * S[-1] + a * S_[-1] + b_)
        S.append(a * S[-1] + b)
    return torch.stack(S[:-1] or S, 2), torch.stack(S_[:-1] or S_, 2)


def _repeated(x: Tensors, group: int) -> Tensors:
    """Keys and values, once for each head of a group of queries."""
    return x if group == 1 else (x[0], *(each.repeat_interleave(group, 1) for each in x[1:]))


def _cut(x: Tensors, place: slice) -> Tensors:
    return tuple(each[:, :, place] for each in x)


def _mapped(phi: str, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """phi(x), and its tangent phi'(x) h."""
    y = FEATURE_MAPS[phi](x)
    return y, DERIVATIVES[phi](y) * h


def _chunks(x: Tensor) -> Tensor:
    """``[B, H, N, ...]`` as ``[B, H, chunks, CHUNK, ...]``, filled up with zeros."""
    rest, tokens = x.shape[3:], x.shape[2]
    filled = pad(x, (*(0, 0) * len(rest), 0, -tokens % CHUNK))
    return filled.reshape(*x.shape[:2], -(-tokens // CHUNK), CHUNK, *rest)
