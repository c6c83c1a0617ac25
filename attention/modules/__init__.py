"""Layers of several heads around any kernel, what they keep of a context, and what they cost."""

from attention.modules.cache import KVCache
from attention.modules.costs import count_flops_self_attention, self_attention_costs
from attention.modules.heads import resolve_kernel
from attention.modules.multihead import MultiheadAttention
from attention.modules.self_attention import SelfAttention

__all__ = [
    "KVCache",
    "MultiheadAttention",
    "SelfAttention",
    "count_flops_self_attention",
    "resolve_kernel",
    "self_attention_costs",
]
