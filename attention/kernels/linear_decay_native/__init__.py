"""Linear attention with decay in C++ for the CPU at hand."""

from attention.kernels.linear_decay_native.kernel import linear_decay_native

__all__ = ["linear_decay_native"]
