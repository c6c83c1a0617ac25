"""The kernels. Importing this package registers them."""

from attention.kernels import linear, linear_triton, rivals, standard

__all__ = ["linear", "linear_triton", "rivals", "standard"]
