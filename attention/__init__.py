"""Standard and linear attention: kernels, what they cost, and how to measure them."""

from attention import costs, kernels  # registers the kernels
from attention.case import Case, make_inputs
from attention.choosing import explain
from attention.costs import Costs
from attention.functional import (
    decay_attention,
    linear_attention,
    linear_attention_step,
    standard_attention,
    window_attention,
)
from attention.kernels.registry import Kernel, Reference, get_kernel, list_kernels, register_kernel
from attention.modules import KVCache, MultiheadAttention, SelfAttention, count_flops_self_attention
from attention.profiler import Profile, profile
from attention.state import State

__all__ = [
    "Case",
    "Costs",
    "KVCache",
    "Kernel",
    "MultiheadAttention",
    "Profile",
    "Reference",
    "SelfAttention",
    "State",
    "costs",
    "count_flops_self_attention",
    "decay_attention",
    "explain",
    "get_kernel",
    "kernels",
    "linear_attention",
    "linear_attention_step",
    "list_kernels",
    "make_inputs",
    "profile",
    "register_kernel",
    "standard_attention",
    "window_attention",
]
