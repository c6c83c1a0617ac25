"""The kernels. Importing this package registers them."""

from attention.kernels import linear, linear_native, linear_triton, rivals, standard

__all__ = ["linear", "linear_native", "linear_triton", "rivals", "standard"]
