"""Linear attention in its textbook form, phi(Q)(phi(K)'V)."""

from __future__ import annotations

from math import ceil
from typing import Any, Unpack

import torch
from torch import Tensor

from attention.case import Case
from attention.costs import Costs, costs_of_heads, result_elements
from attention.kernels.feature_maps import mapped
from attention.kernels.forms.costs import of_forms
from attention.kernels.forms.linear import LinearOptions, attend, by_key_heads
from attention.kernels.registry import register_kernel
from attention.kernels.tensors import checked
from attention.state import State


@checked("linear-explicit", plain=False)
def linear_explicit(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[LinearOptions]) -> Any:
    """O = phi(q) S / (phi(q) . z + eps), S = sum phi(k) v', z = sum phi(k) (Katharopoulos et al. 2020).

    Causal: S and z are running sums over the sequence, N x D x Dv in memory.

    Tensors and options as of ``attention.linear_attention``. float16 and bfloat16 are computed in float32,
    because sums over a sequence do not survive their 8 or 11 bits.

    Raises:
        TypeError: a mask, ends or a state of another kind.
        ValueError: shapes, dtypes or devices that do not fit together, or a map that returns another shape.
    """
    return attend(_explicit, q, k, v, **options)


def _explicit(
    q: Tensor, k: Tensor, v: Tensor, state: State | None, *, causal: bool, final: bool, phi: str, eps: float
) -> tuple[Tensor, State | None]:
    wide = torch.promote_types(q.dtype, torch.float32)
    phi_q, phi_k = mapped(phi, q.to(wide), k.to(wide))
    values = v.to(wide)
    read = _read_causal if causal else _read
    num, den, last = read(by_key_heads(phi_q, k.shape[1]), phi_k, values, state)
    out = (num / (den + eps)).flatten(1, 2).to(v.dtype)
    return out, last if final else None


def _read_causal(q: Tensor, k: Tensor, v: Tensor, state: State | None) -> tuple[Tensor, Tensor, State]:
    """Causal numerators ``[B, Hkv, G, N, Dv]``, normalisers ``[..., 1]`` and last state of queries."""
    S = (k.unsqueeze(-1) * v.unsqueeze(-2)).cumsum(dim=-3)
    z = k.cumsum(dim=-2)
    if state is not None:
        S, z = S + state.S.unsqueeze(-3), z + state.z.unsqueeze(-2)
    # The heads of queries that share a state meet it in one product, so that it is not repeated.
    num = (q.transpose(2, 3) @ S).transpose(2, 3)
    den = (q * z.unsqueeze(2)).sum(dim=-1, keepdim=True)
    if k.shape[2]:
        return num, den, State(S[:, :, -1], z[:, :, -1])
    return num, den, state or State(k.mT @ v, k.sum(dim=-2))


def _read(q: Tensor, k: Tensor, v: Tensor, state: State | None) -> tuple[Tensor, Tensor, State]:
    """Numerators, normalisers ``[..., 1]`` and state of queries ``[B, Hkv, G, Nq, D]`` that see all keys."""
    S, z = k.mT @ v, k.sum(dim=-2)
    if state is not None:
        S, z = S + state.S, z + state.z
    rows = q.flatten(2, 3)
    num, den = rows @ S, rows @ z.unsqueeze(-1)
    return num.view(*q.shape[:4], v.shape[3]), den.view(*q.shape[:4], 1), State(S, z)


def explicit_costs(case: Case) -> Costs:
    """phi(k)v' of each head of keys, N D Dv MACs; phi(q)S and phi(q).z of each of queries, Nq (D Dv + D).

    A backward is twice that. Causal, the N outer products phi(k)v' and the normaliser are elementwise to
    torch's counter. Peak, causal: the N x D x Dv products and their running sum, and in a backward their
    gradients.
    """
    n, queries, d, dv = case.seq_len, case.queries, case.head_dim, case.value_dim
    wide = max(4, case.itemsize)
    passes = 3 if case.backward else 1
    of_keys = {"states": passes * n * d * dv}
    terms = {"readout": passes * queries * d * dv, "normaliser": passes * queries * d}
    elementwise = {**of_keys, "normaliser": terms["normaliser"]} if case.causal else {}
    # What the heads of keys hold, as a share of the heads of queries.
    share = case.key_heads / case.heads
    if case.causal:
        peak = wide * n * ((4 if case.backward else 2) * d * dv + d) * share + wide * queries * d
    else:
        peak = wide * (queries * (d + dv) + share * (n * d + d * dv))
        if case.backward:
            peak += wide * (queries * (d + dv) + share * n * (d + dv))
    if case.itemsize < wide:  # inputs of a narrow dtype, made wide
        peak += (3 if case.backward else 1) * wide * (queries * d + share * n * dv)
    held = ceil(peak) + result_elements(case) * case.itemsize
    return costs_of_heads(case, terms, held, of_keys=of_keys, uncounted=elementwise)


register_kernel("linear-explicit", linear_explicit, costs=of_forms(explicit_costs))
