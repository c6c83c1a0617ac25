"""A few new tokens behind a state, by one pass over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from attention.costs import Sizes
from attention.kernels.dispatch import counts_macs, implements
from attention.kernels.feature_maps import get_feature_map
from attention.kernels.forms.costs import step_terms
from attention.kernels.layouts import output_like, unit_stride
from attention.kernels.linear_native.costs import PROGRAM
from attention.kernels.native.library import STORAGE, Addresses, address, prepared_step
from attention.kernels.tensors import check_operands, check_state, differentiated
from attention.state import State

NAME = "linear-native"
MOST_TOKENS = 16
"""More tokens are faster by chunks."""
CPU = torch.device("cpu")
LEAST_BYTES = 2**20
"""A smaller state stays in the cache of one core, and is updated before another one wakes up."""
_PREPARED: dict[tuple[Any, ...], Callable[..., None]] = {}
MOST_PREPARED = 1024

torch.library.define(
    "attention::linear_native_step",
    "(Tensor q, Tensor k, Tensor v, Tensor S, Tensor z, str phi, float eps) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "attention::linear_native_step_",
    "(Tensor q, Tensor k, Tensor v, Tensor(a!) S, Tensor(b!) z, str phi, float eps) -> Tensor",
)


def fits(q: Tensor, k: Tensor, v: Tensor, state: object) -> bool:
    """Whether one pass can take these; what is wrong with others, others say."""
    if type(state) is not State:
        return False
    S, z = state
    return (
        type(S) is Tensor is type(z)
        and q.device == S.device == z.device == CPU
        and q.shape[2] == k.shape[2] <= MOST_TOKENS
        and S.dtype is z.dtype is (torch.float64 if q.dtype is torch.float64 else torch.float32)
        and S.is_contiguous()
        and z.is_contiguous()
        and not differentiated(q, k, v, S, z)
    )


def stepped(
    q: Tensor, k: Tensor, v: Tensor, state: State, phi: str, eps: float, in_place: bool
) -> tuple[Tensor, State]:
    """The output of new tokens, and the state behind them: see :func:`fits`.

    Raises:
        ValueError: tensors that do not fit together, or an unknown map.
    """
    if not q.stride()[-1] == k.stride()[-1] == v.stride()[-1] == 1:
        q, k, v = unit_stride(q), unit_stride(k), unit_stride(v)
    if in_place:
        return _in_place(q, k, v, *state, phi, eps), state
    out, S, z = _step(q, k, v, *state, phi, eps)
    return out, State(S, z)


@implements("linear_native_step", "cpu")
def _step(
    q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor, phi: str, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The output and the new state.

    Raises:
        ValueError: tensors that do not fit together, or an unknown map.
    """
    last = torch.empty_like(S), torch.empty_like(z)
    return _run(q, k, v, (S, z), last, phi, eps), *last


@implements("linear_native_step_", "cpu")
def _in_place(q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor, phi: str, eps: float) -> Tensor:
    """The output; the state is overwritten by the new one.

    Raises:
        ValueError: tensors that do not fit together, or an unknown map.
    """
    out = _run(q, k, v, (S, z), (S, z), phi, eps)
    increment_version((S, z))  # so that a backward that saved them says so
    return out


@torch.library.register_fake("attention::linear_native_step")  # type: ignore[untyped-decorator]
def _(
    q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor, phi: str, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    _check(q, k, v, S, z, phi)
    return output_like(q, v), torch.empty_like(S), torch.empty_like(z)


@torch.library.register_fake("attention::linear_native_step_")  # type: ignore[untyped-decorator]
def _(q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor, phi: str, eps: float) -> Tensor:
    _check(q, k, v, S, z, phi)
    return output_like(q, v)


def _check(q: Tensor, k: Tensor, v: Tensor, S: Tensor, z: Tensor, phi: str) -> None:
    check_operands(NAME, STORAGE, q, k, v, plain=False, causal=True)
    check_state(NAME, S, z, k, v, ("the S of the state", "the z of the state"))
    get_feature_map(phi)
    if not (S.is_contiguous() and z.is_contiguous()):
        raise ValueError(f"{NAME} steps with a contiguous state; got strides {S.stride()} and {z.stride()}")


def _run(
    q: Tensor, k: Tensor, v: Tensor, first: tuple[Tensor, Tensor], last: tuple[Tensor, Tensor], phi: str,
    eps: float,
) -> Tensor:  # fmt: skip
    """Call the C++; calls that are alike are checked and prepared once: a token cannot wait for that."""
    S, z = first
    key = (
        q.shape, k.shape, v.shape, S.shape, z.shape,
        q.stride(), k.stride(), v.stride(), S.stride(), z.stride(),
        q.dtype, k.dtype, v.dtype, S.dtype, z.dtype, phi, eps, torch.get_num_threads(),
    )  # fmt: skip
    run = _PREPARED.get(key)
    if run is None:
        _check(q, k, v, S, z, phi)
        run = _PREPARED[key] = _prepare(q, k, v, S, phi, eps)
    out = output_like(q, v)
    tensors = q, k, v, out, S, z, *last
    addresses = [x.data_ptr() for x in tensors]
    run(Addresses(*(addresses if all(addresses) else map(address, tensors))))
    return out


def _prepare(q: Tensor, k: Tensor, v: Tensor, S: Tensor, phi: str, eps: float) -> Callable[..., None]:
    if len(_PREPARED) >= MOST_PREPARED:
        _PREPARED.clear()
    threads = torch.get_num_threads() if S.numel() * S.element_size() >= LEAST_BYTES else 1
    return prepared_step(PROGRAM, {"q": q, "k": k, "v": v, "out": output_like(q, v)}, phi, eps, threads)


def _macs(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> dict[str, int]:
    return step_terms(Sizes.of(q, v))


counts_macs("linear_native_step", _macs)
counts_macs("linear_native_step_", _macs)
