"""Standard attention through torch's ``scaled_dot_product_attention``, its backend free or pinned."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from functools import lru_cache, partial
from itertools import pairwise
from operator import index
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from attention.case import Case, make_inputs
from attention.kernels.forms.standard import StandardOptions, attend
from attention.kernels.layouts import apart
from attention.kernels.registry import register_kernel
from attention.kernels.scales import with_positive_scale
from attention.kernels.standard.costs import fused_costs, math_costs, sdpa_costs
from attention.kernels.standard.fused import core, packed, serves_packed
from attention.kernels.tensors import check_inputs, checked
from attention.torch_internals.transforms import constant_when_compiled, in_forward_mode


@checked("standard-sdpa", plain=False)
def standard_sdpa(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[StandardOptions]) -> Tensor:
    """``scaled_dot_product_attention`` as torch picks its backend.

    Tensors and options as of ``attention.standard_attention``. A tensor whose tokens share memory
    (``as_strided``) is copied: torch writes its gradient in its layout.

    Raises:
        TypeError: a mask or ends of another kind.
        ValueError: shapes, dtypes or devices that do not fit together.
    """
    q, k, v = apart(q, k, v)
    if in_forward_mode() and not torch.compiler.is_compiling():  # of torch's backends one carries tangents
        with sdpa_kernel([SDPBackend.MATH]):
            return _attend(q, k, v, SDPBackend.MATH, **options)
    return _attend(q, k, v, None, **options)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pinned: SDPBackend | None,
    *,
    causal: bool = False,
    scale: float | None = None,
    key_padding_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    q, scale = with_positive_scale(q, scale)
    if q.shape[:3] == k.shape[:3] and key_padding_mask is None and cu_seqlens is None:
        return scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
    return attend(
        partial(core, pinned=pinned),
        q,
        k,
        v,
        causal=causal,
        scale=scale,
        key_padding_mask=key_padding_mask,
        cu_seqlens=cu_seqlens,
        packed=packed if cu_seqlens is not None and serves_packed(q, v, pinned) else None,
    )


def standard_sdpa_pinned(
    q: Tensor, k: Tensor, v: Tensor, *, pinned: SDPBackend, **options: Unpack[StandardOptions]
) -> Tensor:
    """``scaled_dot_product_attention`` with one backend pinned.

    Tensors and options as of ``attention.standard_attention``.

    Raises:
        TypeError: a mask or ends of another kind.
        ValueError: shapes, dtypes or devices that do not fit together, or inputs that the backend does not
            serve; the message holds torch's own reasons.
    """
    check_inputs(f"standard-sdpa-{_backend_of(pinned)}", q, k, v, plain=False)
    q, k, v = apart(q, k, v)
    try:
        with sdpa_kernel([pinned]):
            return _attend(q, k, v, pinned, **options)
    except RuntimeError as error:
        if not re.match(r"No (available kernel|viable backend)", str(error)):
            raise
        with warnings.catch_warnings(record=True) as caught, sdpa_kernel([pinned]):
            warnings.simplefilter("always")
            with suppress(RuntimeError):
                _attend(q, k, v, pinned, **options)
        reasons = _reasons(pinned, [str(warning.message) for warning in caught])
        raise ValueError(f"torch refuses {pinned.name} here: {reasons or str(error).strip()}") from None


def _backend_of(pinned: SDPBackend) -> str:
    return pinned.name.partition("_")[0].lower()


def _reasons(pinned: SDPBackend, said: list[str]) -> str:
    """The reasons among torch's warnings that concern one backend: from its heading to the next heading."""
    said = [re.sub(r" ?\(Triggered internally.*", "", text).strip() for text in said]
    name = _backend_of(pinned)
    headings = [i for i, text in enumerate(said) if "not used because" in text]
    for start, stop in pairwise([*headings, len(said)]):
        if name in said[start].lower():
            return " ".join(said[start + 1 : stop])
    return ""


@lru_cache
def _probed(pinned: SDPBackend, *fields: Any) -> str | None:
    probe = Case("standard-sdpa", *fields)
    try:
        standard_sdpa_pinned(*make_inputs(probe), causal=probe.causal, pinned=pinned)
    except ValueError as error:
        return str(error)
    return None


@constant_when_compiled
def _refusal(pinned: SDPBackend, *fields: Any) -> str | None:
    return _probed(pinned, *fields)


def _supports(pinned: SDPBackend, case: Case) -> str | None:
    # torch decides by dtype, widths, shared heads and device, so that a probe of a few tokens answers for all
    # longer ones. Of a compiler's case sizes are symbols: lengths are compared at most, and what torch
    # decides by is made a number that holds for the whole graph.
    tokens = 8 if torch.compiler.is_compiling() else min(case.seq_len, 8)
    queries = None
    if case.queries != case.seq_len:
        fewer = 4 if case.queries > 1 else index(case.queries)
        tokens, queries = 8, fewer if case.queries < case.seq_len else 12
    phase = "forward_backward" if case.backward else "forward"
    how = case.mode, tokens, phase, case.device, case.dtype, 1
    widths = index(case.heads // case.key_heads), index(case.head_dim), index(case.value_dim)
    return _refusal(pinned, *how, *widths, "operator", 1, queries)


register_kernel("standard-sdpa", standard_sdpa, costs=sdpa_costs)
for _backend, _pinned, _costs in (
    ("math", SDPBackend.MATH, math_costs),
    ("flash", SDPBackend.FLASH_ATTENTION, fused_costs),
    ("efficient", SDPBackend.EFFICIENT_ATTENTION, fused_costs),
    ("cudnn", SDPBackend.CUDNN_ATTENTION, fused_costs),
):
    register_kernel(
        f"standard-sdpa-{_backend}",
        partial(standard_sdpa_pinned, pinned=_pinned),
        costs=partial(_costs, pinned=_pinned),
        supports=partial(_supports, _pinned),
    )
