"""Calls of linear-triton that are alike, which are checked and planned once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from attention.kernels.linear_triton.checks import NAME, check_others, check_packed
from attention.kernels.linear_triton.gluon.launches import GluonLaunches
from attention.kernels.linear_triton.launches import Launches
from attention.kernels.linear_triton.triton.launches import TritonLaunches
from attention.kernels.triton_common.checks import check_call, check_reach, in_halves
from attention.kernels.triton_common.plan import begin_aligned, make_plan

_LAUNCHES: dict[tuple[Any, ...], Launches] = {}
MOST_LAUNCHES = 4096
forget_launches = _LAUNCHES.clear
"""Forget every plan: a test that changes the rules wants new ones."""


def launches(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, precision: str, *,
    eps: float = 0.0, final: bool = False, others: Sequence[Tensor | None] = (), names: Sequence[str] = (),
    cu_seqlens: Tensor | None = None,
) -> Launches:  # fmt: skip
    """The launches of a call on these tensors, ``others`` of these ``names`` that the caller gave among them.

    Calls that are alike are checked and planned once: a short sequence cannot wait for it each time.

    Raises:
        ValueError: tensors that no pass can read, an unknown map or precision.
    """
    given = [q, k, v, *[x for x in others if x is not None]]
    aligned = begin_aligned(given)
    alike = tuple([(x.shape, x.device, x.dtype, x.stride()) for x in given])
    packed = None if cu_seqlens is None else (cu_seqlens.shape, cu_seqlens.dtype, cu_seqlens.device)
    key = (alike, aligned, causal, phi, precision, eps, final, packed)
    found = _LAUNCHES.get(key)
    if found is None:
        check_call(NAME, q, k, v, phi, precision, plain=False)
        check_packed(q, k, causal, cu_seqlens)
        layouts = tuple([layout[1:] for layout in alike])
        plan = make_plan(
            q.shape,
            v.shape,
            layouts,
            aligned,
            packed=packed is not None,
            causal=causal,
            half=in_halves(precision),
        )
        if packed and not causal:  # a descriptor knows nothing of the ends of sequences
            plan = replace(plan, described=False)
        check_reach(NAME, plan, layouts)
        check_others(plan, final, v, zip(names, others, strict=False))
        found = (GluonLaunches if plan.gluon else TritonLaunches)(plan, phi, precision, eps)
        if len(_LAUNCHES) >= MOST_LAUNCHES:
            _LAUNCHES.clear()
        _LAUNCHES[key] = found
    return found
