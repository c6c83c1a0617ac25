"""What layers of several heads share: the heads, the kernel, and the options that it is given."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attention.case import Case
from attention.choosing import choose
from attention.costs import Costs
from attention.functional import linear_attention, linear_attention_step, standard_attention
from attention.inputs import AUTOCASTS, describe
from attention.kernels.feature_maps import FeatureMap, get_feature_map
from attention.kernels.registry import FAMILIES, Kernel, get_kernel, supports_everything


def resolve_kernel(kernel: str) -> Kernel:
    """A registered kernel by name; of a family, the one that ``auto`` stands for at each call.

    Raises:
        ValueError: neither a kernel nor a family, or a kernel of more inputs than a layer has.
    """
    if kernel not in FAMILIES:
        if (found := get_kernel(kernel)).make_inputs:
            raise ValueError(f"a layer has q, k and v alone, and {kernel} takes more; choose another kernel")
        return found
    auto = partial(Kernel, f"{kernel}-auto", supports=supports_everything, costs=_costs_of_chosen)
    if kernel == "standard":
        return auto(standard_attention)
    return auto(linear_attention, step=linear_attention_step)


def _costs_of_chosen(case: Case) -> Costs:
    return choose(case).costs(case)


class HeadedLayer(nn.Module):
    """Heads that attend side by side by one kernel; what projects its inputs is a subclass's.

    Args:
        embed_dim: width of the layer, a multiple of ``num_heads``.
        num_heads: heads of queries; each is embed_dim / num_heads wide.
        num_kv_heads: heads of keys and values, a divisor of ``num_heads``; None: as many.
        kernel: a registered kernel or a family.
        feature_map: phi of a linear kernel; None: the kernel's own.

    Raises:
        TypeError: an argument of another type.
        ValueError: an unknown kernel or feature map, a feature map of a kernel without one, or numbers that
            do not divide.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_kv_heads: int | None,
        kernel: str,
        feature_map: str | FeatureMap | None,
    ) -> None:
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        check_heads(embed_dim, num_heads, num_kv_heads)
        if not isinstance(kernel, str):
            raise TypeError(f"kernel must be the name of a kernel or a family, got {kernel!r:.60}")
        self.embed_dim, self.num_heads, self.num_kv_heads = embed_dim, num_heads, num_kv_heads
        self.head_dim = embed_dim // num_heads
        self.kernel = resolve_kernel(kernel)
        if feature_map is not None:
            if self.kernel.family == "standard" or not self.kernel.takes("feature_map"):
                raise ValueError(f"feature_map is of linear kernels; {self.kernel.name} has none")
            get_feature_map(feature_map)
        self.feature_map = feature_map

    @property
    def kv_width(self) -> int:
        """Width of all heads of keys, and of those of values."""
        return self.num_kv_heads * self.head_dim

    def options(self, key_padding_mask: Tensor | None = None) -> dict[str, Any]:
        """What the kernel is given beside q, k, v and the mode.

        Raises:
            ValueError: padding, of a kernel that cannot ignore keys.
        """
        given: dict[str, Any] = {}
        if self.feature_map is not None:
            given["feature_map"] = self.feature_map
        if key_padding_mask is not None:
            if not self.kernel.takes("key_padding_mask"):
                raise ValueError(f"{self.kernel.name} takes no key_padding_mask; 'standard' and 'linear' do")
            given["key_padding_mask"] = key_padding_mask
        return given

    def extra_repr(self) -> str:
        grouped = "" if self.num_kv_heads == self.num_heads else f", num_kv_heads={self.num_kv_heads}"
        return f"num_heads={self.num_heads}{grouped}, kernel={self.kernel.name}"

    def heads(self, x: Tensor) -> Tensor:
        """``[B, N, h head_dim]`` as ``[B, h, N, head_dim]``."""
        batch, tokens, width = x.shape
        return x.view(batch, tokens, width // self.head_dim, self.head_dim).transpose(1, 2)

    def merged(self, heads: Tensor) -> Tensor:
        """The inverse of :meth:`heads`, of all heads of queries."""
        return heads.transpose(1, 2).reshape(heads.shape[0], heads.shape[2], self.embed_dim)

    def check_like_weights(self, weight: Tensor, **inputs: object) -> None:
        """Refuse inputs of another kind, dtype (but under autocast) or device than the weights.

        Raises:
            TypeError: no strided tensor.
            ValueError: another dtype or device.
        """
        name = type(self).__name__
        for what, x in inputs.items():
            if not isinstance(x, Tensor) or x.layout != torch.strided or x.is_nested:
                nested = isinstance(x, Tensor) and x.is_nested
                hint = "; torch's encoder makes none with enable_nested_tensor=False" if nested else ""
                raise TypeError(f"{name} takes strided tensors; got {describe(x)} for {what}{hint}")
            device = x.device.type
            autocast = device in AUTOCASTS and torch.is_autocast_enabled(device)
            if x.device != weight.device or (x.dtype != weight.dtype and not autocast):
                raise ValueError(
                    f"{name} takes tensors like its weights, {weight.dtype} on {weight.device}; "
                    f"got {x.dtype} on {x.device} for {what}"
                )


def check_heads(embed_dim: object, num_heads: object, num_kv_heads: object) -> None:
    """Refuse a width that the heads do not divide, and heads that the heads of keys do not divide.

    Raises:
        TypeError: no integers.
        ValueError: numbers below 1 or that do not divide.
    """
    if not (isinstance(embed_dim, int) and isinstance(num_heads, int) and isinstance(num_kv_heads, int)):
        raise TypeError(
            f"embed_dim, num_heads and num_kv_heads must be integers, got {embed_dim!r:.60}, "
            f"{num_heads!r:.60} and {num_kv_heads!r:.60}"
        )
    if min(embed_dim, num_heads) < 1:
        raise ValueError(f"embed_dim and num_heads must be at least 1, got {embed_dim} and {num_heads}")
    if embed_dim % num_heads:
        raise ValueError(f"embed_dim must be a multiple of num_heads, got {embed_dim} and {num_heads}")
    if num_kv_heads < 1 or num_heads % num_kv_heads:
        raise ValueError(f"num_heads must be a multiple of num_kv_heads, got {num_heads} and {num_kv_heads}")
