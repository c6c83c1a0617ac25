"""Linear attention with decay in its textbook form, (phi(Q)phi(K)' * D) V."""

from __future__ import annotations

import torch
from torch import Tensor

from attention.case import Case
from attention.costs import Costs, masked_scores, result_elements
from attention.kernels.feature_maps import FeatureMap, mapped
from attention.kernels.gates import causal_only, check_causal, check_gates, decay_costs, decays, make_gates
from attention.kernels.registry import register_kernel
from attention.kernels.tensors import alike, checked

NAME = "linear-decay-explicit"


@checked(NAME)
def linear_decay_explicit(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    g: Tensor,
    causal: bool = True,
    feature_map: str | FeatureMap = "elu",
) -> Tensor:
    """O = (phi(Q)phi(K)' * D) V, D_ij = exp(g_{j+1} + ... + g_i) for j <= i, unnormalised.

    The parallel form of retention (Sun et al. 2023, eq. 5) with a gate per token, N x N in memory.

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]``, g ``[B, H, N]`` (float32 or the dtype of q; natural
    logarithms of what is kept, -inf forgets all) -> ``[B, H, N, Dv]``. float16 and bfloat16 are computed in
    float32.

    Raises:
        TypeError: gates that are no dense tensor.
        ValueError: shapes, dtypes or devices that do not fit together, or a mode that is not causal.
    """
    check_causal(NAME, causal)
    check_gates(NAME, q, g)
    wide = torch.promote_types(q.dtype, torch.float32)
    phi_q, phi_k, values = alike(*mapped(feature_map, q.to(wide), k.to(wide)), v.to(wide))
    return ((phi_q @ phi_k.mT * decays(g.to(phi_q.dtype))) @ values).to(v.dtype)


def explicit_costs(case: Case) -> Costs:
    """QK' and AV: N^2 (D + Dv) MACs, of which the masked half is computed as well; backward twice that."""
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    wide, passes = max(4, case.itemsize), 3 if case.backward else 1
    terms = {"scores": passes * n * n * d, "weighted_values": passes * n * n * dv}
    peak = wide * n * (n * (6 if case.backward else 3) + 2 * d) + case.itemsize * result_elements(case)
    return decay_costs(case, terms, peak, masked_macs=passes * (d + dv) * masked_scores(n))


register_kernel(
    NAME,
    linear_decay_explicit,
    reference="decay",
    costs=explicit_costs,
    supports=causal_only,
    make_inputs=make_gates,
)
