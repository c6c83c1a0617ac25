"""Linear attention in C++ for the CPU at hand."""

from attention.kernels.linear_native.kernel import linear_native

__all__ = ["linear_native"]
