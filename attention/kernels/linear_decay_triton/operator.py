"""linear-decay-triton as operators of torch's: the passes in order, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attention.costs import times
from attention.kernels.autograd import Operator, differentiable
from attention.kernels.derivatives import DecayedSums
from attention.kernels.dispatch import counts_macs, implements
from attention.kernels.layouts import contiguous_like
from attention.kernels.linear_decay_triton.costs import backward_terms, forward_terms
from attention.kernels.linear_decay_triton.launches import DecayLaunches, State
from attention.kernels.linear_decay_triton.plan import kept_shapes, sums_dtype
from attention.kernels.tensors import check_device, check_rows, check_shape
from attention.kernels.triton_common.checks import check_call, check_reach
from attention.kernels.triton_common.plan import Plan, begin_aligned, make_plan, plan_of, scanned

NAME = "linear-decay-triton"
Gradients = tuple[Tensor, Tensor, Tensor, Tensor]

torch.library.define(
    "attention::linear_decay_triton",
    "(Tensor q, Tensor k, Tensor v, Tensor g, str phi, str precision, bool keep) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
)
torch.library.define(
    "attention::linear_decay_triton_backward",
    "(Tensor do, Tensor q, Tensor k, Tensor v, Tensor sums, Tensor S, Tensor totals, str phi, "
    "str precision) -> (Tensor, Tensor, Tensor, Tensor)",
)

_LAUNCHES: dict[tuple[Any, ...], DecayLaunches] = {}
MOST_LAUNCHES = 4096
forget_launches = _LAUNCHES.clear
"""Forget every plan: a test that changes the rules wants new ones."""


def launches(
    q: Tensor, k: Tensor, v: Tensor, phi: str, precision: str, others: Sequence[Tensor], names: Sequence[str]
) -> DecayLaunches:
    """The launches of a call on these tensors and ``others`` of these ``names``.

    Calls that are alike are checked and planned once: a short sequence cannot wait for it each time.

    Raises:
        ValueError: tensors that no pass can read, an unknown map or precision.
    """
    given = [q, k, v, *others]
    aligned = begin_aligned(given)
    alike = tuple([(x.shape, x.device, x.dtype, x.stride()) for x in given])
    key = (alike, aligned, phi, precision)
    found = _LAUNCHES.get(key)
    if found is None:
        check_call(NAME, q, k, v, phi, precision)
        layouts = tuple([layout[1:] for layout in alike])
        plan = make_plan(q.shape, v.shape, layouts, aligned)
        check_reach(NAME, plan, layouts)
        found = DecayLaunches(plan, phi, precision)
        _check_others(plan, v, dict(zip(names, others, strict=True)))
        if len(_LAUNCHES) >= MOST_LAUNCHES:
            _LAUNCHES.clear()
        _LAUNCHES[key] = found
    return found


def _check_others(plan: Plan, v: Tensor, others: dict[str, Tensor]) -> None:
    """Refuse what else an operator was given, unless it is what the operators themselves return.

    Raises:
        ValueError: another shape, dtype, device or stride.
    """
    shapes = {"g": (plan.batch, plan.heads, plan.tokens), **kept_shapes(plan)}
    for name, x in others.items():
        if name == "do":
            check_shape(NAME, name, x, v.shape, v)
            check_rows(NAME, do=x)
            continue
        check_shape(NAME, name, x, shapes[name], v, sums_dtype(plan) if name == "sums" else torch.float32)
        if not x.is_contiguous():
            raise ValueError(f"{NAME} takes a contiguous {name}; got strides {x.stride()}")


@implements("linear_decay_triton", ("cpu", "cuda"))
def decay_forward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, phi: str, precision: str, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The output ``[B, H, N, Dv]``, and to ``keep`` what a backward wants of it, else empty.

    That is: the sums of gates within chunks ``[B H, N]``, the states before segments, and the sums of the
    gates of segments.
    """
    run, out = launches(q, k, v, phi, precision, (g,), ("g",)), contiguous_like(v)
    kept = run.taped(keep, (q, k, v, g, out), _keep if keep else _attend)
    sums, S, totals = kept or [run.buffer(0) for _ in range(3)]
    return out, sums, S, totals


