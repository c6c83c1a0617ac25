"""Causal sliding-window attention, each query over its own key and the window - 1 before it."""

from attention.kernels.window.flex import window_flex
from attention.kernels.window.sdpa import window_sdpa

__all__ = ["window_flex", "window_sdpa"]
