"""Questions that several kernels ask of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from attention.inputs import describe
from attention.torch_internals.transforms import transformed

Function = TypeVar("Function", bound=Callable[..., Tensor])

COMPUTED = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""The dtypes in which attention is computed."""


def check_inputs(
    kernel: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dtypes: Collection[torch.dtype] = COMPUTED,
    *,
    autocast: bool = True,
    plain: bool = True,
    causal: bool = False,
) -> None:
    """Refuse what is not q ``[B, Hq, Nq, D]``, k ``[B, Hkv, Nk, D]`` and v ``[B, Hkv, Nk, Dv]``.

    Of one dtype on one device; where ``plain``, q and k of one shape.

    Comparisons alone, so that a short sequence need not wait and a compiler traces through them.

    Args:
        kernel: name of the kernel that is to compute with them.
        q: queries as they were given.
        k: keys.
        v: values.
        dtypes: those that it computes in.
        autocast: whether dtypes may differ under autocast, where torch's own products bring them together.
        plain: whether there must be as many keys as queries, and heads of keys as of queries.
        causal: whether there must be as many keys as queries.

    Raises:
        TypeError: not a tensor, or one without strides (sparse, nested).
        ValueError: ranks, shapes, dtypes or devices that do not fit together, or a dtype it does not have.
    """
    # Written out, as calls would double the time.
    if not (
        isinstance(q, Tensor)
        and isinstance(k, Tensor)
        and isinstance(v, Tensor)
        and q.layout is k.layout is v.layout is torch.strided
        and not (q.is_nested or k.is_nested or v.is_nested)
    ):
        found = ", ".join(describe(x) for x in (q, k, v))
        raise TypeError(f"{kernel} takes dense tensors for q, k and v; got {found}")
    shape, values = q.shape, v.shape
    if not (
        len(shape) == len(values) == 4
        and (k.shape == shape or (not plain and grouped(shape, k.shape)))
        and values[0] == k.shape[0]
        and values[1] == k.shape[1]
        and values[2] == k.shape[2]
        and shape[3] > 0 < values[3]
        and q.device == k.device == v.device
        and (q.dtype is k.dtype is v.dtype or (autocast and _autocasts(q.device.type)))
    ):
        wanted = (
            "q and k [B, H, N, D] of one shape and v [B, H, N, Dv]"
            if plain
            else "q [B, Hq, Nq, D], k [B, Hkv, Nk, D] and v [B, Hkv, Nk, Dv], Hq a multiple of Hkv"
        )
        raise ValueError(
            f"{kernel} takes {wanted}, widths of at least 1, "
            f"one dtype and one device; got q {_described(q)}, k {_described(k)}, v {_described(v)}"
        )
    if causal and shape[2] != values[2]:
        raise ValueError(
            f"{kernel} takes as many queries as keys here where it is causal; got {shape[2]} and {values[2]}"
        )
    if q.dtype not in dtypes:
        raise ValueError(
            f"{kernel} cannot serve q {tuple(shape)}, v {tuple(values)}: "
            f"it computes in {_names(dtypes)}, not {dtype_name(q.dtype)}"
        )


def grouped(q: torch.Size, k: torch.Size) -> bool:
    """Whether each head of the keys serves as many heads of the queries, of one batch and width."""
    return len(k) == 4 and q[0] == k[0] and q[3] == k[3] and k[1] <= q[1] and q[1] % (k[1] or q[1] + 1) == 0


def _autocasts(device: str) -> bool:
    return device in ("cpu", "cuda") and torch.is_autocast_enabled(device)  # others may not be asked


