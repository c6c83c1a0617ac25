"""linear-native as operators of torch's, which compilers, autograd and ``FlopCounterMode`` know."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from attention.costs import Sizes
from attention.kernels.autograd import Operator, differentiable
from attention.kernels.derivatives import Function, NormalisedSums, PackedSums
from attention.kernels.dispatch import counts_macs, implements
from attention.kernels.feature_maps import get_feature_map
from attention.kernels.forms.masks import check_ends, values_of
from attention.kernels.layouts import contiguous_like, output_like
from attention.kernels.linear_native.costs import PROGRAM, backward_terms, forward_terms, scratch_size
from attention.kernels.native.library import STORAGE, call, wide
from attention.kernels.native.plan import packed_slots, row, segments, summed
from attention.kernels.tensors import (
    check_device,
    check_ends_like,
    check_operands,
    check_rows,
    check_shape,
    check_state,
)

NAME = "linear-native"
Three = tuple[Tensor, Tensor, Tensor]
Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
Pair = tuple[Tensor, Tensor] | None
"""S and z of a state, or of a gradient of one."""
Ends = Tensor | None
"""Where packed sequences begin, and the last ends."""

# Defined by hand: what ``custom_op`` and ``register_autograd`` wrap around a call costs it 100 us.
torch.library.define(
    "attention::linear_native",
    "(Tensor q, Tensor k, Tensor v, bool causal, str phi, float eps, Tensor? cu_seqlens, bool keep) "
    "-> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "attention::linear_native_backward",
    "(Tensor do, Tensor q, Tensor k, Tensor v, Tensor out, Tensor inverse, Tensor states, "
    "bool causal, str phi, Tensor? cu_seqlens) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "attention::linear_native_with_state",
    "(Tensor q, Tensor k, Tensor v, Tensor S0, Tensor z0, bool causal, str phi, float eps, "
    "Tensor? cu_seqlens, bool keep) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
torch.library.define(
    "attention::linear_native_with_state_backward",
    "(Tensor do, Tensor dS, Tensor dz, Tensor q, Tensor k, Tensor v, Tensor S0, Tensor z0, Tensor out, "
    "Tensor inverse, Tensor states, bool causal, str phi, Tensor? cu_seqlens) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def _check(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, cu_seqlens: Ends, **states: Pair
) -> None:  # fmt: skip
    """Before an address is taken: C++ sees no shapes but those of q and v."""
    check_operands(NAME, STORAGE, q, k, v, plain=False, causal=causal or cu_seqlens is not None)
    get_feature_map(phi)
    if cu_seqlens is not None:
        check_ends_like(NAME, cu_seqlens, q)
    sequences = 1 if cu_seqlens is None else cu_seqlens.shape[0] - 1
    for name, pair in states.items():
        if pair:
            check_state(NAME, *pair, k, v, (f"S of {name}", f"z of {name}"), sequences)


def _ends(cu_seqlens: Ends, tokens: int) -> Ends:
    """The ends of packed sequences as C++ reads them, which would go astray by wrong ones."""
    if cu_seqlens is None:
        return None
    check_ends(values_of(cu_seqlens), tokens)
    return cu_seqlens.long().contiguous()


def _check_kept(
    do: Tensor, q: Tensor, v: Tensor, out: Tensor, inverse: Tensor, states: Tensor, causal: bool, packed: bool
) -> None:
    """Whether these are a gradient and the results of a forward, cut into any number of segments."""
    shape = (*q.shape[:3], v.shape[3])
    check_shape(NAME, "do", do, shape, v)
    check_shape(NAME, "out", out, shape, v)
    check_rows(NAME, do=do, out=out)
    check_shape(NAME, "inverse", inverse, q.shape[:3], q, wide(q))
    parts = _kept_parts(states, packed) if states.dim() == 4 else 1
    check_shape(NAME, "states", states, _states_shape(q, v, parts, causal, packed), q, wide(q))


def _states_shape(
    q: Tensor, v: Tensor, parts: int, causal: bool, packed: bool
) -> tuple[int, int, int, int]:  # fmt: skip
    """``[B Hkv, segments, Dv + 1, row]``; size 0 where unused."""
    count = packed_slots(parts) if packed else parts
    width = row(q.shape[-1], wide(q).itemsize) if packed or summed(parts, causal) else 0
    return v.shape[0] * v.shape[1], count, v.shape[-1] + 1, width


def _kept_parts(states: Tensor, packed: bool) -> int:
    """Segments of the keys by the sums that a forward kept."""
    return max(1, states.shape[1] // 2 if packed else states.shape[1])


def _parts(tokens: int, v: Tensor) -> int:
    return segments(tokens, v.shape[0] * v.shape[1], torch.get_num_threads())


def _call(
    tensors: dict[str, Tensor], inverse: Tensor, states: Tensor, causal: bool, phi: str, eps: float,
    ends: Ends, backward: bool, **pairs: Pair,
) -> None:  # fmt: skip
    """Call the C++; ``tensors`` and ``pairs`` go by the names of its struct."""
    q, v, packed = tensors["q"], tensors["v"], ends is not None
    parts = _kept_parts(states, packed)
    query_parts = parts if causal or packed else _parts(q.shape[2], v)
    buffers = {"inverse": inverse, "states": states}
    if backward:
        buffers["sums"] = states.new_empty(_states_shape(q, v, query_parts, causal, packed))
    scratch = scratch_size(q.shape[-1], v.shape[-1], inverse.dtype.itemsize)
    call(
        PROGRAM, tensors, buffers, parts, scratch, phi, backward=backward, causal=causal, eps=eps,
        query_parts=query_parts, states={name: pair for name, pair in pairs.items() if pair}, ends=ends,
    )  # fmt: skip


@implements("linear_native", "cpu")
def native_forward(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, cu_seqlens: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The output; inverse normalisers ``[B, Hq, Nq]`` and sums, which a backward reads, or else nothing.

    The output lies in memory as the values do, so that a layer need not copy it to join its heads.

    Raises:
        ValueError: tensors that do not fit together, or an unknown map.
    """
    return _forward(q, k, v, None, None, causal, phi, eps, cu_seqlens, keep)


