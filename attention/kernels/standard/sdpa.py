"""Standard attention through torch's ``scaled_dot_product_attention``, its backend free or pinned."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import (
    flop_registry,
    register_flop_formula,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from attention.case import Case, make_inputs
from attention.costs import Costs, costs_of_heads, result_elements
from attention.kernels.registry import register_kernel
from attention.kernels.standard.explicit import explicit_costs
from attention.kernels.tensors import check_inputs, checked, differentiated
from attention.torch_internals import constant_when_compiled, in_forward_mode


@checked("standard-sdpa")
def standard_sdpa(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, scale: float | None = None
) -> Tensor:
    """``scaled_dot_product_attention`` as torch picks its backend.

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]`` -> ``[B, H, N, Dv]``. ``scale`` is 1/sqrt(D) unless
    given. A tensor whose tokens share memory (``as_strided``) is copied: torch writes its gradient in its
    layout.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together.
    """
    q, k, v = _apart(q, k, v)
    if in_forward_mode() and not torch.compiler.is_compiling():  # of torch's backends one carries tangents
        with sdpa_kernel([SDPBackend.MATH]):
            return scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
    return scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)


def _apart(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors, copied where several of their elements are one in memory.

    Expanded ones are copied only where gradients may be wanted, as torch reads them well.
    """
    q, k, v = tensors
    if q.is_contiguous() and k.is_contiguous() and v.is_contiguous():
        return tensors
    if torch.compiler.is_compiling():
        return tensors  # a compiler lays gradients out itself
    written = differentiated(*tensors)
    return tuple([x.clone(memory_format=CONTIGUOUS) if _overlaps(x, written) else x for x in tensors])


def _overlaps(x: Tensor, expanded: bool) -> bool:
    return not x.is_contiguous() and _overlap(x.shape, x.stride(), expanded)


CONTIGUOUS = torch.contiguous_format


@lru_cache
def _overlap(shape: tuple[int, ...], strides: tuple[int, ...], expanded: bool) -> bool:
    """Whether elements may share memory; dimensions of stride 0 count where ``expanded``."""
    reach = 0
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size > 1 and (stride or expanded):
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False


def standard_sdpa_pinned(
    q: Tensor, k: Tensor, v: Tensor, *, pinned: SDPBackend, causal: bool = False, scale: float | None = None
) -> Tensor:
    """``scaled_dot_product_attention`` with one backend pinned.

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]`` -> ``[B, H, N, Dv]``. ``scale`` is 1/sqrt(D) unless
    given.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together, or inputs that the backend does not
            serve; the message holds torch's own reasons.
    """
    check_inputs(f"standard-sdpa-{_backend_of(pinned)}", q, k, v)
    q, k, v = _apart(q, k, v)
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
    # torch decides by dtype, widths and device, so that a probe of a few tokens answers for all longer ones.
    tokens = 8 if torch.compiler.is_compiling() else min(case.seq_len, 8)  # a compiler's length is a symbol
    how = case.mode, tokens, case.phase, case.device, case.dtype
    return _refusal(pinned, *how, 1, 1, case.head_dim, case.value_dim)


def fused_costs(case: Case) -> Costs:
    """QK' and PV on tiles; the backward computes QK' once more.

    A causal fused kernel skips the masked half, so N (N + 1) / 2 scores are counted; torch's
    counter counts N^2. Peak: the results, and a float32 per token.
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    scores = n * (n + 1) // 2 if case.causal else n * n
    per_score = {"scores": d, "weighted_values": dv}
    if case.backward:
        per_score = {"scores": 4 * d, "weighted_values": 3 * dv}
    terms = {name: scores * width for name, width in per_score.items()}
    skipped = {"masked_half": (n * n - scores) * sum(per_score.values())}
    return costs_of_heads(case, terms, result_elements(case) * case.itemsize + 4 * n, overcounted=skipped)


def sdpa_costs(case: Case) -> Costs:
    """The costs of what torch picks: a fused form, or the explicit one where no fused one serves.

    No fused one serves on a CPU where values have their own width, and on CUDA in float64.
    """
    if case.device == "cpu":
        explicit = case.value_dim != case.head_dim
    else:
        explicit = case.dtype == "float64"
    return explicit_costs(case) if explicit else fused_costs(case)


def _count_forward(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]


def _count_backward(
    grad_out: torch.Size, q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(grad_out, q, k, v))  # type: ignore[no-untyped-call]


# torch's counter has formulas for the fused attention of CUDA, and counts nothing for that of a CPU.
for _operator, _formula in (
    (torch.ops.aten._scaled_dot_product_flash_attention_for_cpu, _count_forward),
    (torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward, _count_backward),
):
    if _operator not in flop_registry:
        register_flop_formula(_operator)(_formula)

register_kernel("standard-sdpa", standard_sdpa, costs=sdpa_costs)
for _backend, _pinned, _costs in (
    ("math", SDPBackend.MATH, explicit_costs),
    ("flash", SDPBackend.FLASH_ATTENTION, fused_costs),
    ("efficient", SDPBackend.EFFICIENT_ATTENTION, fused_costs),
    ("cudnn", SDPBackend.CUDNN_ATTENTION, fused_costs),
):
    register_kernel(
        f"standard-sdpa-{_backend}",
        partial(standard_sdpa_pinned, pinned=_pinned),
        costs=_costs,
        supports=partial(_supports, _pinned),
    )