def checked(
    kernel: str, dtypes: Collection[torch.dtype] = COMPUTED, *, plain: bool = True
) -> Callable[[Function], Function]:
    """A kernel's function behind :func:`check_inputs`; ``unchecked`` is the function of what was checked."""

    def behind(function: Function) -> Function:
        @wraps(function)
        def checking(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
            check_inputs(kernel, q, k, v, dtypes, plain=plain)
            return function(q, k, v, **options)

        checking.unchecked = function  # type: ignore[attr-defined]
        return cast("Function", checking)

    return behind


def check_operands(
    kernel: str, dtypes: Collection[torch.dtype], q: Tensor, k: Tensor, v: Tensor, *,
    plain: bool = True, causal: bool = False,
) -> None:  # fmt: skip
    """Refuse q, k and v of which compiled code would read other memory than theirs: see :func:`check_inputs`.

    Raises:
        TypeError: not a tensor, or one without strides (sparse, nested).
        ValueError: any other misfit, a last stride other than 1 among them.
    """
    check_inputs(kernel, q, k, v, dtypes, autocast=False, plain=plain, causal=causal)
    if not q.stride()[-1] == k.stride()[-1] == v.stride()[-1] == 1:
        check_rows(kernel, q=q, k=k, v=v)


def check_rows(kernel: str, **tensors: Tensor) -> None:
    """Refuse tensors whose rows do not lie in memory element by element.

    Raises:
        ValueError: a last stride other than 1.
    """
    for name, x in tensors.items():
        if x.stride()[-1] != 1 and x.shape[-1] > 1 and x.numel():
            raise ValueError(
                f"{kernel} reads {name} row by row, so its last stride must be 1; "
                f"got strides {x.stride()}: pass {name}.contiguous()"
            )


def check_shape(
    kernel: str, name: str, x: Tensor, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None
) -> None:
    """Refuse a further tensor of an operator unless it has this shape and dtype on the device of another.

    Args:
        kernel: name of the kernel.
        name: of the tensor.
        x: what was given.
        shape: what it must be.
        like: a tensor on the same device, of the same dtype unless ``dtype`` is given.
        dtype: of x.

    Raises:
        ValueError: another shape, dtype or device.
    """
    dtype = dtype or like.dtype
    if x.shape != shape or x.dtype is not dtype or x.device != like.device:
        wanted = f"{tuple(shape)} in {dtype_name(dtype)} on {like.device}"
        raise ValueError(f"{kernel} takes {name} {wanted} here; got {_described(x)}")


def check_state(
    kernel: str, S: Tensor, z: Tensor, k: Tensor, v: Tensor, names: tuple[str, str] = ("S0", "z0"),
    sequences: int = 1,
) -> None:  # fmt: skip
    """Refuse what is no S ``[B, Hkv, D, Dv]`` and z ``[B, Hkv, D]`` in float32, or float64 of such keys.

    Of packed ``sequences`` B counts each.

    Raises:
        ValueError: another shape, dtype or device.
    """
    shape = (k.shape[0] * sequences, k.shape[1], k.shape[3], v.shape[3])
    wide = torch.promote_types(k.dtype, torch.float32)
    for name, x, size in zip(names, (S, z), (shape, shape[:3]), strict=True):
        check_shape(kernel, name, x, size, k, wide)


def check_ends_like(kernel: str, cu_seqlens: Tensor, q: Tensor) -> None:
    """Refuse ends of packed sequences that are no row of integers beside q; values are not looked at.

    Raises:
        ValueError: another rank, dtype or device, or none of them.
    """
    if not (
        cu_seqlens.dim() == 1
        and cu_seqlens.shape[0] > 0
        and cu_seqlens.dtype in (torch.int32, torch.int64)
        and cu_seqlens.device == q.device
    ):
        raise ValueError(
            f"{kernel} takes cu_seqlens [sequences + 1] in int32 or int64 on {q.device}; "
            f"got {list(cu_seqlens.shape)} in {cu_seqlens.dtype} on {cu_seqlens.device}"
        )


def check_device(kernel: str, like: Tensor, *others: Tensor | None) -> None:
    """Refuse tensors of another device: of one on ``meta`` torch would make results that nobody fills.

    Raises:
        ValueError: another device than that of ``like``.
    """
    for x in others:
        if x is not None and x.device != like.device:
            raise ValueError(f"{kernel} takes tensors of one device; got {like.device} and {x.device}")


def check_features(q: Tensor, k: Tensor, phi_q: Tensor, phi_k: Tensor) -> None:
    """Refuse what a feature map of the user's made of q and k, unless tokens correspond one to one.

    Raises:
        TypeError: not a dense tensor.
        ValueError: another shape but for the width, no or two widths, another device, or a dtype in which
            nothing is computed.
    """
    if not (dense(phi_q) and dense(phi_k)):
        raise TypeError(
            f"feature_map must return a dense tensor; got {describe(phi_q)} and {describe(phi_k)}"
        )
    for x, y in ((q, phi_q), (k, phi_k)):
        if y.dim() != 4 or y.shape[:3] != x.shape[:3] or y.shape[3] < 1 or y.device != x.device:
            raise ValueError(
                "feature_map must map [B, H, N, D] to [B, H, N, F] on the same device, the same F for q and "
                f"k; got {_described(y)} for {_described(x)}"
            )
        if y.dtype not in COMPUTED:
            raise ValueError(f"feature_map must return one of {_names(COMPUTED)}; got {dtype_name(y.dtype)}")
    if phi_q.shape[3] != phi_k.shape[3]:
        raise ValueError(
            "feature_map must map [B, H, N, D] to [B, H, N, F] on the same device, the same F for q and k; "
            f"got {_described(phi_q)} for q and {_described(phi_k)} for k"
        )


def dense(x: object) -> bool:
    """Whether it is a tensor with strides."""
    return isinstance(x, Tensor) and x.layout is torch.strided and not x.is_nested


def _described(x: Tensor) -> str:
    return f"{tuple(x.shape)} in {dtype_name(x.dtype)} on {x.device}"


def _names(dtypes: Collection[torch.dtype]) -> str:
    return ", ".join(map(dtype_name, dtypes))


def differentiated(*tensors: Tensor | None) -> bool:
    """Whether derivatives may be wanted, so that what a backward reads is worth keeping.

    An exported graph keeps nothing, because its lengths are not known yet: its backward goes forward first.
    """
    if torch.is_grad_enabled():
        for x in tensors:  # a generator for any() takes three times as long
            if x is not None and x.requires_grad:
                return not torch.compiler.is_exporting()
    return transformed() and not torch.compiler.is_exporting()


def alike(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three tensors in the widest of their dtypes: a feature map may return another than it was given."""
    if q.dtype == k.dtype == v.dtype:
        return q, k, v
    dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
    return q.to(dtype), k.to(dtype), v.to(dtype)


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype as a case has it: ``float32``."""
    return str(dtype).removeprefix("torch.")
