"""FlashAttention 2, 3 and 4: ``standard-flash-attn``, ``standard-flash-attn-3`` and ``-4``."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from attention.case import Case
from attention.costs import Costs, unseen
from attention.kernels.external.packages import empty_result, quietly
from attention.kernels.registry import get_kernel, register_kernel
from attention.kernels.tensors import differentiated

FLASH_ATTN = {
    "flash-attn": "flash_attn",
    "flash-attn-3": "flash_attn_interface",
    "flash-attn-4": "flash_attn.cute",
}
"""The module of each package."""


def flash_attn(module: str) -> Callable[..., Tensor]:
    """FlashAttention's own kernel; each version has it in another module, in the layout [B, N, H, D].

    Fewer queries than keys are those of a decode: without gradients its kernel for caches takes them, where
    the version has one, which splits the keys over the card. Keys and values are the cache, in any strides.
    """

    def attend(
        q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, scale: float | None = None
    ) -> Tensor:
        if v.numel() == 0:
            return empty_result(q, k, v)
        flash = quietly(module)
        attention = flash.flash_attn_func
        if q.shape[2] < k.shape[2] and not differentiated(q, k, v):
            attention = getattr(flash, "flash_attn_with_kvcache", attention)
        found = attention(*(x.transpose(1, 2) for x in (q, k, v)), causal=causal, softmax_scale=scale)
        # Since version 3 with the logarithms of the normalisers.
        out: Tensor = found[0] if isinstance(found, tuple) else found
        return out.transpose(1, 2)

    return attend


def flash_attn_supports(case: Case) -> str | None:
    """The reason why FlashAttention cannot serve a case, or None."""
    if case.device != "cuda":
        return f"FlashAttention runs on CUDA devices only, and the case is on {case.device}"
    if case.dtype not in ("bfloat16", "float16"):
        return f"FlashAttention computes in bfloat16 and float16, not {case.dtype}"
    if case.value_dim != case.head_dim:
        return "FlashAttention needs values as wide as the keys"
    return None


def flash_costs(case: Case) -> Costs:
    """The costs of our kernel of the same algorithm, of which torch's counter sees nothing here."""
    return unseen(get_kernel("standard-sdpa-flash").costs(case))


def register_flash_attn(package: str) -> None:
    """Register the kernel of one of the packages."""
    register_kernel(
        f"standard-{package}",
        flash_attn(FLASH_ATTN[package]),
        costs=flash_costs,
        supports=flash_attn_supports,
    )
