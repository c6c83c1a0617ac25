"""A multi-head self-attention layer around any kernel, and what it costs."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from attention.case import Case
from attention.costs import Costs
from attention.functional import choose, linear_attention, standard_attention
from attention.inputs import AUTOCASTS, describe
from attention.kernels.registry import FAMILIES, Kernel, get_kernel, supports_everything


def resolve_kernel(kernel: str) -> Kernel:
    """A registered kernel by name; of a family, the one that ``auto`` stands for at each call.

    Raises:
        ValueError: neither a kernel nor a family.
    """
    if kernel not in FAMILIES:
        return get_kernel(kernel)
    function = standard_attention if kernel == "standard" else linear_attention
    return Kernel(f"{kernel}-auto", function, supports=supports_everything, costs=_costs_of_chosen)


def _costs_of_chosen(case: Case) -> Costs:
    return choose(case).costs(case)


class SelfAttention(nn.Module):
    """softmax or linear attention of a sequence with itself: ``[B, N, embed_dim]`` to the same.

    One fused product makes queries, keys and values, ``num_heads`` heads attend side by side, and a
    product mixes their outputs (Vaswani et al. 2017, section 3.2.2). The state dict holds
    ``in_proj.weight`` ``[3 embed_dim, embed_dim]``, ``out_proj.weight`` and the biases of both.

    Args:
        embed_dim: width d of the layer, a multiple of ``num_heads``.
        num_heads: number of heads h; each is d_k = embed_dim / num_heads wide.
        kernel: a registered kernel (``linear-chunked``) or a family (``standard``, ``linear``).
        causal: whether a token sees only those before it and itself.
        bias: whether the projections add one.
        device: where the parameters live.
        dtype: their dtype.

    Raises:
        TypeError: a width or a number of heads that is no integer, a causal that is no bool, or a kernel that
            is no name.
        ValueError: an unknown kernel, or a width that the heads do not divide.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        kernel: str = "standard",
        causal: bool = False,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(embed_dim, int) or not isinstance(num_heads, int):
            raise TypeError(f"embed_dim and num_heads must be integers, got {embed_dim!r} and {num_heads!r}")
        if not isinstance(causal, bool) or not isinstance(kernel, str):
            raise TypeError(
                f"causal must be True or False and kernel a name, got {causal!r:.60} and {kernel!r:.60}"
            )
        if num_heads < 1 or embed_dim < 1 or embed_dim % num_heads:
            raise ValueError(f"embed_dim must be a multiple of num_heads, got {embed_dim} and {num_heads}")
        self.embed_dim, self.num_heads, self.causal = embed_dim, num_heads, causal
        self.kernel = resolve_kernel(kernel)
        self.in_proj = nn.Linear(embed_dim, 3 * embed_dim, bias=bias, device=device, dtype=dtype)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        nn.init.xavier_uniform_(self.in_proj.weight)
        for layer in (self.in_proj, self.out_proj):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, embed_dim]``, or ``[N, embed_dim]`` of one sequence, to the same shape.

        Raises:
            TypeError: an input that is no strided tensor.
            ValueError: an input of another shape, or of another dtype (but under autocast) or device than
                the weights.
        """
        if not isinstance(x, Tensor) or x.layout != torch.strided or x.is_nested:
            raise TypeError(f"SelfAttention takes one strided tensor; got {describe(x)}")
        if x.dim() not in (2, 3) or x.shape[-1] != self.embed_dim:
            wanted = f"[batch, seq_len, {self.embed_dim}] or [seq_len, {self.embed_dim}]"
            raise ValueError(f"SelfAttention takes a tensor {wanted}; got {list(x.shape)}")
        weight, device = self.in_proj.weight, x.device.type
        autocast = device in AUTOCASTS and torch.is_autocast_enabled(device)
        if x.device != weight.device or (x.dtype != weight.dtype and not autocast):
            raise ValueError(
                f"SelfAttention takes a tensor like its weights, {weight.dtype} on {weight.device}; "
                f"got {x.dtype} on {x.device}"
            )
        return self._attend(x) if x.dim() == 3 else self._attend(x[None])[0]

    def _attend(self, x: Tensor) -> Tensor:
        batch, seq_len, _ = x.shape
        projected = self.in_proj(x).view(batch, seq_len, 3, self.num_heads, self.embed_dim // self.num_heads)
        q, k, v = projected.permute(2, 0, 3, 1, 4).unbind()
        heads = self.kernel.function(q, k, v, causal=self.causal)
        out: Tensor = self.out_proj(heads.transpose(1, 2).reshape(batch, seq_len, self.embed_dim))
        return out

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, kernel={self.kernel.name}, causal={self.causal}"

    @classmethod
    def from_torch(
        cls, module: nn.MultiheadAttention, *, kernel: str = "standard", causal: bool = False
    ) -> SelfAttention:
        """A layer with copies of the weights of torch's; with a standard kernel it equals its output.

        This layer takes ``[B, N, embed_dim]`` also where the module was built with ``batch_first=False``.

        Raises:
            TypeError: not torch's module.
            ValueError: a module with what this layer does not have: widths of its own for keys and
                values, added bias tokens or zero tokens, or dropout.
        """
        if not isinstance(module, nn.MultiheadAttention):
            raise TypeError(f"from_torch takes a torch.nn.MultiheadAttention; got {type(module).__name__}")
        lacking = {
            "kdim or vdim": module.in_proj_weight is None,
            "add_bias_kv": module.bias_k is not None,
            "add_zero_attn": module.add_zero_attn,
            "dropout": module.dropout > 0,
        }
        if any(lacking.values()):
            found = ", ".join(name for name, present in lacking.items() if present)
            raise ValueError(f"a MultiheadAttention with {found} has no counterpart here; build it without")
        weight, bias = module.in_proj_weight, module.in_proj_bias
        layer = cls(
            module.embed_dim,
            module.num_heads,
            kernel=kernel,
            causal=causal,
            bias=bias is not None,
            device=weight.device,
            dtype=weight.dtype,
        )
        with torch.no_grad():
            layer.in_proj.weight.copy_(weight)
            layer.out_proj.weight.copy_(module.out_proj.weight)
            if bias is not None:
                layer.in_proj.bias.copy_(bias)
                layer.out_proj.bias.copy_(module.out_proj.bias)
        return layer.train(module.training)


def self_attention_costs(case: Case) -> Costs:
    """The costs of a layer of width d = H x D: four projections N d^2 around the kernel's own terms.

    A backward does each projection twice more, for its input and for its weights.
    """
    operator = replace(case, subject="operator")
    kernel = (choose(operator) if case.kernel.endswith("-auto") else get_kernel(case.kernel)).costs(operator)
    tokens, width = case.batch * case.seq_len, case.heads * case.head_dim
    passes = 3 if case.backward else 1
    terms = {
        "projections": passes * 3 * tokens * width**2,
        **kernel.terms,
        "output_projection": passes * tokens * width**2,
    }
    weights = 4 * width * (width + 1)
    activations = tokens * width * case.itemsize
    # The projected q, k, v live as long as the kernel runs; after it, its output is laid out and mixed.
    peak = max(6 * activations, 3 * activations + kernel.peak_bytes)
    if case.backward:
        peak += 4 * activations + weights * case.itemsize
    moved = (4 if case.backward else 2) * tokens * width + passes * weights
    return replace(kernel, terms=terms, min_bytes=moved * case.itemsize, peak_bytes=peak)


def count_flops_self_attention(
    seq_len: int,
    embed_dim: int,
    num_heads: int,
    *,
    kernel: str = "standard",
    causal: bool = False,
    device: str = "cpu",
) -> dict[str, int]:
    """FLOPs of a layer's forward on one sequence, by term, 2 a multiply-add; ``total`` sums them.

    In multiply-adds, d = embed_dim, d_k = d / num_heads, h = num_heads: ``projections`` 3 N d^2 and
    ``output_projection`` N d^2 around the terms of the kernel, which for the standard ones are
    ``scores`` N^2 d_k h and ``weighted_values`` N^2 d_k h, and for the linear ones ``states`` and
    ``readout``, N d_k^2 h each, and ``normaliser`` (bidirectional). Of a family it is the kernel that serves
    on the ``device``.

    Raises:
        ValueError: an unknown kernel, or a width that the heads do not divide.
    """
    if num_heads < 1 or embed_dim % num_heads:
        raise ValueError(f"embed_dim must be a multiple of num_heads, got {embed_dim} and {num_heads}")
    resolved = resolve_kernel(kernel)
    case = Case(
        resolved.name,
        "causal" if causal else "bidirectional",
        seq_len,
        device=device,
        batch=1,
        heads=num_heads,
        head_dim=embed_dim // num_heads,
        subject="layer",
    )
    flops = {name: 2 * macs for name, macs in self_attention_costs(case).terms.items()}
    return {**flops, "total": sum(flops.values())}
