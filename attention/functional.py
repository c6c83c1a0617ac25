"""Attention by family and backend: the functions that a user calls."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from math import inf
from numbers import Real
from sys import float_info

import torch
from torch import Tensor

from attention.case import DTYPES, Case
from attention.kernels.feature_maps import FeatureMap
from attention.kernels.registry import Kernel, get_kernel, list_kernels
from attention.kernels.tensors import differentiated

Like = tuple[torch.Size, torch.dtype, torch.device, torch.layout]
"""Shape, dtype, device and layout of a tensor, by which a kernel is chosen."""

AUTO = {
    ("standard", "cpu"): ("sdpa",),
    ("standard", "cuda"): ("sdpa",),
    ("linear", "cpu"): ("native", "chunked"),
    ("linear", "cuda"): ("triton", "chunked"),
}
"""Backends that backend="auto" tries, the fastest first; it takes the first that serves the inputs."""

LARGEST = float_info.max
AUTOCASTS = ("cpu", "cuda")
"""Devices with an autocast; to ask another for its state is an error."""


def standard_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """softmax(scale QK') V, differentiable (Vaswani et al. 2017, eq. 1).

    Args:
        q: queries ``[B, H, N, D]``; float64, float32, bfloat16 or float16; CPU or CUDA; any strides.
        k: keys ``[B, H, N, D]``.
        v: values ``[B, H, N, Dv]``.
        causal: whether token i sees only tokens up to i.
        scale: 1/sqrt(D) unless given.
        backend: a kernel's name without its family: ``explicit``, ``sdpa`` (torch picks),
            ``sdpa-math``, ``sdpa-flash``, ``sdpa-efficient``, ``sdpa-cudnn``; ``auto`` is ``sdpa``.

    Returns:
        ``[B, H, N, Dv]`` in the dtype of the inputs.

    Under autocast q, k and v are cast to its dtype, but for float64, as torch does.

    Raises:
        TypeError: q, k or v that is no strided tensor, or an option of another type.
        ValueError: shapes, dtypes or devices that do not fit together, an unknown backend, or one
            that cannot serve these inputs (it is never replaced in silence).
    """
    if scale is not None:
        _check_number("scale", scale)
    q, k, v, kernel = _select("standard", backend, q, k, v, causal)
    return kernel.function(q, k, v, causal=causal, scale=scale)


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-6,
    backend: str = "auto",
) -> Tensor:
    """phi(q)S / (phi(q).z + eps) with S = sum phi(k)v', z = sum phi(k) (Katharopoulos et al. 2020).

    Args:
        q: queries ``[B, H, N, D]``; float64, float32, bfloat16 or float16; CPU or CUDA; any strides.
        k: keys ``[B, H, N, D]``.
        v: values ``[B, H, N, Dv]``.
        causal: whether the sums of token i run over tokens up to i.
        feature_map: phi: ``elu`` (elu + 1), ``relu``, ``identity``, or a callable ``[..., D] -> [..., F]``.
        eps: added to the normaliser; finite, at least 0.
        backend: a kernel's name without its family: ``explicit``, ``chunked``, ``native`` or ``triton``;
            ``auto`` is the first of ``AUTO`` that serves the inputs, which :func:`explain` names.

    Returns:
        ``[B, H, N, Dv]`` in the dtype of the inputs; sums are accumulated in float32 at least.

    Under autocast q, k and v are cast to its dtype, but for float64, as torch casts those of SDPA.
    Derivatives of any order and mode and ``torch.vmap`` are true: a kernel computes outputs and gradients
    itself, and torch the tangents and second derivatives.

    Raises:
        TypeError: q, k or v that is no strided tensor, or an option of another type.
        ValueError: shapes, dtypes or devices that do not fit together, an unknown backend or feature
            map, or a backend that cannot serve these inputs (it is never replaced in silence).
    """
    if type(eps) is not float or not 0 <= eps < inf:
        _check_number("eps", eps, least=0)
    q, k, v, kernel = _select("linear", backend, q, k, v, causal)
    return kernel.function(q, k, v, causal=causal, feature_map=feature_map, eps=eps)


def explain(case: Case) -> None:
    """Print which kernel ``backend="auto"`` takes for a case, and why not one before it.

    Only the family of ``case.kernel`` matters: ``Case("linear-auto", "causal", 4096, device="cuda")``.
    """
    chosen = choose(case)
    for backend in _candidates(case):
        name = f"{case.family}-{backend}"
        reason = get_kernel(name).supports(replace(case, kernel=name))
        if reason:
            print(f"not {name}: {reason}")
        if name == chosen.name:
            print(f"{name}: the fastest measured on {case.device} that serves the case")
            return


def choose(case: Case) -> Kernel:
    """The kernel that ``backend="auto"`` takes in the family of ``case.kernel``.

    Raises:
        ValueError: no kernel serves the case; the message says why.
    """
    refusals = []
    for backend in _candidates(case):
        kernel = get_kernel(f"{case.family}-{backend}")
        reason = kernel.supports(replace(case, kernel=kernel.name))
        if not reason:
            return kernel
        refusals.append(f"{kernel.name}: {reason}")
    raise ValueError(f"no {case.family} kernel serves {case.key}; {'; '.join(refusals)}")


def _candidates(case: Case) -> tuple[str, ...]:
    return AUTO.get((case.family, case.device), AUTO[case.family, "cpu"])


def _select(
    family: str, backend: str, q: Tensor, k: Tensor, v: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor, Kernel]:
    """The tensors as a kernel takes them, and the kernel of such inputs.

    The kernel is looked for once: a short sequence cannot wait for it at each call.
    """
    if not (isinstance(q, Tensor) and isinstance(k, Tensor) and isinstance(v, Tensor)):
        _refuse_kinds(q, k, v)
    if type(causal) is not bool or type(backend) is not str:
        _refuse_options(causal, backend)
    device = q.device.type
    if device in AUTOCASTS and torch.is_autocast_enabled(device):
        q, k, v = (_autocast(x, device) for x in (q, k, v))
    try:
        likes = (
            (q.shape, q.dtype, q.device, q.layout),
            (k.shape, k.dtype, k.device, k.layout),
            (v.shape, v.dtype, v.device, v.layout),
        )
    except RuntimeError:  # a nested tensor has no shape
        _refuse_kinds(q, k, v)
        raise
    # A compiler traces through no cache, and needs none: it asks once.
    serving = _serving if torch.compiler.is_compiling() else _serving_cached
    return q, k, v, serving(family, backend, causal, differentiated(q, k, v), *likes)


def _autocast(x: Tensor, device: str) -> Tensor:
    """The tensor in the dtype of autocast, which leaves float64 and what is no floating point alone."""
    lowered = x.is_floating_point() and x.dtype != torch.float64
    return x.to(torch.get_autocast_dtype(device)) if lowered else x


def describe(x: object) -> str:
    """What an argument is that should be a tensor: its type, and the layout of a tensor."""
    if not isinstance(x, Tensor):
        return "None" if x is None else f"an object of type {type(x).__name__}"
    if x.is_nested:
        return "a nested tensor"
    return "a tensor" if x.layout == torch.strided else f"a tensor of layout {x.layout}"


def _refuse_kinds(q: object, k: object, v: object) -> None:
    kinds = f"q {describe(q)}, k {describe(k)}, v {describe(v)}"
    raise TypeError(f"q, k and v must be strided tensors [batch, heads, seq_len, head_dim]; got {kinds}")


def _refuse_options(causal: object, backend: object) -> None:
    if not isinstance(causal, bool):
        raise TypeError(f"causal must be True or False, got {causal!r:.60}")
    if not isinstance(backend, str):
        raise TypeError(
            f"backend must be auto or the name of a kernel without its family, got {backend!r:.60}"
        )


def _check_number(name: str, value: object, least: float = -inf) -> None:
    if isinstance(value, bool) or not isinstance(value, Real | torch.SymFloat | torch.SymInt):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if isinstance(value, Real) and not (-LARGEST <= value <= LARGEST and value >= least):  # type: ignore[operator]
        bound = " and at least 0" if least == 0 else ""
        raise ValueError(f"{name} must be finite{bound}, got {f'{value!r}':.60}")


def _serving(family: str, backend: str, causal: bool, backward: bool, q: Like, k: Like, v: Like) -> Kernel:
    _check(q, k, v)
    known = [name.removeprefix(f"{family}-") for name in list_kernels(family)]
    if backend != "auto" and backend not in known:
        raise ValueError(
            f"backend {backend!r} does not exist for {family} attention; "
            f"choose auto or one of {', '.join(known)}"
        )
    (batch, heads, seq_len, head_dim), dtype, device, _ = q
    case = Case(
        kernel=f"{family}-{backend}",
        mode="causal" if causal else "bidirectional",
        phase="forward_backward" if backward else "forward",
        device=device.type,
        dtype=str(dtype).removeprefix("torch."),
        batch=batch,
        heads=heads,
        seq_len=seq_len,
        head_dim=head_dim,
        value_dim=v[0][-1],
    )
    if backend == "auto":
        return choose(case)
    kernel = get_kernel(case.kernel)
    if reason := kernel.supports(case):
        shapes = f"q {tuple(q[0])}, v {tuple(v[0])} in {dtype}"
        raise ValueError(f"{case.kernel} cannot serve {shapes}: {reason}")
    return kernel


_serving_cached = lru_cache(maxsize=1024)(_serving)


def _check(q: Like, k: Like, v: Like) -> None:
    if not q[3] == k[3] == v[3] == torch.strided:
        layouts = ", ".join(str(x[3]) for x in (q, k, v))
        raise TypeError(f"q, k and v must be strided tensors; got the layouts {layouts}")
    q_shape, k_shape, v_shape = (tuple(x[0]) for x in (q, k, v))
    shapes = f"got q {q_shape}, k {k_shape}, v {v_shape}"
    if not len(q_shape) == len(k_shape) == len(v_shape) == 4:
        raise ValueError(f"q, k and v must be [batch, heads, seq_len, head_dim]; {shapes}")
    if q_shape != k_shape or q_shape[:3] != v_shape[:3]:
        raise ValueError(f"q and k must have the same shape, and v theirs up to its own width; {shapes}")
    if q_shape[-1] < 1 or v_shape[-1] < 1:
        raise ValueError(f"head_dim must be at least 1; {shapes}")
    if not q[1] == k[1] == v[1] or str(q[1]).removeprefix("torch.") not in DTYPES:
        raise ValueError(
            f"q, k and v must share one dtype out of {', '.join(DTYPES)}; got {q[1]}, {k[1]}, {v[1]}"
        )
    if not q[2] == k[2] == v[2]:
        raise ValueError(f"q, k and v must be on one device; got {q[2]}, {k[2]}, {v[2]}")
