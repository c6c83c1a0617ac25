"""All forms of linear attention out of its core, which each kernel has its own of.

A core is ``core(q, k, v, state, *, causal, final, phi, eps, **options)``: q ``[B, Hq, Nq, D]``, k ``[B, Hkv,
Nk, D]``, v ``[B, Hkv, Nk, Dv]``, where causal of one length; ``state`` that of the tokens before, or None;
``phi`` the name of a feature map. It returns the output ``[B, Hq, Nq, Dv]``, and the state after the last
token where ``final``, else None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

import torch
from torch import Tensor

from attention.inputs import describe
from attention.kernels.feature_maps import FeatureMap, mapped_before
from attention.kernels.forms.masks import check_beside, check_packed, check_padding, sequences
from attention.kernels.tensors import differentiated
from attention.state import State

Core = Callable[..., tuple[Tensor, State | None]]
MAPPED_TO_NOTHING = {"elu": -1e4, "relu": -1e4, "identity": 0.0}
"""Elements of a key that each map takes to 0, in every dtype."""
LEAST_EPS = 1e-30
"""In place of 0 where a query may see no key: its output is 0, and so are its gradients."""


class LinearOptions(TypedDict, total=False):
    """What kernels of linear attention take beside q, k and v.

    ``causal``: whether query i sees only the keys up to i + Nk - Nq. ``feature_map``: phi. ``eps``: added to
    the normaliser. ``key_padding_mask`` ``[B, Nk]``: True where a key is ignored. ``cu_seqlens``: where
    packed sequences begin, and the last ends. ``initial_state``: of what came before; of packed sequences
    one each.
    ``return_state``: whether to return (output, state).
    """

    causal: bool
    feature_map: str | FeatureMap
    eps: float
    key_padding_mask: Tensor | None
    cu_seqlens: Tensor | None
    initial_state: State | None
    return_state: bool


def attend(
    core: Core,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-6,
    key_padding_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: State | None = None,
    return_state: bool = False,
    packed: Core | None = None,
    states: bool = False,
    **options: Any,
) -> Any:
    """The output ``[B, Hq, Nq, Dv]`` in any form, with the last state where asked for.

    Args:
        core: The kernel's.
        q: queries ``[B, Hq, Nq, D]``.
        k: keys ``[B, Hkv, Nk, D]``.
        v: values ``[B, Hkv, Nk, Dv]``.
        causal: as in :class:`LinearOptions`, like the others.
        feature_map: phi.
        eps: added to the normaliser.
        key_padding_mask: what to ignore.
        cu_seqlens: of packed sequences.
        initial_state: of what came before.
        return_state: whether to return (output, state).
        packed: of a kernel that has it, its core of packed sequences, ``cu_seqlens`` behind the state, of
            which there is one for each sequence; else they are computed one by one.
        states: whether that core takes and makes states; else sequences with any are computed one by one.
        options: What else the core takes.

    Raises:
        TypeError: a mask, ends or a state of another kind.
        ValueError: the same of other shapes, or padding of packed sequences.
    """
    dtype, ignored = v.dtype, None
    if key_padding_mask is not None:
        if cu_seqlens is not None:
            raise ValueError("packed sequences have no padding; give cu_seqlens or key_padding_mask")
        ignored = check_padding(key_padding_mask, k)[:, None, :, None]
        v, eps = v.masked_fill(ignored, 0), eps or LEAST_EPS
        if not isinstance(feature_map, str):  # what it makes of a NaN has a gradient of NaN, were it unused
            k = k.masked_fill(ignored, 0)
    q, k, v, phi = mapped_before(feature_map, q, k, v)
    if ignored is not None:
        k = k.masked_fill(ignored, MAPPED_TO_NOTHING[phi])
    plain = cu_seqlens is None and initial_state is None and not return_state
    if plain and q.shape[2] == k.shape[2] > 0:
        # A short sequence cannot wait for what other forms ask.
        out, last = core(q, k, v, None, causal=causal, final=False, phi=phi, eps=eps, **options)
    elif cu_seqlens is None:
        state = checked_state(initial_state, q, k, v)
        out, last = _aligned(core, q, k, v, state, causal, return_state, phi=phi, eps=eps, **options)
    elif packed is not None and (states or (initial_state is None and not return_state)):
        ends = check_packed(cu_seqlens, q, k)
        check_beside(ends, q)
        state = checked_state(initial_state, q, k, v, batch=ends.shape[0] - 1)
        if differentiated(q, k, v, *(state or ())):
            ends = ends.clone()  # a backward reads them, perhaps once the caller's buffer holds others
        out, last = packed(
            q, k, v, state, ends, causal=causal, final=return_state, phi=phi, eps=eps, **options
        )
    else:
        places = sequences(check_packed(cu_seqlens, q, k), q.shape[2])
        state = checked_state(initial_state, q, k, v, batch=len(places))
        options |= {"phi": phi, "eps": eps}
        out, last = _one_by_one(core, q, k, v, state, places, causal, return_state, **options)
    out = out if out.dtype is dtype else out.to(dtype)
    return (out, last) if return_state else out


def _aligned(
    core: Core, q: Tensor, k: Tensor, v: Tensor, state: State | None, causal: bool, final: bool,
    **options: Any,
) -> tuple[Tensor, State | None]:  # fmt: skip
    """Where causal, the last query sees the last key: of more keys the first are a state, as of a prefix."""
    ahead = k.shape[2] - q.shape[2]
    if not k.shape[2]:
        options["eps"] = options["eps"] or LEAST_EPS
    if not causal or ahead == 0:
        return core(q, k, v, state, causal=causal, final=final, **options)
    if ahead > 0:
        (early_k, late_k), (early_v, late_v) = (t.split_with_sizes([ahead, q.shape[2]], 2) for t in (k, v))
        state = core(q[:, :, :0], early_k, early_v, state, causal=False, final=True, **options)[1]
        return core(q, late_k, late_v, state, causal=True, final=final, **options)
    # The first queries see no key, but what the state holds.
    options["eps"] = options["eps"] or LEAST_EPS
    before, q = q.split_with_sizes([-ahead, k.shape[2]], 2)
    early = core(before, k[:, :, :0], v[:, :, :0], state, causal=False, final=False, **options)[0]
    late, last = core(q, k, v, state, causal=True, final=final, **options)
    return torch.cat([early, late], 2), last


def _one_by_one(
    core: Core, q: Tensor, k: Tensor, v: Tensor, state: State | None, ends: list[slice], causal: bool,
    final: bool, **options: Any,
) -> tuple[Tensor, State | None]:  # fmt: skip
    if not ends:
        out = core(q, k, v, None, causal=causal, final=False, **options)[0]
        return out, _empty_state(k, v, batch=0) if final else None
    # Split, not cut one by one: the gradient of each cut would be as large as all sequences.
    sizes = [place.stop - place.start for place in ends]
    parts = zip(*(t.split_with_sizes(sizes, 2) for t in (q, k, v)), strict=True)
    before: list[State | None] = [None] * len(ends)
    if state is not None:
        before = [
            State(S, z) for S, z in zip(*(x.split_with_sizes([1] * len(ends)) for x in state), strict=True)
        ]
    found = [
        core(*x, begun, causal=causal, final=final, **options) for x, begun in zip(parts, before, strict=True)
    ]
    outputs, states = zip(*found, strict=True)
    return torch.cat(outputs, 2), State(*map(torch.cat, zip(*states, strict=True))) if final else None


def by_key_heads(q: Tensor, kv_heads: int) -> Tensor:
    """Queries ``[B, Hq, Nq, D]`` as ``[B, Hkv, G, Nq, D]``: G heads share one of the keys."""
    batch, heads, tokens, width = q.shape
    return q.reshape(batch, kv_heads, heads // max(1, kv_heads), tokens, width)


def begun(state: State | None, k: Tensor, v: Tensor, batch: int | None = None) -> State:
    """The state before these keys and values, of zeros where there is none."""
    return _empty_state(k, v, batch=k.shape[0] if batch is None else batch) if state is None else state


def _empty_state(k: Tensor, v: Tensor, batch: int) -> State:
    dtype = torch.promote_types(k.dtype, torch.float32)
    return State.empty(batch, k.shape[1], k.shape[3], v.shape[3], dtype=dtype, device=k.device)


def checked_state(state: object, q: Tensor, k: Tensor, v: Tensor, batch: int | None = None) -> State | None:
    """The state as a core takes it: of the dtype in which sums are, or None.

    Raises:
        TypeError: no pair of dense tensors.
        ValueError: another shape, device or kind of number.
    """
    if state is None:
        return None
    if not (
        isinstance(state, tuple | list)
        and len(state) == 2
        and all(isinstance(x, Tensor) and x.layout == torch.strided and not x.is_nested for x in state)
    ):
        found = f"({', '.join(map(describe, state))})" if isinstance(state, tuple | list) else describe(state)
        raise TypeError(
            "initial_state must be a State, two dense tensors, S [B, Hkv, D, Dv] and z [B, Hkv, D]; "
            f"got {found}"
        )
    S, z = state
    shape = (k.shape[0] if batch is None else batch, k.shape[1], k.shape[3], v.shape[3])
    if tuple(S.shape) != shape or tuple(z.shape) != shape[:3]:
        raise ValueError(
            f"initial_state must be S [B, Hkv, D, Dv] = {list(shape)} and z [B, Hkv, D] = {list(shape[:3])}; "
            f"got {list(S.shape)} and {list(z.shape)}"
        )
    if not (S.device == z.device == k.device and S.is_floating_point() and z.is_floating_point()):
        raise ValueError(
            f"initial_state must hold floating-point numbers on {k.device}; "
            f"got {S.dtype} on {S.device} and {z.dtype} on {z.device}"
        )
    dtype = torch.promote_types(k.dtype, torch.float32)
    return State(S.to(dtype), z.to(dtype))


def step_of(
    function: Callable[..., Any],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: State,
    *,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-6,
    in_place: bool = False,
) -> tuple[Tensor, State]:
    """One or a few tokens by a kernel's function for whole sequences.

    Raises:
        TypeError: a state of another kind.
        ValueError: shapes that do not fit together, or ``in_place`` where gradients would be wanted.
    """
    check_step(q, k, v, state, in_place)
    options = {"causal": True, "feature_map": feature_map, "eps": eps}
    out, last = function(q, k, v, initial_state=state, return_state=True, **options)
    if not in_place:
        return out, last
    for old, new in zip(state, last, strict=True):
        old.copy_(new)
    return out, state


def check_step(q: Tensor, k: Tensor, v: Tensor, state: object, in_place: bool) -> None:
    """Refuse what no step can be taken with.

    Raises:
        TypeError: no state.
        ValueError: queries without a key of their own, or ``in_place`` where gradients would be wanted.
    """
    if state is None:
        raise TypeError("a step continues a state; of no tokens, State.empty(batch, kv_heads, head_dim)")
    if q.shape[2] != k.shape[2]:
        raise ValueError(f"a step takes one key a query; got q {list(q.shape)}, k {list(k.shape)}")
    kept = [x for x in state if isinstance(x, Tensor)] if isinstance(state, tuple | list) else []
    if in_place and differentiated(q, k, v, *kept):
        raise ValueError(
            "in_place overwrites the state that a backward would read; use torch.no_grad() or in_place=False"
        )
