"""The derivatives of linear attention that no kernel computes itself, in plain torch.

All follow from one function, the tangent T(x; h) of the outputs y(x) along h. Of linear attention x is
(q, k, v) and y the output alone, or behind a state x is (q, k, v, S0, z0) and y has the last state as well;
with decay x is (q, k, v, g). The gradients that a kernel computes, G(x; g) = J'g, have the derivatives
d<h, G>/dg = T(x; h) and d<h, G>/dx = d<g, T(x; h)>/dx. Memory is O(N D).
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
    """A function of q, k, v and perhaps gates or a state alone, by its tangents."""

    def tangent(self, x: Tensors, h: Tensors) -> Tensors:
        """The tangents of the outputs at x = (q, k, v, ...) along h = (dq, dk, dv, ...)."""
        with torch.autocast(x[0].device.type, enabled=False):
            return self._tangent(x, h)

    @abstractmethod
    def _tangent(self, x: Tensors, h: Tensors) -> Tensors:
        """As ``tangent``, where nothing is cast."""

    def gradient_cotangents(self, g: Tensors, x: Tensors, h: Tensors) -> Tensors:
        """What a reverse pass through the gradients G(x; g) returns for h: d<h, G>/dg, and d<h, G>/dx."""
        tangents, pull = torch.func.vjp(lambda x: self.tangent(x, h), x)[:2]
        return *tangents, *pull(g)[0]

    def gradient_tangents(self, g: Tensors, x: Tensors, dg: Tensors, dx: Tensors) -> Tensors:
        """The tangents of the gradients G(x; g) along dg and dx."""
        pull = torch.func.vjp(self.tangent, x, dx)[1]
        (of_x, _), (_, of_g) = pull(g), pull(dg)
        return tuple(a + b for a, b in zip(of_x, of_g, strict=True))


@dataclass(frozen=True)
class NormalisedSums(Function):
    """Linear attention ``[B, Hq, Nq, Dv]``; behind a state (S0, z0) also the last state (S, z)."""

    causal: bool
    phi: str
    eps: float

    def _tangent(self, x: Tensors, h: Tensors) -> Tensors:
        dtype, wide = x[2].dtype, torch.promote_types(x[0].dtype, torch.float32)
        (q, k, v, *state), (dq, dk, dv, *dstate) = ([t.to(wide) for t in several] for several in (x, h))
        (q, dq), (k, dk) = _mapped(self.phi, q, dq), _mapped(self.phi, k, dk)
        values, dvalues, width = pad(v, (0, 1), value=1.0), pad(dv, (0, 1)), v.shape[-1]
        T, dT = (_joined(s) if s else None for s in (state, dstate))
        both = None if T is None or dT is None else torch.cat([T, dT], -1)
        sums, of_values = self._sums(q, k, torch.cat([values, dvalues], -1), both).tensor_split(2, -1)
        changes = self._sums(dq, k, values, T) + self._sums(q, dk, values) + of_values
        num, den = sums[..., :width], sums[..., width:] + self.eps
        tangent = ((changes[..., :width] - num / den * changes[..., width:]) / den).to(dtype)
        if dT is None:
            return (tangent,)
        dT = dT + k.mT @ dvalues + dk.mT @ values
        return tangent, dT[..., :width], dT[..., width]

    def _sums(self, q: Tensor, k: Tensor, v: Tensor, before: Tensor | None = None) -> Tensor:
        """q_i times the sum of k_j v_j' over j, up to i where causal, and of what was before.

        The heads of the queries ``[B, Hq, Nq, D]`` that share one of the keys meet it as a dimension.
        """
        batch, heads, tokens = q.shape[:3]
        shared = batch, k.shape[1], heads // max(1, k.shape[1])
        if not self.causal:
            S = k.mT @ v
            S = S if before is None else S + before
            out = q.reshape(*shared, *q.shape[2:]) @ S.unsqueeze(2)
            return out.reshape(batch, heads, tokens, v.shape[-1])
        q, k, v = (_chunks(t) for t in (q, k, v))
        q, k, v = q.reshape(*shared, *q.shape[2:]), k.unsqueeze(2), v.unsqueeze(2)
        states = pad(k.mT @ v, (0, 0, 0, 0, 1, 0))[..., :-1, :, :].cumsum(-3)
        if before is not None:
            states = states + before[:, :, None, None]
        out = (q @ k.mT).tril() @ v + q @ states
        return _cut(out.reshape(batch, heads, out.shape[3] * CHUNK, v.shape[-1]), 0, tokens)


@dataclass(frozen=True)
class PackedSums(Function):
    """Linear attention of packed sequences, each by itself and behind a state of its own if there are any."""

    one: NormalisedSums
    cu_seqlens: Tensor

    def _tangent(self, x: Tensors, h: Tensors) -> Tensors:
        places = list(enumerate(sequences(self.cu_seqlens, x[0].shape[2])))
        if not places:
            return x[2].new_zeros(*x[0].shape[:3], x[2].shape[3]), *x[3:]
        parts = [self.one.tangent(_sequence(x, *place), _sequence(h, *place)) for place in places]
        tangents, *states = zip(*parts, strict=True)
        return torch.cat(tangents, 2), *(torch.stack(each, 1).flatten(0, 1) for each in states)


def _sequence(x: Tensors, number: int, place: slice) -> Tensors:
    """A sequence of packed tensors, and its state; B counts the sequences of each batch there."""
    states = (each.reshape(x[0].shape[0], -1, *each.shape[1:])[:, number] for each in x[3:])
    return *(_cut(each, place.start, place.stop) for each in x[:3]), *states


def _joined(state: list[Tensor]) -> Tensor:
    """A state as one tensor ``[B, Hkv, D, Dv + 1]``."""
    S, z = state
    return torch.cat([S, z.unsqueeze(-1)], -1)


@dataclass(frozen=True)
class DecayedSums(Function):
    """Linear attention with decay, causal and not normalised."""

    phi: str

    def _tangent(self, x: Tensors, h: Tensors) -> Tensors:
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
        return (_cut(out.flatten(2, 3), 0, x[0].shape[2]).to(dtype),)


def _decayed(keep: Tensor, terms: Tensor, keep_: Tensor, terms_: Tensor) -> tuple[Tensor, Tensor]:
    """The states ``[B, H, chunks, D, Dv]`` before each chunk, S = keep S + terms, and their tangents."""
    S, S_ = [torch.zeros_like(terms[:, :, 0])], [torch.zeros_like(terms[:, :, 0])]
    for a, b, a_, b_ in zip(*(x.unbind(2) for x in (keep, terms, keep_, terms_)), strict=True):
        S_.append(a_ * S[-1] + a * S_[-1] + b_)
        S.append(a * S[-1] + b)
    return torch.stack(S[:-1] or S, 2), torch.stack(S_[:-1] or S_, 2)


def _mapped(phi: str, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """phi(x), and its tangent phi'(x) h."""
    y = FEATURE_MAPS[phi](x)
    return y, DERIVATIVES[phi](y) * h


def _chunks(x: Tensor) -> Tensor:
    """``[B, H, N, ...]`` as ``[B, H, chunks, CHUNK, ...]``, filled up with zeros."""
    rest, tokens = x.shape[3:], x.shape[2]
    filled = pad(x, (*(0, 0) * len(rest), 0, -tokens % CHUNK))
    return filled.reshape(*x.shape[:2], -(-tokens // CHUNK), CHUNK, *rest)


def _cut(x: Tensor, start: int, stop: int) -> Tensor:
    """Tokens of ``[B, H, N, ...]``."""
    # x[:, :, start:stop] of all tokens is aten::alias, which batched gradients (is_grads_batched) cannot map.
    return x.narrow(2, start, stop - start)
