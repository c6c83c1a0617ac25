"""A multi-head self-attention layer around any kernel, for whole sequences and token by token."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attention.inputs import describe
from attention.kernels.feature_maps import FeatureMap
from attention.kernels.forms.linear import step_of
from attention.kernels.layouts import why_kept
from attention.modules.cache import KVCache, kept_by, reusable
from attention.modules.heads import HeadedLayer
from attention.state import State


class SelfAttention(HeadedLayer):
    """softmax or linear attention of a sequence with itself: ``[B, N, embed_dim]`` to the same.

    One fused product makes queries, keys and values, ``num_heads`` heads attend side by side, and a
    product mixes their outputs (Vaswani et al. 2017, section 3.2.2). The state dict holds ``in_proj.weight``
    ``[embed_dim + 2 kv_width, embed_dim]`` with kv_width = num_kv_heads embed_dim / num_heads,
    ``out_proj.weight`` and the biases of both; that of a ``torch.nn.MultiheadAttention`` loads as it is.

    Args:
        embed_dim: width d of the layer, a multiple of ``num_heads``.
        num_heads: number of heads h; each is d_k = embed_dim / num_heads wide.
        num_kv_heads: heads of keys and values, a divisor of ``num_heads``, each of which serves as many heads
            of queries (Ainslie et al. 2023); as many as ``num_heads`` unless given.
        kernel: a registered kernel (``linear-chunked``) or a family (``standard``, ``linear``).
        feature_map: phi of a linear kernel, as of :func:`attention.linear_attention`; elu + 1 unless given.
        causal: whether a token sees only those before it and itself.
        bias: whether the projections add one.
        device: where the parameters live.
        dtype: their dtype.

    Raises:
        TypeError: a width or a number of heads that is no integer, a causal that is no bool, or a kernel that
            is no name.
        ValueError: an unknown kernel or feature map, a feature map of a standard kernel, a width that the
            heads do not divide, or heads that those of keys do not divide.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        kernel: str = "standard",
        feature_map: str | FeatureMap | None = None,
        causal: bool = False,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(embed_dim, num_heads, num_kv_heads, kernel, feature_map)
        if not isinstance(causal, bool):
            raise TypeError(f"causal must be True or False, got {causal!r:.60}")
        self.causal = causal
        width = embed_dim + 2 * self.kv_width
        self.in_proj = nn.Linear(embed_dim, width, bias=bias, device=device, dtype=dtype)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        nn.init.xavier_uniform_(self.in_proj.weight)
        for layer in (self.in_proj, self.out_proj):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        self.register_load_state_dict_pre_hook(_take_names_of_torch)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        """``[B, N, embed_dim]``, or ``[N, embed_dim]`` of one sequence, to the same shape.

        Args:
            x: the sequences.
            key_padding_mask: ``[B, N]``, or ``[N]`` of one sequence: True where no token sees this one. Its
                own row of the output means nothing.

        Raises:
            TypeError: an input that is no strided tensor, or a mask that is none of bool.
            ValueError: an input of another shape, or of another dtype (but under autocast) or device than
                the weights, or padding of a kernel that cannot ignore keys.
        """
        self._check(x, ranks=(2, 3))
        if x.dim() == 2:
            mask = key_padding_mask[None] if isinstance(key_padding_mask, Tensor) else key_padding_mask
            return self.forward(x[None], mask)[0]
        q, k, v = self._project(x)
        heads = self.kernel.function(q, k, v, causal=self.causal, **self.options(key_padding_mask))
        return self._mix(heads)

    def prefill(
        self, x: Tensor, key_padding_mask: Tensor | None = None, *, max_len: int | None = None
    ) -> tuple[Tensor, KVCache | State]:
        """The output of a causal layer, and what later tokens need to know of these ones.

        That is a :class:`State` of a linear kernel, whose size does not depend on N, and a :class:`KVCache`
        of a standard one. Both tell their ``bytes``.

        Args:
            x: ``[B, N, embed_dim]``; N may be 0.
            key_padding_mask: ``[B, N]``, True where no token, later ones included, sees this one.
            max_len: the most tokens that a KVCache will hold; its memory is then taken at once.

        Raises:
            TypeError: as of :meth:`forward`.
            ValueError: as of :meth:`forward`, and a layer or kernel that cannot go on token by token.
        """
        kept = self._kept()
        self._check(x, ranks=(3,))
        q, k, v = self._project(x)
        options = self.options(key_padding_mask)
        if kept is State:
            heads: Any = self.kernel.function(q, k, v, causal=True, return_state=True, **options)
            return self._mix(heads[0]), heads[1]
        batch, kv_heads, _, width = k.shape
        cache = KVCache(batch, kv_heads, width, max_len=max_len, dtype=k.dtype, device=k.device)
        heads = self.kernel.function(q, k, v, causal=True, **options)
        cache.append(k, v, key_padding_mask)
        return self._mix(heads), cache

    def step(self, x: Tensor, cache: KVCache | State) -> tuple[Tensor, KVCache | State]:
        """The output of one or a few new tokens, and the cache that knows of them as well.

        The cache that was given is used up: where no backward reads it, the new one takes its memory. A
        ``clone()`` of it lets the same tokens be continued twice.

        Args:
            x: ``[B, T, embed_dim]``, the tokens behind those that the cache knows of.
            cache: of :meth:`prefill` or of the last step.

        Raises:
            TypeError: as of :meth:`forward`, or a cache of another kind than the kernel keeps.
            ValueError: as of :meth:`prefill`, or a cache of other shapes, or one that is full.
        """
        kept = self._kept()
        if not isinstance(cache, kept):
            raise TypeError(
                f"{self.kernel.name} continues a {kept.__name__}, as of prefill(); got {describe(cache)}"
            )
        self._check(x, ranks=(3,))
        q, k, v = self._project(x)
        if isinstance(cache, State):
            step = self.kernel.step or partial(step_of, self.kernel.function)
            in_place = reusable(q, k, v, *cache) and why_kept(*cache) is None
            heads, state = step(q, k, v, cache, in_place=in_place, **self.options())
            return self._mix(heads), state
        cache.append(k, v)
        options = self.options(cache.key_padding_mask)
        heads = self.kernel.function(q, cache.keys, cache.values, causal=True, **options)
        return self._mix(heads), cache

    def _kept(self) -> type[KVCache] | type[State]:
        """What the kernel keeps of a context."""
        if not self.causal:
            raise ValueError(
                "a bidirectional layer cannot go on token by token, as each token sees all; build it with "
                "causal=True"
            )
        return kept_by(self.kernel)

    def _check(self, x: object, ranks: tuple[int, ...]) -> None:
        self.check_like_weights(self.in_proj.weight, x=x)
        assert isinstance(x, Tensor)
        if x.dim() not in ranks or x.shape[-1] != self.embed_dim:
            one = f" or [seq_len, {self.embed_dim}]" if 2 in ranks else ""
            wanted = f"[batch, seq_len, {self.embed_dim}]{one}"
            raise ValueError(f"SelfAttention takes a tensor {wanted}; got {list(x.shape)}")

    def _project(self, x: Tensor) -> list[Tensor]:
        """The heads of queries ``[B, Hq, N, D]``, of keys and of values ``[B, Hkv, N, D]``."""
        widths = [self.embed_dim, self.kv_width, self.kv_width]
        return [self.heads(part) for part in self.in_proj(x).split(widths, -1)]

    def _mix(self, heads: Tensor) -> Tensor:
        out: Tensor = self.out_proj(self.merged(heads))
        return out

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, causal={self.causal}"

    @classmethod
    def from_torch(
        cls,
        module: nn.MultiheadAttention,
        *,
        kernel: str = "standard",
        feature_map: str | FeatureMap | None = None,
        causal: bool = False,
    ) -> SelfAttention:
        """A layer with copies of the weights of torch's, and with its output.

        Each copy has the dtype and the device of its weight, and is frozen where that is; the layer is in the
        module's mode, of training or evaluation. With a kernel of linear attention its output is another one.

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
        layer = cls(
            module.embed_dim,
            module.num_heads,
            kernel=kernel,
            feature_map=feature_map,
            causal=causal,
            device="meta",
        )
        for ours, theirs in (
            (layer.in_proj, (module.in_proj_weight, module.in_proj_bias)),
            (layer.out_proj, (module.out_proj.weight, module.out_proj.bias)),
        ):
            ours.weight, ours.bias = (
                None if x is None else nn.Parameter(x.detach().clone(), x.requires_grad) for x in theirs
            )
        return layer.train(module.training)


def _take_names_of_torch(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Rename ``in_proj_weight`` and ``in_proj_bias`` of torch's layer, before they are loaded."""
    for name in ("weight", "bias"):
        if f"{prefix}in_proj_{name}" in state_dict:
            state_dict[f"{prefix}in_proj.{name}"] = state_dict.pop(f"{prefix}in_proj_{name}")
