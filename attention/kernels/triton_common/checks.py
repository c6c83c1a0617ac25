"""What a kernel in Triton refuses: calls of which its passes would read other memory than their tensors'.

Passes take addresses and strides, and believe that all else follows from the shape of q and the width of v.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from attention.case import Case
from attention.kernels.feature_maps import get_feature_map
from attention.kernels.tensors import check_operands, dtype_name
from attention.kernels.triton_common.card import interpreted
from attention.kernels.triton_common.plan import DTYPES, PRECISIONS, WIDEST, Layout, Plan

HAS_TRITON = importlib.util.find_spec("triton") is not None
# float16 holds no more digits than tf32. For float32 three products of tf32 are as exact as one of
# float32, and run on the matrix units.
PRECISION = {torch.float32: "tf32x3", torch.bfloat16: "ieee", torch.float16: "tf32"}
"""How products are computed by default, by the dtype of the tensors."""
MOST_TOKENS, MOST_HEADS = 2**30, 2**28
"""Counted in 32 bits are tokens, to a segment beyond the last, and programs, four a head or less."""
MOST_STRIDE = 2**25
"""Rows of a chunk, 64 at most, are found in 32 bits where pointers move them."""


def supports(case: Case) -> str | None:
    """CUDA, three dtypes, widths up to 256; a CPU only under Triton's interpreter."""
    return _refusal(case.device, case.torch_dtype, max(case.head_dim, case.value_dim))


def in_halves(precision: str) -> bool:
    """Whether operands of float16 will do: they have as many digits as those of tf32."""
    return precision == PRECISION[torch.float16]


def served_precision(kernel: str, q: Tensor, v: Tensor, precision: str | None) -> str:
    """The precision of products that was asked for, or else the default of the dtype.

    Raises:
        ValueError: a device, dtype or width that the passes do not serve; an unknown precision.
    """
    if reason := _refusal(q.device.type, q.dtype, max(q.shape[-1], v.shape[-1])):
        raise ValueError(f"{kernel} cannot serve q {tuple(q.shape)}, v {tuple(v.shape)}: {reason}")
    if precision is None:
        return PRECISION[q.dtype]
    _check_precision(precision)
    return precision


def check_call(
    kernel: str, q: Tensor, k: Tensor, v: Tensor, phi: str, precision: str, *, plain: bool = True
) -> None:
    """Refuse operands that do not fit together or that no pass is written for.

    Raises:
        TypeError: not a dense tensor.
        ValueError: ranks, shapes, dtypes, devices, strides or widths; an unknown map or precision.
    """
    check_operands(kernel, DTYPES, q, k, v, plain=plain)
    get_feature_map(phi)
    if max(q.shape[-1], v.shape[-1]) > WIDEST:
        raise ValueError(
            f"{kernel} takes head_dim and value_dim of {WIDEST} at most; got {q.shape[-1]} and {v.shape[-1]}"
        )
    _check_precision(precision)


def check_reach(kernel: str, plan: Plan, layouts: tuple[Layout, ...]) -> None:
    """Refuse sizes and strides of which the passes' 32-bit numbers would overflow.

    Raises:
        ValueError: too many heads or tokens, or tokens too far apart.
    """
    longest = max(plan.tokens, plan.keys)
    if longest > MOST_TOKENS or plan.all_heads > MOST_HEADS:
        raise ValueError(
            f"{kernel} takes at most {MOST_TOKENS} tokens and {MOST_HEADS} heads in all; "
            f"got {longest} and {plan.all_heads}"
        )
    farthest = max(strides[2] for _, _, strides in layouts if len(strides) == 4)
    if farthest >= MOST_STRIDE and longest > 1 and not plan.described:
        raise ValueError(
            f"{kernel} reaches tokens less than {MOST_STRIDE} elements apart; "
            f"got a stride of {farthest}: pass contiguous tensors"
        )


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError(
            f"input_precision {precision!r} does not exist; choose one of {', '.join(PRECISIONS)}"
        )


def _refusal(device: str, dtype: torch.dtype, widest: int) -> str | None:
    if not HAS_TRITON:
        return "Triton is not installed: pip install triton"
    if device != "cuda" and not interpreted():
        return f"Triton compiles for CUDA devices only, and the case is on {device}"
    if dtype not in PRECISION:
        return f"it computes in {', '.join(map(dtype_name, PRECISION))}, not {dtype_name(dtype)}"
    if dtype == torch.bfloat16 and device == "cpu":
        return "Triton's interpreter computes bfloat16 wrongly; use float32 or float16"
    if widest > WIDEST:
        return f"head_dim and value_dim may be {WIDEST} at most, got {widest}"
    return None