def _attend(
    run: DecayLaunches, q: Tensor, k: Tensor, v: Tensor, g: Tensor, out: Tensor
) -> tuple[Tensor, ...]:
    """Fills ``out``, and returns no tensor."""
    _keep(run, q, k, v, g, out)
    return ()


def _keep(run: DecayLaunches, q: Tensor, k: Tensor, v: Tensor, g: Tensor, out: Tensor) -> tuple[Tensor, ...]:
    """Fills ``out``; the sums of gates within chunks, and states and totals, empty of one segment."""
    sums, state = run.begin(k, v, g)
    run.attend(q, k, v, out, sums, state)
    if state.S is None or state.totals is None:
        return sums, run.buffer(0, run.plan.value_width, run.plan.key_width), run.buffer(0)
    return sums, state.S, state.totals


@torch.library.register_fake("attention::linear_decay_triton")  # type: ignore[untyped-decorator]
def _(q: Tensor, k: Tensor, v: Tensor, g: Tensor, phi: str, precision: str, keep: bool) -> tuple[Tensor, ...]:
    check_call(NAME, q, k, v, phi, precision)
    check_device(NAME, q, g)
    plan = plan_of(q, k, v, (g,))
    shapes = kept_shapes(plan).values() if keep else [(plan.all_heads, 0)] * 3
    dtypes = (sums_dtype(plan) if keep else torch.float32, torch.float32, torch.float32)
    kept = (q.new_empty(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True))
    return contiguous_like(v), *kept


@implements("linear_decay_triton_backward", ("cpu", "cuda"))
def decay_gradients(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, sums: Tensor, S: Tensor, totals: Tensor,
    phi: str, precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv and dg ``[B, H, N]``, from what the forward took and kept."""
    others, names = (do, sums, S, totals), ("do", "sums", "S", "totals")
    run = launches(q, k, v, phi, precision, others, names)
    dq, dk, dv = (contiguous_like(x) for x in (q, k, v))
    dg = q.new_empty(q.shape[:3], dtype=torch.float32)
    run.taped("backward", (do, q, k, v, sums, S, totals, dq, dk, dv, dg), _differentiate)
    return dq, dk, dv, dg


def _differentiate(run: DecayLaunches, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Fills dq, dk, dv and dg, and returns no tensor."""
    do, q, k, v, sums, S, totals, dq, dk, dv, dg = tensors
    count = run.plan.segments - 1
    before = State(S, totals, scanned(count, run.tiles.held)) if count else State(None, None, scanned=False)
    behind = run.states(q, do, sums, reverse=True)
    pairs = run.pairs()
    run.differentiate(do, v, q, k, dq, sums, before, pairs, reverse=False)
    run.differentiate(v, do, k, q, dk, sums, behind, pairs, reverse=True)
    run.attend(k, q, do, dv, sums, behind, pairs)
    run.differentiate_gates(pairs, sums, dg)
    return ()


@torch.library.register_fake("attention::linear_decay_triton_backward")  # type: ignore[untyped-decorator]
def _(do: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    check_call(NAME, q, k, v, *rest[-2:])
    check_shape(NAME, "do", do, v.shape, v)
    check_device(NAME, q, *rest[:3])
    return *(contiguous_like(x) for x in (q, k, v)), q.new_empty(q.shape[:3], dtype=torch.float32)


def _kept(*arguments: Any) -> tuple[Tensor, ...]:
    forward: Operator = decay_forward
    return forward(*arguments, True)


def _gradients(do: Tensor, q: Tensor, k: Tensor, v: Tensor, g: Tensor, _: Tensor, *rest: Any) -> Gradients:
    return decay_gradients(do, q, k, v, *rest)


decay_differentiable = differentiable(
    "attention::linear_decay_triton",
    _kept,
    _gradients,
    batch_dims=(0, 0, 0, 0),
    inputs=4,
    function=lambda phi, *_: DecayedSums(phi),
)


def _forward_macs(q: Tensor, k: Tensor, v: Tensor, g: Tensor, *_: Any) -> dict[str, int]:
    plan = plan_of(q, k, v, (g,))
    return times(plan.all_heads, forward_terms(plan))


def _backward_macs(do: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> dict[str, int]:
    plan = plan_of(q, k, v, (do, *rest[:3]))
    return times(plan.all_heads, backward_terms(plan))


counts_macs("linear_decay_triton", _forward_macs)
counts_macs("linear_decay_triton_backward", _backward_macs)
