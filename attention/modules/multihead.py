"""A layer in the place of ``torch.nn.MultiheadAttention``, around any kernel."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention.kernels.feature_maps import FeatureMap
from attention.modules.heads import HeadedLayer
from attention.modules.masks import check_causal_mask, ignored_keys
from attention.torch_internals.names import READ_BY_FAST_PATH


class MultiheadAttention(HeadedLayer):
    """Attention of queries to keys and values, in the place of ``torch.nn.MultiheadAttention``.

    Its arguments, its state dict and, of one seed, its first weights are those of torch's layer; with a
    standard kernel so is its output. It works within ``torch.nn.TransformerEncoderLayer``, and
    ``TransformerDecoderLayer``, in the place of ``self_attn`` and ``multihead_attn``.

    There are no attention weights: none are returned, and none dropped out. Masks are padding and causality
    alone.

    Args:
        embed_dim: width of queries and outputs, a multiple of ``num_heads``.
        num_heads: heads of queries.
        dropout: of the attention weights; a layer with any works in evaluation only.
        bias: whether the projections add one.
        add_bias_kv: False; torch's further key has no counterpart.
        add_zero_attn: False; likewise.
        kdim: width of the keys; ``embed_dim`` unless given.
        vdim: width of the values; likewise.
        batch_first: whether tensors are ``[B, N, width]`` rather than ``[N, B, width]``.
        device: where the parameters live.
        dtype: their dtype.
        kernel: a registered kernel (``linear-chunked``) or a family (``standard``, ``linear``).
        feature_map: phi of a linear kernel, as of :func:`attention.linear_attention`; elu + 1 unless given.
        num_kv_heads: heads of keys and values, a divisor of ``num_heads``; as many unless given. With fewer,
            ``in_proj_weight`` is ``[embed_dim + 2 kv_width, embed_dim]``, kv_width = num_kv_heads
            embed_dim / num_heads.

    Raises:
        TypeError: numbers that are no integers, or a kernel that is no name.
        ValueError: an unknown kernel or feature map, a feature map of a standard kernel, numbers that do not
            divide, or ``add_bias_kv`` or ``add_zero_attn``.
    """

    in_proj_weight: nn.Parameter | None
    q_proj_weight: nn.Parameter
    k_proj_weight: nn.Parameter
    v_proj_weight: nn.Parameter
    in_proj_bias: nn.Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        kernel: str = "linear",
        feature_map: str | FeatureMap | None = None,
        num_kv_heads: int | None = None,
    ) -> None:
        super().__init__(embed_dim, num_heads, num_kv_heads, kernel, feature_map)
        for name, asked in (("add_bias_kv", add_bias_kv), ("add_zero_attn", add_zero_attn)):
            if asked:
                raise ValueError(f"{name} has no counterpart in MultiheadAttention here; build it without")
        self.dropout, self.batch_first = dropout, batch_first
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        setattr(self, READ_BY_FAST_PATH, False)

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

        widths = {"q": embed_dim, "k": self.kdim, "v": self.vdim}
        rows = {"q": embed_dim, "k": self.kv_width, "v": self.kv_width}
        fused = self.kdim == self.vdim == embed_dim
        self.in_proj_weight = parameter(sum(rows.values()), embed_dim) if fused else None
        for name in widths:
            own = None if fused else parameter(rows[name], widths[name])
            self.register_parameter(f"{name}_proj_weight", own)
        self.in_proj_bias = parameter(sum(rows.values())) if bias else None
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        for name, weight in self.named_parameters(recurse=False):
            (nn.init.zeros_ if name == "in_proj_bias" else nn.init.xavier_uniform_)(weight)
        if bias:
            nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """The output, of the shape of the queries, and None in the place of attention weights.

        Args:
            query: ``[Nq, B, embed_dim]``, or ``[B, Nq, embed_dim]`` where ``batch_first``, or
                ``[Nq, embed_dim]`` of one sequence.
            key: ``[Nk, B, kdim]``, likewise.
            value: ``[Nk, B, vdim]``, likewise.
            key_padding_mask: ``[B, Nk]``, or ``[Nk]`` of one sequence: True where a key is ignored, or, as
                torch's encoder passes it on, -inf there and 0 elsewhere. Other numbers are refused where that
                takes no waiting for a device and no break of a compiled graph, and else make all NaN.
            need_weights: False; there are none.
            attn_mask: None, or beside ``is_causal`` torch's causal mask ``[N, N]``, which is not looked at.
            average_attn_weights: of no meaning without weights.
            is_causal: whether query i sees only the keys up to i + Nk - Nq, with a mask or without.

        Raises:
            TypeError: inputs that are no strided tensors, or a mask of another dtype.
            ValueError: shapes that do not fit together, another dtype (but under autocast) or device than the
                weights', weights or another mask asked for, or training with dropout.
        """
        self._check_asked(need_weights, attn_mask, is_causal)
        self._check_inputs(query, key, value)
        if attn_mask is not None:
            check_causal_mask(attn_mask, query, key, self.batch_first)
        q, k, v = (self._batched(x) for x in self._project(query, key, value))
        mask, unknown = ignored_keys(key_padding_mask)
        if mask is not None and query.dim() == 2:
            mask = mask[None]
        heads = (self.heads(x) for x in (q, k, v))
        out = self.kernel.function(*heads, causal=is_causal, **self.options(mask))
        out = self.out_proj(self.merged(out))
        if unknown is not None:
            out = out.masked_fill(unknown, nan)
        if query.dim() == 2:
            return out[0], None
        return out if self.batch_first else out.transpose(0, 1), None

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> Sequence[Tensor]:
        """Queries, keys and values of all heads side by side; of one tensor in one product."""
        widths = [self.embed_dim, self.kv_width, self.kv_width]
        fused, bias = self.in_proj_weight, self.in_proj_bias
        if fused is None:
            weights: Sequence[Tensor] = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        elif query is key is value:
            return torch.split(F.linear(query, fused, bias), widths, -1)
        else:
            weights = torch.split(fused, widths)
        biases = (None, None, None) if bias is None else torch.split(bias, widths)
        inputs = (query, key, value)
        return [F.linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True)]

    def _batched(self, x: Tensor) -> Tensor:
        """``[B, N, width]`` of tensors as they are given."""
        if x.dim() == 2:
            return x[None]
        return x if self.batch_first else x.transpose(0, 1)

    def _check_asked(self, need_weights: bool, attn_mask: Tensor | None, is_causal: bool) -> None:
        if need_weights:
            raise ValueError(
                "MultiheadAttention here has no attention weights to return; call it with need_weights=False"
            )
        if attn_mask is not None and not is_causal:
            raise ValueError(
                "MultiheadAttention here takes no attn_mask but the causal one, beside is_causal=True; for "
                "keys to ignore there is key_padding_mask"
            )
        if self.training and self.dropout > 0:
            raise ValueError(
                f"attention weights are never made here, so that dropout = {self.dropout} cannot drop any in "
                "training; build the layer with dropout=0.0"
            )

    def _check_inputs(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        self.check_like_weights(self.out_proj.weight, query=query, key=key, value=value)
        q, k, v = (tuple(x.shape) for x in (query, key, value))
        widths = self.embed_dim, self.kdim, self.vdim
        batch = 0 if self.batch_first else 1
        if not (
            len(q) == len(k) == len(v) in (2, 3)
            and (q[-1], k[-1], v[-1]) == widths
            and k[:-1] == v[:-1]
            and (len(q) == 2 or q[batch] == k[batch])
        ):
            order = "[B, N, width]" if self.batch_first else "[N, B, width]"
            raise ValueError(
                f"MultiheadAttention takes query, key and value {order} or [N, width] of the widths "
                f"{', '.join(map(str, widths))}, one batch, and as many values as keys; got {q}, {k}, {v}"
            )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, batch_first={self.batch_first}"
