"""Attention of a sequence that several ranks share, on torch.distributed."""

from attention.distributed.operator import linear_attention

__all__ = ["linear_attention"]
