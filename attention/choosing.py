"""Which kernel serves a call or a case: the backend that was named, or the first of ``AUTO`` that can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from attention.case import Case
from attention.inputs import (
    AUTOCASTS,
    Like,
    autocast_like_sdpa,
    check_likes,
    describe,
    refuse_kinds,
    refuse_options,
)
from attention.kernels.forms.linear import step_of
from attention.kernels.registry import FAMILIES, Kernel, backends, get_kernel
from attention.kernels.tensors import differentiated

AUTO = {
    ("standard", "cpu"): ("sdpa",),
    ("standard", "cuda"): ("sdpa",),
    ("linear", "cpu"): ("native", "chunked"),
    ("linear", "cuda"): ("triton", "chunked"),
    ("window", "cpu"): ("sdpa",),
    ("window", "cuda"): ("flex", "sdpa"),
    ("linear-decay", "cpu"): ("native", "chunked"),
    ("linear-decay", "cuda"): ("triton", "chunked"),
}
"""Backends that backend="auto" tries, the fastest first; it takes the first that serves the inputs."""


def explain(case: Case) -> None:
    """Print which kernel ``backend="auto"`` takes for a case, and why not one before it.

    Only the family of ``case.kernel`` matters: ``Case("linear-auto", "causal", 4096, device="cuda")``, or
    ``"linear-decay-auto"``.

    Raises:
        TypeError: something else than a case.
    """
    if not isinstance(case, Case):
        raise TypeError(f"explain takes a Case, as Case('linear-auto', 'causal', 4096); got {describe(case)}")
    chosen, family = choose(case), _family(case)
    for backend in _candidates(case):
        name = f"{family}-{backend}"
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
    refusals, family = [], _family(case)
    for backend in _candidates(case):
        kernel = get_kernel(f"{family}-{backend}")
        reason = kernel.supports(replace(case, kernel=kernel.name))
        if not reason:
            return kernel
        refusals.append(f"{kernel.name}: {reason}")
    raise ValueError(f"no {family} kernel serves {case.key}; {'; '.join(refusals)}")


def _family(case: Case) -> str:
    """The longest of the families of ``AUTO`` that the name of the kernel begins with."""
    known = [family for family, _ in AUTO if case.kernel.startswith(f"{family}-")]
    return max(known, key=len, default=case.family)


def _candidates(case: Case) -> tuple[str, ...]:
    family = _family(case)
    if (family, "cpu") not in AUTO:
        known = ", ".join(dict.fromkeys(name for name, _ in AUTO))
        raise ValueError(f"{case.kernel!r} is of no family that auto chooses in; there are {known}")
    return AUTO.get((family, case.device), AUTO[family, "cpu"])


def select(
    family: str,
    backend: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool,
    *others: Tensor,
    takes: tuple[str, ...] = (),
    step: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Callable[..., Any]]:
    """The tensors as a kernel takes them, and the function of the kernel of such inputs.

    The kernel is looked for once, and inputs that are alike are checked once: a short sequence cannot wait
    for that at each call.
    """
    if not (isinstance(q, Tensor) and isinstance(k, Tensor) and isinstance(v, Tensor)):
        refuse_kinds(q, k, v)
    if type(causal) is not bool or type(backend) is not str:
        refuse_options(causal, backend)
    device = q.device.type
    if device in AUTOCASTS and torch.is_autocast_enabled(device):
        q, k, v = (autocast_like_sdpa(x, device) for x in (q, k, v))
    try:
        likes = (
            (q.shape, q.dtype, q.device, q.layout),
            (k.shape, k.dtype, k.device, k.layout),
            (v.shape, v.dtype, v.device, v.layout),
        )
    except RuntimeError:  # a nested tensor has no shape
        refuse_kinds(q, k, v)
        raise
    # A compiler traces through no cache, and needs none: it asks once.
    traced = torch.compiler.is_compiling() or (type(q) is not Tensor and _symbolic(q, k, v))
    serving = _serving if traced else _serving_cached
    backward = differentiated(q, k, v, *[x for x in others if isinstance(x, Tensor)])
    return q, k, v, serving(family, backend, causal, backward, *likes, takes, step)


def _symbolic(*tensors: Tensor) -> bool:
    """Whether a size is a symbol of a tracer's, which no cache can hold."""
    return any(isinstance(size, torch.SymInt) for x in tensors for size in x.shape)


def _serving(
    family: str,
    backend: str,
    causal: bool,
    backward: bool,
    q: Like,
    k: Like,
    v: Like,
    takes: tuple[str, ...],
    step: bool,
) -> Callable[..., Any]:
    check_likes(q, k, v, plain=family not in FAMILIES)
    known = backends(family)
    if backend != "auto" and backend not in known:
        raise ValueError(
            f"backend {backend!r} does not exist for {family} attention; "
            f"choose auto or one of {', '.join(known)}"
        )
    (batch, heads, queries, head_dim), dtype, device, _ = q
    _, kv_heads, seq_len, value_dim = v[0]
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
        value_dim=value_dim,
        kv_heads=kv_heads,
        query_len=None if queries == seq_len else queries,
    )
    if backend == "auto":
        kernel = choose(case)
    else:
        kernel = get_kernel(case.kernel)
        if reason := kernel.supports(case):
            shapes = f"q {tuple(q[0])}, k {tuple(k[0])}, v {tuple(v[0])} in {dtype}"
            raise ValueError(f"{case.kernel} cannot serve {shapes}: {reason}")
    if lacking := [name for name in takes if not kernel.takes(name)]:
        raise ValueError(f"{kernel.name} takes no {lacking[0]}; choose one of the backends of this suite")
    if step:
        return kernel.step or partial(step_of, kernel.function)
    function: Callable[..., Any] = getattr(kernel.function, "unchecked", kernel.function)
    return function


_serving_cached = lru_cache(maxsize=1024)(_serving)
