"""What a call must be for the passes to read no memory but that of its tensors.

Passes take addresses and strides, and believe that all else follows from the shape of q and the width of v.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, float32

from attention.kernels.tensors import check_ends_like, check_rows, check_shape
from attention.kernels.triton_common.plan import Plan

NAME = "linear-triton"


def check_pairs(*pairs: tuple[Tensor | None, Tensor | None]) -> None:
    """Refuse one half of a state.

    Raises:
        ValueError: S without z, or z without S.
    """
    for S, z in pairs:
        if (S is None) != (z is None):
            raise ValueError(f"{NAME} takes both parts of a state, S and z, or neither; got one of them")


def check_packed(q: Tensor, k: Tensor, causal: bool, cu_seqlens: Tensor | None) -> None:
    """Refuse lengths that an operator does not serve.

    Raises:
        ValueError: causal or packed of unequal lengths, or ends that are no row of integers on the device.
    """
    if (causal or cu_seqlens is not None) and q.shape[2] != k.shape[2]:
        raise ValueError(
            f"{NAME} takes as many queries as keys where causal or packed; got {q.shape[2]} and {k.shape[2]}"
        )
    if cu_seqlens is not None:
        check_ends_like(NAME, cu_seqlens, q)


def check_others(plan: Plan, final: bool, v: Tensor, others: Iterable[tuple[str, Tensor | None]]) -> None:
    """Refuse what else an operator was given, unless it is what the operators themselves return.

    Raises:
        ValueError: another shape, dtype, device or stride.
    """
    heads, D, E = plan.all_key_heads, plan.key_width, plan.value_width
    count = plan.summed(final=final)
    slots = plan.slots(count)
    sums = {
        "inv": (plan.all_heads, plan.tokens), "S": (heads, slots, D, E), "z": (heads, slots, D),
        "S0": (heads, D, E), "z0": (heads, D), "dS": (heads, D, E), "dz": (heads, D),
    }  # fmt: skip
    for name, x in others:
        if x is None or (name in ("S", "z") and not count):  # not read
            continue
        if name not in sums:
            check_shape(NAME, name, x, (plan.batch, plan.heads, plan.tokens, E), v)
            check_rows(NAME, **{name: x})
            continue
        check_shape(NAME, name, x, sums[name], v, float32)
        if not x.is_contiguous():
            raise ValueError(f"{NAME} takes a contiguous {name}; got strides {x.stride()}")
