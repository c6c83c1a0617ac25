"""What a self-attention layer costs: its projections around the kernel's own terms."""

from __future__ import annotations

from dataclasses import replace

from attention.case import Case
from attention.choosing import choose
from attention.costs import Costs
from attention.kernels.registry import get_kernel
from attention.modules.heads import check_heads, resolve_kernel


def self_attention_costs(case: Case) -> Costs:
    """The costs of a layer of width d = H x D whose keys and values are d_kv = Hkv x D wide.

    The projections take N d (d + 2 d_kv) MACs before the kernel's own terms and N d^2 behind them. A backward
    does each projection twice more, for its input and for its weights.
    """
    operator = replace(case, subject="operator")
    kernel = (choose(operator) if case.kernel.endswith("-auto") else get_kernel(case.kernel)).costs(operator)
    tokens, width = case.batch * case.seq_len, case.heads * case.head_dim
    projected = width + 2 * case.key_heads * case.head_dim
    passes = 3 if case.backward else 1
    terms = {
        "projections": passes * tokens * width * projected,
        **kernel.terms,
        "output_projection": passes * tokens * width**2,
    }
    weights = (projected + width) * (width + 1)
    # The projected q, k, v live as long as the kernel runs; after it, its output is laid out and mixed.
    row, qkv = tokens * width * case.itemsize, tokens * projected * case.itemsize
    peak = qkv + max(3 * row, kernel.peak_bytes)
    if case.backward:
        # Beside the kernel's backward stand its output's gradient and that of the weights behind it; later
        # the gradients of q, k and v become one, from which those of the other weights follow.
        mixed = row + width * (width + 1) * case.itemsize
        peak = max(peak + mixed, 2 * qkv + row + weights * case.itemsize)
    moved = (4 if case.backward else 2) * tokens * width + passes * weights
    return replace(kernel, terms=terms, min_bytes=moved * case.itemsize, peak_bytes=peak)


def count_flops_self_attention(
    seq_len: int,
    embed_dim: int,
    num_heads: int,
    *,
    num_kv_heads: int | None = None,
    kernel: str = "standard",
    causal: bool = False,
    device: str = "cpu",
) -> dict[str, int]:
    """FLOPs of a layer's forward on one sequence, by term, 2 a multiply-add; ``total`` sums them.

    In multiply-adds, d = embed_dim, d_k = d / num_heads, h = num_heads, g = num_kv_heads (h unless given):
    ``projections`` N d (d + 2 g d_k) and ``output_projection`` N d^2 around the terms of the kernel, which
    for the standard ones are ``scores`` N^2 d_k h and ``weighted_values`` N^2 d_k h, and for the linear ones
    ``states``, N d_k^2 g, ``readout``, N d_k^2 h, and ``normaliser`` (bidirectional). Of a family it is the
    kernel that serves on the ``device``.

    Raises:
        TypeError: numbers that are no integers.
        ValueError: an unknown kernel, a width that the heads do not divide, or heads that those of keys do
            not divide.
    """
    num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
    check_heads(embed_dim, num_heads, num_kv_heads)
    resolved = resolve_kernel(kernel)
    case = Case(
        resolved.name,
        "causal" if causal else "bidirectional",
        seq_len,
        device=device,
        batch=1,
        heads=num_heads,
        kv_heads=num_kv_heads,
        head_dim=embed_dim // num_heads,
        subject="layer",
    )
    flops = {name: 2 * macs for name, macs in self_attention_costs(case).terms.items()}
    return {**flops, "total": sum(flops.values())}
