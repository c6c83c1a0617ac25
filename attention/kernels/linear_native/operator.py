"""linear-native as operators of torch's, which compilers, autograd and ``FlopCounterMode`` know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attention.costs import Sizes
from attention.kernels.autograd import Operator, differentiable
from attention.kernels.dispatch import counts_macs, implements
from attention.kernels.feature_maps import get_feature_map
from attention.kernels.linear_native.costs import PROGRAM, backward_terms, forward_terms, scratch_size
from attention.kernels.native.library import STORAGE, call, wide
from attention.kernels.native.plan import row, segments, summed
from attention.kernels.tensors import (
    check_device,
    check_operands,
    check_rows,
    check_shape,
    check_state,
    contiguous_like,
    output_like,
)

NAME = "linear-native"
Three = tuple[Tensor, Tensor, Tensor]
Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
Pair = tuple[Tensor, Tensor] | None
"""S and z of a state, or of a gradient of one."""

# Defined by hand: what ``custom_op`` and ``register_autograd`` wrap around a call costs it 100 us.
torch.library.define(
    "attention::linear_native",
    "(Tensor q, Tensor k, Tensor v, bool causal, str phi, float eps, bool keep) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "attention::linear_native_backward",
    "(Tensor do, Tensor q, Tensor k, Tensor v, Tensor out, Tensor inverse, Tensor states, "
    "bool causal, str phi) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "attention::linear_native_with_state",
    "(Tensor q, Tensor k, Tensor v, Tensor S0, Tensor z0, bool causal, str phi, float eps, bool keep) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
torch.library.define(
    "attention::linear_native_with_state_backward",
    "(Tensor do, Tensor dS, Tensor dz, Tensor q, Tensor k, Tensor v, Tensor S0, Tensor z0, Tensor out, "
    "Tensor inverse, Tensor states, bool causal, str phi) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def _check(q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, state: Pair = None) -> None:
    """Before an address is taken: C++ sees no shapes but those of q and v."""
    check_operands(NAME, STORAGE, q, k, v, plain=False, causal=causal)
    get_feature_map(phi)
    if state:
        check_state(NAME, *state, k, v)


def _check_kept(
    do: Tensor, q: Tensor, v: Tensor, out: Tensor, inverse: Tensor, states: Tensor, causal: bool
) -> None:
    """Whether these are a gradient and the results of a forward, cut into any number of segments."""
    shape = (*q.shape[:3], v.shape[3])
    check_shape(NAME, "do", do, shape, v)
    check_shape(NAME, "out", out, shape, v)
    check_rows(NAME, do=do, out=out)
    check_shape(NAME, "inverse", inverse, q.shape[:3], q, wide(q))
    parts = max(1, states.shape[1]) if states.dim() == 4 else 1
    check_shape(NAME, "states", states, _states_shape(q, v, parts, causal), q, wide(q))


def _states_shape(q: Tensor, v: Tensor, parts: int, causal: bool) -> tuple[int, int, int, int]:
    """``[B Hkv, segments, Dv + 1, row]``; size 0 where unused."""
    width = row(q.shape[-1], wide(q).itemsize) if summed(parts, causal) else 0
    return v.shape[0] * v.shape[1], parts, v.shape[-1] + 1, width


def _parts(tokens: int, v: Tensor) -> int:
    return segments(tokens, v.shape[0] * v.shape[1], torch.get_num_threads())


def _call(
    tensors: dict[str, Tensor], inverse: Tensor, states: Tensor, causal: bool, phi: str, eps: float,
    backward: bool, **pairs: Pair,
) -> None:  # fmt: skip
    """Call the C++; ``tensors`` and ``pairs`` go by the names of its struct."""
    q, v, parts = tensors["q"], tensors["v"], states.shape[1]
    query_parts = parts if causal else _parts(q.shape[2], v)
    buffers = {"inverse": inverse, "states": states}
    if backward:
        buffers["sums"] = states.new_empty(_states_shape(q, v, query_parts, causal))
    scratch = scratch_size(q.shape[-1], v.shape[-1], inverse.dtype.itemsize)
    call(
        PROGRAM, tensors, buffers, parts, scratch, phi, backward=backward, causal=causal, eps=eps,
        query_parts=query_parts, states={name: pair for name, pair in pairs.items() if pair},
    )  # fmt: skip


@implements("linear_native", "cpu")
def native_forward(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The output; inverse normalisers ``[B, Hq, Nq]`` and sums, which a backward reads, or else nothing.

    The output lies in memory as the values do, so that a layer need not copy it to join its heads.

    Raises:
        ValueError: tensors that do not fit together, or an unknown map.
    """
    return _forward(q, k, v, None, None, causal, phi, eps, keep)


