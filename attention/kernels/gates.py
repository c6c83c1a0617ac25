"""Gates: what the kernels of linear attention with decay share.

S_t = exp(g_t) S_{t-1} + phi(k_t) v_t' and o_t = phi(q_t) S_t, so that key j reaches query i with the weight
D_ij = exp(g_{j+1} + ... + g_i). The sums are made of the gates between j and i alone: a difference of sums
from the first token on would lose its digits behind a strong gate, and be NaN behind one of -inf.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from attention.case import Case
from attention.costs import Costs, Terms, costs_of_heads
from attention.inputs import describe
from attention.kernels.forms.plain import plain_refusal
from attention.kernels.tensors import dense, dtype_name

CAUSAL_ONLY = "decay is causal only: a gate has no meaning for a token that comes later"
NORMALISER = 16
"""Gates are logsigmoid(x) / 16 of standard normal x, as flash-linear-attention's GLA layer makes them."""


def check_gates(kernel: str, q: Tensor, g: Tensor) -> None:
    """Refuse gates that are not ``[B, H, N]``, in float32 or the dtype of q, on the device of q.

    Raises:
        TypeError: not a tensor, or one without strides (sparse, nested).
        ValueError: another shape, dtype or device.
    """
    if not dense(g):
        raise TypeError(f"{kernel} takes a dense tensor for g; got {describe(g)}")
    if g.shape != q.shape[:3] or g.dtype not in (torch.float32, q.dtype) or g.device != q.device:
        dtypes = " or ".join(dict.fromkeys(("float32", dtype_name(q.dtype))))
        raise ValueError(
            f"{kernel} takes g {tuple(q.shape[:3])} [B, H, N] in {dtypes} on {q.device}; "
            f"got {tuple(g.shape)} in {dtype_name(g.dtype)} on {g.device}"
        )


def check_causal(kernel: str, causal: bool) -> None:
    """Refuse a bidirectional mode.

    Raises:
        ValueError: not causal.
    """
    if not causal:
        raise ValueError(f"{kernel} cannot serve a bidirectional mode: {CAUSAL_ONLY}")


def causal_only(case: Case) -> str | None:
    """The reason why no kernel with gates serves a case, or None."""
    return plain_refusal(case) if case.causal else CAUSAL_ONLY


def make_gates(case: Case, *, seed: int = 3) -> dict[str, Tensor]:
    """Gates ``[B, H, N]`` of a case in float32 at least, which forget a token after 20 others or so.

    Drawn from a generator of their own, and requiring gradients where the case times a backward pass.
    """
    generator = torch.Generator(case.device).manual_seed(seed)
    shape = (case.batch, case.heads, case.seq_len)
    dtype = torch.promote_types(case.torch_dtype, torch.float32)
    normal = torch.randn(shape, generator=generator, device=case.device, dtype=dtype)
    return {"g": (logsigmoid(normal) / NORMALISER).requires_grad_(case.backward)}


def sums_between(g: Tensor) -> Tensor:
    """g_{j+1} + ... + g_i at (i, j), and 0 on and above the diagonal: ``[..., C]`` to ``[..., C, C]``."""
    size = g.shape[-1]
    later = torch.ones(size, size, dtype=torch.bool, device=g.device).tril(-1)
    return torch.where(later, g[..., :, None], 0).cumsum(-2)


def decays(g: Tensor) -> Tensor:
    """D_ij = exp(g_{j+1} + ... + g_i), 0 above the diagonal: ``[..., C]`` to ``[..., C, C]``."""
    return sums_between(g).exp().tril()


def decay_costs(case: Case, terms: Terms, peak_bytes: int, *, masked_macs: int = 0) -> Costs:
    """The costs of all heads, from those of one: as of linear attention, and the gates' bytes.

    A forward reads g once; a backward reads it once more and writes dg.
    """
    costs = costs_of_heads(case, terms, peak_bytes, masked_macs=masked_macs)
    gates = max(4, case.itemsize) * case.batch * case.heads * case.seq_len
    return replace(costs, min_bytes=costs.min_bytes + gates * (3 if case.backward else 1))
