"""Standard attention, softmax(QK' / sqrt(D)) V: explicit, and through torch's fused operator."""

from __future__ import annotations

import math
import re
import warnings
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from attention.case import Case, make_inputs
from attention.kernels import costs
from attention.kernels.registry import register_kernel


def standard_explicit(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, scale: float | None = None
) -> Tensor:
    """softmax(scale QK') V with the N x N matrix in memory.

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]`` -> ``[B, H, N, Dv]``, computed in the dtype
    of the inputs. ``scale`` is 1/sqrt(D) unless given.
    """
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = (q * scale) @ k.mT
    if causal:
        seq_len = q.shape[-2]
        later = torch.ones(seq_len, seq_len, dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill_(later, -math.inf)
    # Rebinding frees the scores: two N x N matrices are alive at a time, not three.
    scores = torch.softmax(scores, dim=-1)
    return scores @ v


def standard_sdpa(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, scale: float | None = None
) -> Tensor:
    """``scaled_dot_product_attention`` as torch picks its backend. Shapes as in standard_explicit."""
    return scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)


def standard_sdpa_pinned(
    q: Tensor, k: Tensor, v: Tensor, *, pinned: SDPBackend, causal: bool = False, scale: float | None = None
) -> Tensor:
    """The same with one backend pinned.

    Raises:
        ValueError: the backend does not serve these inputs; the message holds torch's own reasons.
    """
    try:
        with sdpa_kernel([pinned]):
            return scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
    except RuntimeError as error:
        if not re.match(r"No (available kernel|viable backend)", str(error)):
            raise
        with warnings.catch_warnings(record=True) as caught, sdpa_kernel([pinned]):
            warnings.simplefilter("always")
            with suppress(RuntimeError):
                scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
        reasons = _reasons(pinned, [str(warning.message) for warning in caught])
        raise ValueError(f"torch refuses {pinned.name} here: {reasons or str(error).strip()}") from None


def _reasons(pinned: SDPBackend, said: list[str]) -> str:
    """What torch warned about one backend: the lines from its heading to that of the next."""
    said = [re.sub(r" ?\(Triggered internally.*", "", text).strip() for text in said]
    name = pinned.name.partition("_")[0].lower()
    headings = [i for i, text in enumerate(said) if "not used because" in text]
    for start, stop in pairwise([*headings, len(said)]):
        if name in said[start].lower():
            return " ".join(said[start + 1 : stop])
    return ""


@lru_cache
def _refusal(pinned: SDPBackend, probe: Case) -> str | None:
    try:
        standard_sdpa_pinned(*make_inputs(probe), causal=probe.causal, pinned=pinned)
    except ValueError as error:
        return str(error)
    return None


def _supports(pinned: SDPBackend, case: Case) -> str | None:
    # torch decides by dtype, widths and device, so that a probe of a few tokens answers for all longer ones.
    probe = replace(case, kernel="standard-sdpa", batch=1, heads=1, seq_len=min(case.seq_len, 8))
    return _refusal(pinned, probe)


register_kernel("standard-explicit", standard_explicit, costs=costs.standard_explicit)
register_kernel("standard-sdpa", standard_sdpa, costs=costs.standard_sdpa)
for _backend, _pinned, _costs in (
    ("math", SDPBackend.MATH, costs.standard_explicit),
    ("flash", SDPBackend.FLASH_ATTENTION, costs.standard_fused),
    ("efficient", SDPBackend.EFFICIENT_ATTENTION, costs.standard_fused),
    ("cudnn", SDPBackend.CUDNN_ATTENTION, costs.standard_fused),
):
    register_kernel(
        f"standard-sdpa-{_backend}",
        partial(standard_sdpa_pinned, pinned=_pinned),
        costs=_costs,
        supports=partial(_supports, _pinned),
    )
