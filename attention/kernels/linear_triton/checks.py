"""What a call must be for the passes to read no memory but that of its tensors.

Passes take addresses and strides, and believe that all else follows from the shape of q and the width of v.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, float32

from attention.kernels.feature_maps import get_feature_map
from attention.kernels.linear_triton.plan import DTYPES, PRECISIONS, WIDEST, Layout, Plan
from attention.kernels.tensors import check_operands, check_rows, check_shape

NAME = "linear-triton"
MOST_TOKENS, MOST_HEADS = 2**30, 2**28
"""Counted in 32 bits are tokens, to a segment beyond the last, and programs, four a head or less."""
MOST_STRIDE = 2**25
"""Rows of a chunk, 64 at most, are found in 32 bits where pointers move them."""


def check_call(q: Tensor, k: Tensor, v: Tensor, phi: str, precision: str) -> None:
    """Refuse operands that do not fit together or that no pass is written for.

    Raises:
        TypeError: not a dense tensor.
        ValueError: ranks, shapes, dtypes, devices, strides or widths; an unknown map or precision.
    """
    check_operands(NAME, DTYPES, q, k, v)
    get_feature_map(phi)
    if max(q.shape[-1], v.shape[-1]) > WIDEST:
        raise ValueError(
            f"{NAME} takes head_dim and value_dim of {WIDEST} at most; got {q.shape[-1]} and {v.shape[-1]}"
        )
    if precision not in PRECISIONS:
        raise ValueError(
            f"input_precision {precision!r} does not exist; choose one of {', '.join(PRECISIONS)}"
        )


def check_reach(plan: Plan, layouts: tuple[Layout, ...]) -> None:
    """Refuse sizes and strides of which the passes' 32-bit numbers would overflow.

    Raises:
        ValueError: too many heads or tokens, or tokens too far apart.
    """
    if plan.tokens > MOST_TOKENS or plan.all_heads > MOST_HEADS:
        raise ValueError(
            f"{NAME} takes at most {MOST_TOKENS} tokens and {MOST_HEADS} heads in all; "
            f"got {plan.tokens} and {plan.all_heads}"
        )
    farthest = max(strides[2] for _, _, strides in layouts if len(strides) == 4)
    if farthest >= MOST_STRIDE and plan.tokens > 1 and not plan.described:
        raise ValueError(
            f"{NAME} reaches tokens less than {MOST_STRIDE} elements apart; "
            f"got a stride of {farthest}: pass contiguous tensors"
        )


def check_pairs(*pairs: tuple[Tensor | None, Tensor | None]) -> None:
    """Refuse one half of a state.

    Raises:
        ValueError: S without z, or z without S.
    """
    for S, z in pairs:
        if (S is None) != (z is None):
            raise ValueError(f"{NAME} takes both parts of a state, S and z, or neither; got one of them")


def check_others(
    plan: Plan, causal: bool, final: bool, v: Tensor, others: Iterable[tuple[str, Tensor | None]]
) -> None:
    """Refuse what else an operator was given, unless it is what the operators themselves return.

    Raises:
        ValueError: another shape, dtype, device or stride.
    """
    heads, D, E = plan.all_heads, plan.key_width, plan.value_width
    count = plan.summed(causal=causal, final=final)
    slots = plan.slots(count)
    sums = {
        "inv": (heads, plan.tokens), "S": (heads, slots, D, E), "z": (heads, slots, D),
        "S0": (heads, D, E), "z0": (heads, D), "dS": (heads, D, E), "dz": (heads, D),
    }  # fmt: skip
    for name, x in others:
        if x is None or (name in ("S", "z") and not count):  # not read
            continue
        if name not in sums:
            check_shape(NAME, name, x, v.shape, v)
            check_rows(NAME, **{name: x})
            continue
        check_shape(NAME, name, x, sums[name], v, float32)
        if not x.is_contiguous():
            raise ValueError(f"{NAME} takes a contiguous {name}; got strides {x.stride()}")
