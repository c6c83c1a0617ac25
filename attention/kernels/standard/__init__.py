"""Standard attention, softmax(QK' / sqrt(D)) V: explicit, and through torch's fused operator."""

from attention.kernels.standard.explicit import standard_explicit
from attention.kernels.standard.sdpa import standard_sdpa

__all__ = ["standard_explicit", "standard_sdpa"]
