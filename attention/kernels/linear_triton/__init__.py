"""Linear attention fused for the GPU, in Triton, and in Gluon for wide heads on Hopper cards."""

from attention.kernels.linear_triton.kernel import linear_triton

__all__ = ["linear_triton"]
