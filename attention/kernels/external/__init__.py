"""Kernels of other projects, measured in the same run: registered where they are installed, never needed."""

from __future__ import annotations

from importlib.util import find_spec

from attention.kernels.external.flash_attention import FLASH_ATTN, register_flash_attn
from attention.kernels.external.flash_linear_attention import register_fla
from attention.kernels.external.packages import version
from attention.kernels.registry import Kernel


def is_external(kernel: Kernel) -> bool:
    """Whether another project's kernel is meant, of which nobody here knows how it is done."""
    return kernel.function.__module__.startswith(f"{__name__}.")


def register_installed() -> None:
    """Register the kernels of the packages that are installed."""
    if find_spec("fla"):
        register_fla()
    for package in FLASH_ATTN:
        if version(package):
            register_flash_attn(package)


register_installed()
