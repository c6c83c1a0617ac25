"""Linear attention with decay by chunks in plain torch."""

from attention.kernels.linear_decay_chunked.kernel import linear_decay_chunked

__all__ = ["linear_decay_chunked"]
