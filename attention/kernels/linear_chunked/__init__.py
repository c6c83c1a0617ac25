"""Linear attention by chunks in plain torch."""

from attention.kernels.linear_chunked.kernel import linear_chunked

__all__ = ["linear_chunked"]