@implements("linear_native_with_state", "cpu")
def native_with_state(
    q: Tensor, k: Tensor, v: Tensor, S0: Tensor, z0: Tensor, causal: bool, phi: str, eps: float,
    cu_seqlens: Tensor | None, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The output behind a state S0 ``[B, Hkv, D, Dv]``, z0 ``[B, Hkv, D]``; the last state; and what is kept.

    B counts each of packed sequences.

    Raises:
        ValueError: tensors that do not fit together, or an unknown map.
    """
    S, z = contiguous_like(S0), contiguous_like(z0)
    first = S0.contiguous(), z0.contiguous()
    out, inverse, states = _forward(q, k, v, first, (S, z), causal, phi, eps, cu_seqlens, keep)
    return out, S, z, inverse, states


def _forward(
    q: Tensor, k: Tensor, v: Tensor, first: Pair, last: Pair, causal: bool, phi: str, eps: float, cu: Ends,
    keep: bool,
) -> Three:  # fmt: skip
    _check(q, k, v, causal, phi, cu, S0=first)
    ends = _ends(cu, k.shape[2])
    out, inverse, states = _results(q, v, causal, ends, keep=True)
    if out.numel() or (last and v.numel()):
        tensors = {"q": q, "k": k, "v": v, "out": out}
        _call(tensors, inverse, states, causal, phi, eps, ends, False, first=first, last=last)
    else:
        states.zero_()  # of no tokens
        for new, old in zip(last or (), first or (), strict=True):
            new.copy_(old)
    if not keep:
        inverse, states = inverse.new_empty(0), states.new_empty(0)
    return out, inverse, states


def _results(q: Tensor, v: Tensor, causal: bool, cu_seqlens: Ends, keep: bool) -> Three:
    """Room for the output, and for what a backward reads."""
    if not keep:
        return output_like(q, v), *(q.new_empty(0, dtype=wide(q)) for _ in range(2))  # type: ignore[return-value]
    shape = _states_shape(q, v, _parts(v.shape[2], v), causal, cu_seqlens is not None)
    states = q.new_empty(shape, dtype=wide(q))
    return output_like(q, v), q.new_empty(q.shape[:3], dtype=wide(q)), states


@torch.library.register_fake("attention::linear_native")  # type: ignore[untyped-decorator]
def _(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, cu_seqlens: Ends, keep: bool
) -> Three:  # fmt: skip
    _check(q, k, v, causal, phi, cu_seqlens)
    return _results(q, v, causal, cu_seqlens, keep)


@torch.library.register_fake("attention::linear_native_with_state")  # type: ignore[untyped-decorator]
def _(
    q: Tensor, k: Tensor, v: Tensor, S0: Tensor, z0: Tensor, causal: bool, phi: str, eps: float,
    cu_seqlens: Ends, keep: bool,
) -> Five:  # fmt: skip
    _check(q, k, v, causal, phi, cu_seqlens, S0=(S0, z0))
    out, inverse, states = _results(q, v, causal, cu_seqlens, keep)
    return out, contiguous_like(S0), contiguous_like(z0), inverse, states


@implements("linear_native_backward", "cpu")
def native_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, inverse: Tensor, states: Tensor,
    causal: bool, phi: str, cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv, from what the forward took and returned.

    Raises:
        ValueError: tensors that do not fit together, or an unknown map.
    """
    return _backward(do, q, k, v, out, inverse, states, causal, phi, cu_seqlens)


@implements("linear_native_with_state_backward", "cpu")
def native_with_state_backward(
    do: Tensor, dS: Tensor, dz: Tensor, q: Tensor, k: Tensor, v: Tensor, S0: Tensor, z0: Tensor, out: Tensor,
    inverse: Tensor, states: Tensor, causal: bool, phi: str, cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv, dS0, dz0, from what the forward took and returned, and the gradients of the last state.

    Raises:
        ValueError: tensors that do not fit together, or an unknown map.
    """
    first, behind, last = (
        tuple(map(turn, pair))
        for pair, turn in (((S0, z0), _contiguous), ((dS, dz), _contiguous), ((S0, z0), contiguous_like))
    )
    pairs = {"first": first, "behind": behind, "last": last}
    found = _backward(do, q, k, v, out, inverse, states, causal, phi, cu_seqlens, **pairs)  # type: ignore[arg-type]
    return *found, *last  # type: ignore[return-value]


def _contiguous(x: Tensor) -> Tensor:
    return x.contiguous()


def _backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, inverse: Tensor, states: Tensor,
    causal: bool, phi: str, cu: Ends, first: Pair = None, behind: Pair = None, last: Pair = None,
) -> Three:  # fmt: skip
    _check(q, k, v, causal, phi, cu, S0=first, dS=behind)
    _check_kept(do, q, v, out, inverse, states, causal, cu is not None)
    ends = _ends(cu, k.shape[2])
    inverse, states = inverse.contiguous(), states.contiguous()
    dq, dk, dv = (contiguous_like(x) for x in (q, k, v))
    if out.numel() or (last and v.numel()):
        tensors = {"q": q, "k": k, "v": v, "out": out, "grad_out": do, "dq": dq, "dk": dk, "dv": dv}
        _call(tensors, inverse, states, causal, phi, 0.0, ends, True, first=first, behind=behind, last=last)
    else:
        for x in (dq, dk, dv):
            x.zero_()
        for new, old in zip(last or (), behind or (), strict=True):
            new.copy_(old)
    return dq, dk, dv


@torch.library.register_fake("attention::linear_native_backward")  # type: ignore[untyped-decorator]
def _(do: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Three:
    _check(q, k, v, *rest[-3:])
    check_shape(NAME, "do", do, (*q.shape[:3], v.shape[3]), v)
    check_device(NAME, q, *rest[:3])
    return contiguous_like(q), contiguous_like(k), contiguous_like(v)


@torch.library.register_fake("attention::linear_native_with_state_backward")  # type: ignore[untyped-decorator]
def _(do: Tensor, dS: Tensor, dz: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Five:
    _check(q, k, v, *rest[-3:], dS=(dS, dz))
    check_shape(NAME, "do", do, (*q.shape[:3], v.shape[3]), v)
    check_device(NAME, q, *rest[:5])
    return tuple(map(contiguous_like, (q, k, v, dS, dz)))  # type: ignore[return-value]


def _kept(forward: Operator) -> Operator:
    return lambda *arguments: forward(*arguments, True)


def _without_eps(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    *others, _, cu_seqlens = arguments
    return *others, cu_seqlens


def _function(causal: bool, phi: str, eps: float, cu_seqlens: Ends) -> Function:
    one = NormalisedSums(causal, phi, eps)
    return one if cu_seqlens is None else PackedSums(one, cu_seqlens)


native_differentiable = differentiable(
    "attention::linear_native",
    _kept(native_forward),
    lambda *arguments: native_backward(*_without_eps(arguments)),
    batch_dims=(0, 0, 0),
    function=_function,
)
native_with_state_differentiable = differentiable(
    "attention::linear_native_with_state",
    _kept(native_with_state),
    # Without S and z.
    lambda *arguments: native_with_state_backward(*arguments[:9], *_without_eps(arguments[11:])),
    batch_dims=(0, 0, 0, 0, 0),
    inputs=5,
    outputs=3,
    function=_function,
)


def _forward_macs(q: Tensor, k: Tensor, v: Tensor, *rest: Any, brief: bool = True) -> dict[str, int]:
    causal, _, _, cu_seqlens, _ = rest[-5:]
    return _macs(forward_terms, q, v, causal, cu_seqlens, brief)


def _backward_macs(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any, brief: bool = True
) -> dict[str, int]:  # fmt: skip
    causal, _, cu_seqlens = rest[-3:]
    return _macs(backward_terms, q, v, causal, cu_seqlens, brief)


def _macs(
    terms: Callable[..., dict[str, int]], q: Tensor, v: Tensor, causal: bool, cu_seqlens: Ends, brief: bool
) -> dict[str, int]:  # fmt: skip
    lengths = None if cu_seqlens is None else [b - a for a, b in pairwise(values_of(cu_seqlens))]
    return terms(Sizes.of(q, v), causal, torch.get_num_threads(), lengths, brief)


counts_macs("linear_native", _forward_macs)
counts_macs("linear_native_with_state", partial(_forward_macs, brief=False))
counts_macs("linear_native_backward", _backward_macs)
counts_macs(
    "linear_native_with_state_backward",
    lambda do, dS, dz, *rest: _backward_macs(do, *rest, brief=False),
)
