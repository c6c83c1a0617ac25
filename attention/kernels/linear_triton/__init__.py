"""Linear attention fused for the GPU, in Triton, and in Gluon for wide heads on Hopper cards."""

from attention.kernels.linear_triton.kernel import LinearState, linear_triton, linear_triton_with_state

__all__ = ["LinearState", "linear_triton", "linear_triton_with_state"]
