"""What attention takes: kinds of objects, shapes, dtypes and numbers, each refused in a sentence of its own.

TypeError for a kind of object, ValueError for a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from numbers import Real
from sys import float_info

import torch
from torch import Tensor

from attention.case import DTYPES

Like = tuple[torch.Size, torch.dtype, torch.device, torch.layout]
"""Shape, dtype, device and layout of a tensor, by which a kernel is chosen."""

LARGEST = float_info.max
WINDOW = 1024
"""Keys that a query sees through a sliding window, its own among them, unless a window is given."""
AUTOCASTS = ("cpu", "cuda")
"""Devices with an autocast; to ask another for its state is an error."""


def autocast_like_sdpa(x: Tensor, device: str) -> Tensor:
    """The tensor in the dtype of autocast, which leaves float64 and what is no floating point alone."""
    lowered = x.is_floating_point() and x.dtype != torch.float64
    return x.to(torch.get_autocast_dtype(device)) if lowered else x


def describe(x: object) -> str:
    """What an argument is that should be a tensor: its type, and the layout of a tensor."""
    if not isinstance(x, Tensor):
        return "None" if x is None else f"an object of type {type(x).__name__}"
    if x.is_nested:
        return "a nested tensor"
    return "a dense tensor" if x.layout == torch.strided else f"a tensor of layout {x.layout}"


def refuse_kinds(q: object, k: object, v: object) -> None:
    """Say what q, k and v are where one is no tensor.

    Raises:
        TypeError: always.
    """
    kinds = f"q {describe(q)}, k {describe(k)}, v {describe(v)}"
    raise TypeError(f"q, k and v must be strided tensors [batch, heads, seq_len, head_dim]; got {kinds}")


def refuse_options(causal: object, backend: object) -> None:
    """Refuse options of another type.

    Raises:
        TypeError: ``causal`` is no bool, or ``backend`` no string.
    """
    if not isinstance(causal, bool):
        raise TypeError(f"causal must be True or False, got {causal!r:.60}")
    if not isinstance(backend, str):
        raise TypeError(
            f"backend must be auto or the name of a kernel without its family, got {backend!r:.60}"
        )


def check_number(name: str, value: object, least: float = -inf) -> float:
    """The value as a float; what is no finite number of at least ``least`` is refused.

    Raises:
        TypeError: no number.
        ValueError: a number that is not finite, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, Real | torch.SymFloat | torch.SymInt):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if isinstance(value, Real) and not (-LARGEST <= value <= LARGEST and value >= least):  # type: ignore[operator]
        bound = " and at least 0" if least == 0 else ""
        raise ValueError(f"{name} must be finite{bound}, got {f'{value!r}':.60}")
    # A symbol of a tracer's stays one.
    return float(value) if isinstance(value, Real) else value  # type: ignore[return-value]


def check_window(window: object) -> None:
    """Refuse what is no window of at least one key.

    Raises:
        TypeError: no integer.
        ValueError: less than 1.
    """
    if not isinstance(window, int) or isinstance(window, bool):
        raise TypeError(f"window must be an integer, the keys that a query sees; got {window!r:.60}")
    if window < 1:
        raise ValueError(f"window must be at least 1, the query's own key; got {window}")


def check_likes(q: Like, k: Like, v: Like, *, plain: bool = False) -> None:
    """Refuse tensors that do not fit together.

    Args:
        q: of the queries.
        k: of the keys.
        v: of the values.
        plain: whether there are as many keys as queries, and heads of keys as of queries.

    Raises:
        TypeError: another layout than a strided one.
        ValueError: shapes, dtypes or devices that differ or that no kernel has.
    """
    if not q[3] == k[3] == v[3] == torch.strided:
        layouts = ", ".join(str(x[3]) for x in (q, k, v))
        raise TypeError(f"q, k and v must be strided tensors; got the layouts {layouts}")
    q_shape, k_shape, v_shape = (tuple(x[0]) for x in (q, k, v))
    shapes = f"got q {q_shape}, k {k_shape}, v {v_shape}"
    if not len(q_shape) == len(k_shape) == len(v_shape) == 4:
        raise ValueError(f"q, k and v must be [batch, heads, seq_len, head_dim]; {shapes}")
    if plain and (q_shape != k_shape or q_shape[:3] != v_shape[:3]):
        raise ValueError(f"q and k must have the same shape, and v theirs up to its own width; {shapes}")
    check_heads(q_shape, k_shape, v_shape, shapes)
    if q_shape[-1] < 1 or v_shape[-1] < 1:
        raise ValueError(f"head_dim must be at least 1; {shapes}")
    if not q[1] == k[1] == v[1] or str(q[1]).removeprefix("torch.") not in DTYPES:
        raise ValueError(
            f"q, k and v must share one dtype out of {', '.join(DTYPES)}; got {q[1]}, {k[1]}, {v[1]}"
        )
    if not q[2] == k[2] == v[2]:
        raise ValueError(f"q, k and v must be on one device; got {q[2]}, {k[2]}, {v[2]}")


def check_heads(q: Sequence[int], k: Sequence[int], v: Sequence[int], shapes: str) -> None:
    """Refuse shapes q ``[B, Hq, Nq, D]``, k ``[B, Hkv, Nk, D]``, v ``[B, Hkv, Nk, Dv]`` that do not fit.

    Raises:
        ValueError: other batches, widths or lengths, or heads of queries that those of keys do not divide.
    """
    if q[0] != k[0] or q[3] != k[3] or k[:3] != v[:3]:
        raise ValueError(
            "q must be [B, Hq, Nq, D], k [B, Hkv, Nk, D] and v [B, Hkv, Nk, Dv], of one batch and one D; "
            f"{shapes}"
        )
    if q[1] % (k[1] or q[1] + 1):
        raise ValueError(
            f"q must have a multiple of the heads of k and v, each of which serves as many; {shapes}"
        )
