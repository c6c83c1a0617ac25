"""The kernels. Importing this package registers them."""

from attention.kernels import linear, standard

__all__ = ["linear", "standard"]
