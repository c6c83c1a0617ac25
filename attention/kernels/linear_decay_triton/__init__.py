"""Causal linear attention with a gate per head and token, unnormalised, fused for the GPU in Triton."""

from attention.kernels.linear_decay_triton.kernel import linear_decay_triton

__all__ = ["linear_decay_triton"]