@implements("linear_native_with_state", "cpu")
def native_with_state(
    q: Tensor, k: Tensor, v: Tensor, S0: Tensor, z0: Tensor, causal: bool, phi: str, eps: float, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The output behind a state S0 ``[B, Hkv, D, Dv]``, z0 ``[B, Hkv, D]``; the last state; and what is kept.

    Raises:
        ValueError: tensors that do not fit together, or an unknown map.
    """
    S, z = contiguous_like(S0), contiguous_like(z0)
    first = S0.contiguous(), z0.contiguous()
    out, inverse, states = _forward(q, k, v, first, (S, z), causal, phi, eps, keep)
    return out, S, z, inverse, states


def _forward(
    q: Tensor, k: Tensor, v: Tensor, first: Pair, last: Pair, causal: bool, phi: str, eps: float, keep: bool
) -> Three:
    _check(q, k, v, causal, phi, first)
    out, inverse, states = _results(q, v, causal, keep=True)
    if out.numel() or (last and v.numel()):
        tensors = {"q": q, "k": k, "v": v, "out": out}
        _call(tensors, inverse, states, causal, phi, eps, False, first=first, last=last)
    else:
        states.zero_()  # of no tokens
        for new, old in zip(last or (), first or (), strict=True):
            new.copy_(old)
    if not keep:
        inverse, states = inverse.new_empty(0), states.new_empty(0)
    return out, inverse, states


def _results(q: Tensor, v: Tensor, causal: bool, keep: bool) -> Three:
    """Room for the output, and for what a backward reads."""
    if not keep:
        return output_like(q, v), *(q.new_empty(0, dtype=wide(q)) for _ in range(2))  # type: ignore[return-value]
    states = q.new_empty(_states_shape(q, v, _parts(v.shape[2], v), causal), dtype=wide(q))
    return output_like(q, v), q.new_empty(q.shape[:3], dtype=wide(q)), states


@torch.library.register_fake("attention::linear_native")  # type: ignore[untyped-decorator]
def _(q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, eps: float, keep: bool) -> Three:
    _check(q, k, v, causal, phi)
    return _results(q, v, causal, keep)


@torch.library.register_fake("attention::linear_native_with_state")  # type: ignore[untyped-decorator]
def _(
    q: Tensor, k: Tensor, v: Tensor, S0: Tensor, z0: Tensor, causal: bool, phi: str, eps: float, keep: bool
) -> Five:
    _check(q, k, v, causal, phi, (S0, z0))
    out, inverse, states = _results(q, v, causal, keep)
    return out, contiguous_like(S0), contiguous_like(z0), inverse, states


@implements("linear_native_backward", "cpu")
def native_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, inverse: Tensor, states: Tensor,
    causal: bool, phi: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv, from what the forward took and returned.

    Raises:
        ValueError: tensors that do not fit together, or an unknown map.
    """
    return _backward(do, q, k, v, out, inverse, states, causal, phi)


@implements("linear_native_with_state_backward", "cpu")
def native_with_state_backward(
    do: Tensor, dS: Tensor, dz: Tensor, q: Tensor, k: Tensor, v: Tensor, S0: Tensor, z0: Tensor, out: Tensor,
    inverse: Tensor, states: Tensor, causal: bool, phi: str,
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
    return *_backward(do, q, k, v, out, inverse, states, causal, phi, **pairs), *last  # type: ignore[return-value, arg-type]


def _contiguous(x: Tensor) -> Tensor:
    return x.contiguous()


def _backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, inverse: Tensor, states: Tensor,
    causal: bool, phi: str, first: Pair = None, behind: Pair = None, last: Pair = None,
) -> Three:  # fmt: skip
    _check(q, k, v, causal, phi, first)
    if behind:
        check_state(NAME, *behind, k, v, ("dS", "dz"))
    _check_kept(do, q, v, out, inverse, states, causal)
    inverse, states = inverse.contiguous(), states.contiguous()
    dq, dk, dv = (contiguous_like(x) for x in (q, k, v))
    if out.numel() or (last and v.numel()):
        tensors = {"q": q, "k": k, "v": v, "out": out, "grad_out": do, "dq": dq, "dk": dk, "dv": dv}
        _call(tensors, inverse, states, causal, phi, 0.0, True, first=first, behind=behind, last=last)
    else:
        for x in (dq, dk, dv):
            x.zero_()
        for new, old in zip(last or (), behind or (), strict=True):
            new.copy_(old)
    return dq, dk, dv


@torch.library.register_fake("attention::linear_native_backward")  # type: ignore[untyped-decorator]
def _(do: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Three:
    _check(q, k, v, *rest[-2:])
    check_shape(NAME, "do", do, (*q.shape[:3], v.shape[3]), v)
    check_device(NAME, q, *rest[:3])
    return contiguous_like(q), contiguous_like(k), contiguous_like(v)


@torch.library.register_fake("attention::linear_native_with_state_backward")  # type: ignore[untyped-decorator]
def _(do: Tensor, dS: Tensor, dz: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Five:
    _check(q, k, v, *rest[-2:])
    check_shape(NAME, "do", do, (*q.shape[:3], v.shape[3]), v)
    check_state(NAME, dS, dz, k, v, ("dS", "dz"))
    check_device(NAME, q, *rest[:5])
    return tuple(map(contiguous_like, (q, k, v, dS, dz)))  # type: ignore[return-value]


def _kept(forward: Operator) -> Operator:
    return lambda *arguments: forward(*arguments, True)


native_differentiable = differentiable(
    "attention::linear_native",
    _kept(native_forward),
    lambda *arguments: native_backward(*arguments[:-1]),  # without eps
    batch_dims=(0, 0, 0),
)
native_with_state_differentiable = differentiable(
    "attention::linear_native_with_state",
    _kept(native_with_state),
    # Without S, z and eps.
    lambda *arguments: native_with_state_backward(*arguments[:9], *arguments[11:-1]),
    batch_dims=(0, 0, 0, 0, 0),
    inputs=5,
    outputs=3,
)


def _forward_macs(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> dict[str, int]:
    return _macs(forward_terms, q, v, rest[-4])


def _backward_macs(do: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> dict[str, int]:
    return _macs(backward_terms, q, v, rest[-2])


def _macs(terms: Callable[..., dict[str, int]], q: Tensor, v: Tensor, causal: bool) -> dict[str, int]:
    return terms(Sizes.of(q, v), causal, torch.get_num_threads())


counts_macs("linear_native", _forward_macs)
counts_macs("linear_native_with_state", _forward_macs)
counts_macs("linear_native_backward", _backward_macs)
counts_macs("linear_native_with_state_backward", lambda do, dS, dz, *rest: _backward_macs(do, *rest))
