"""Linear attention in its textbook form, phi(Q)(phi(K)'V)."""

from __future__ import annotations

import torch
from torch import Tensor

from attention.case import Case
from attention.costs import Costs, costs_of_heads, result_elements
from attention.kernels.feature_maps import FeatureMap, mapped
from attention.kernels.registry import register_kernel
from attention.kernels.tensors import alike, checked


@checked("linear-explicit")
def linear_explicit(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-6,
) -> Tensor:
    """O = phi(q) S / (phi(q) . z + eps), S = sum phi(k) v', z = sum phi(k) (Katharopoulos et al. 2020).

    Causal: S and z are running sums over the sequence, N x D x Dv in memory.

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]`` -> ``[B, H, N, Dv]``. float16 and bfloat16
    are computed in float32, because sums over a sequence do not survive their 8 or 11 bits.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together, or a map that returns another shape.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    phi_q, phi_k, values = alike(*mapped(feature_map, q.to(wide), k.to(wide)), v.to(wide))
    if causal:
        state = (phi_k.unsqueeze(-1) * values.unsqueeze(-2)).cumsum(dim=-3)
        num = (phi_q.unsqueeze(-2) @ state).squeeze(-2)
        den = (phi_q * phi_k.cumsum(dim=-2)).sum(dim=-1, keepdim=True)
    else:
        num = phi_q @ (phi_k.mT @ values)
        den = phi_q @ phi_k.sum(dim=-2).unsqueeze(-1)
    return (num / (den + eps)).to(v.dtype)


def explicit_costs(case: Case) -> Costs:
    """phi(k)v', phi(q)S and phi(q).z: N (2 D Dv + D) MACs; backward twice that.

    Causal, the N outer products phi(k)v' and the normaliser are elementwise to torch's counter.
    Peak, causal: the N x D x Dv products and their running sum, and in a backward their gradients.
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    wide = max(4, case.itemsize)
    passes = 3 if case.backward else 1
    terms = {
        "states": passes * n * d * dv,
        "readout": passes * n * d * dv,
        "normaliser": passes * n * d,
    }
    elementwise = {name: terms[name] for name in ("states", "normaliser") if case.causal}
    if case.causal:
        peak = wide * n * ((4 if case.backward else 2) * d * dv + 2 * d)
    else:
        peak = wide * (n * (4 * d + 3 * dv if case.backward else 2 * d + dv) + d * dv)
    if case.itemsize < wide:
        peak += (3 if case.backward else 1) * wide * n * (d + dv)  # inputs of a narrow dtype, made wide
    return costs_of_heads(case, terms, peak + result_elements(case) * case.itemsize, uncounted=elementwise)


register_kernel("linear-explicit", linear_explicit, costs=explicit_costs)
