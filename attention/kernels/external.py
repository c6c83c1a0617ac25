"""Kernels of other projects, measured in the same run: registered where they are installed, never needed.

- flash-linear-attention: ``linear-fla-chunk``, ``linear-fla-fused`` (causal; feature maps applied before)
- FlashAttention 2, 3 and 4: ``standard-flash-attn``, ``standard-flash-attn-3``, ``standard-flash-attn-4``
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType

from torch import Tensor

from attention.case import Case
from attention.costs import Costs, unseen
from attention.kernels.feature_maps import FeatureMap, get_feature_map
from attention.kernels.registry import Kernel, get_kernel, register_kernel

FLASH_ATTN = {
    "flash-attn": "flash_attn",
    "flash-attn-3": "flash_attn_interface",
    "flash-attn-4": "flash_attn.cute",
}
"""The module of each package."""


def fla(function: str) -> Callable[..., Tensor]:
    """A function of ``fla.ops.linear_attn`` as a kernel; layout [B, N, H, D], eps fixed at 1e-10."""

    def attend(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        causal: bool = True,
        feature_map: str | FeatureMap = "elu",
        eps: float = 1e-10,
    ) -> Tensor:
        if not causal:
            raise ValueError(f"{function} of flash-linear-attention is causal only; pass causal=True")
        if v.numel() == 0:
            return _empty(q, k, v)
        attention = getattr(_quietly("fla.ops.linear_attn"), function)
        phi = get_feature_map(feature_map)
        turned = (x.transpose(1, 2).contiguous() for x in (phi(q), phi(k), v))
        out: Tensor = attention(*turned, scale=1.0, normalize=True)[0]
        return out.transpose(1, 2)

    return attend


def flash_attn(module: str) -> Callable[..., Tensor]:
    """FlashAttention's own kernel; each version has it in another module, in the layout [B, N, H, D]."""

    def attend(
        q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, scale: float | None = None
    ) -> Tensor:
        if v.numel() == 0:
            return _empty(q, k, v)
        attention = _quietly(module).flash_attn_func
        found = attention(*(x.transpose(1, 2) for x in (q, k, v)), causal=causal, softmax_scale=scale)
        # Since version 3 with the logarithms of the normalisers.
        out: Tensor = found[0] if isinstance(found, tuple) else found
        return out.transpose(1, 2)

    return attend


def _empty(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The result for inputs without tokens or sequences, which kernels are not launched for."""
    return q @ (k.mT @ v)


def _quietly(module: str) -> ModuleType:
    """Import a module; what it warns about meanwhile is no finding of a measurement."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(module)


def _installed(package: str) -> bool:
    """Whether a package is installed; its module tells nothing, as versions share the module's name."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _fla_supports(case: Case) -> str | None:
    if case.device != "cuda":
        return f"flash-linear-attention compiles for CUDA devices only, and the case is on {case.device}"
    if not case.causal:
        return "flash-linear-attention has no bidirectional form"
    if case.dtype == "float64":
        return "flash-linear-attention computes in float32, bfloat16 and float16, not float64"
    return None


def _flash_attn_supports(case: Case) -> str | None:
    if case.device != "cuda":
        return f"FlashAttention runs on CUDA devices only, and the case is on {case.device}"
    if case.dtype not in ("bfloat16", "float16"):
        return f"FlashAttention computes in bfloat16 and float16, not {case.dtype}"
    if case.value_dim != case.head_dim:
        return "FlashAttention needs values as wide as the keys"
    return None


def _costs_like(kernel: str) -> Callable[[Case], Costs]:
    """The costs of our kernel of the same algorithm, of which torch's counter sees nothing here."""
    return lambda case: unseen(get_kernel(kernel).costs(case))


def is_external(kernel: Kernel) -> bool:
    """Whether another project's kernel is meant: its costs are those of a kernel of ours, and not its own."""
    return kernel.function.__module__ == __name__


def register_installed() -> None:
    """Register the kernels of the packages that are installed."""
    if find_spec("fla"):
        for name, function in (("chunk", "chunk_linear_attn"), ("fused", "fused_chunk_linear_attn")):
            register_kernel(
                f"linear-fla-{name}",
                fla(function),
                costs=_costs_like("linear-chunked"),
                supports=_fla_supports,
                # Triton's products of float32 are in tf32 unless they are told otherwise.
                precision={"float32": "tf32"},
            )
    for package, module in FLASH_ATTN.items():
        if _installed(package):
            register_kernel(
                f"standard-{package}",
                flash_attn(module),
                costs=_costs_like("standard-sdpa-flash"),
                supports=_flash_attn_supports,
            )


register_installed()
