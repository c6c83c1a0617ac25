"""phi: the feature maps that replace the exponential of softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from attention.kernels.tensors import alike, check_features

FeatureMap = Callable[[Tensor], Tensor]


def elu(x: Tensor) -> Tensor:
    """elu(x) + 1, positive everywhere (Katharopoulos et al. 2020, eq. 7).

    As max(x, 0) + exp(min(x, 0)): adding 1 to elu(x) would round e^x - 1 + 1, and lose the small
    values of strongly negative x.
    """
    return F.relu(x) + torch.exp(x.clamp(max=0))


def identity(x: Tensor) -> Tensor:
    """Return x unchanged: scores may then be negative and the normaliser near zero."""
    return x


def _elu_(x: Tensor, scratch: Tensor) -> Tensor:
    """elu(x) + 1 as min(e^x, max(x + 1, 1)), in three passes: e^x > x + 1, and torch lets the maximum win."""
    torch.exp(x, out=scratch)
    return torch.clamp(x.add_(1), x.new_ones(()), scratch, out=x)


class BlockMap(NamedTuple):
    """A known map as a kernel applies it to a block that it owns.

    ``apply_(x, scratch)`` overwrites x by phi(x); ``derivative_(y)`` overwrites y = phi(x) by phi'(x),
    from y alone.
    """

    apply_: Callable[[Tensor, Tensor], Tensor]
    derivative_: Callable[[Tensor], Tensor]


FEATURE_MAPS: dict[str, FeatureMap] = {"elu": elu, "relu": F.relu, "identity": identity}

BLOCK_MAPS: dict[str, BlockMap] = {
    # phi' is e^x = phi for negative x and 1 for positive x, where phi is above 1.
    "elu": BlockMap(_elu_, lambda y: y.clamp_(max=1)),
    "relu": BlockMap(lambda x, scratch: x.relu_(), lambda y: y.sign_()),
    "identity": BlockMap(lambda x, scratch: x, lambda y: y.fill_(1)),
}


def mapped_before(
    feature_map: str | FeatureMap, q: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor, str]:
    """q, k, v and the name of the map a kernel still has to apply: any but the known ones are applied here.

    All in the widest dtype of the three then, as a map may return another one than it was given.
    """
    if isinstance(feature_map, str) and feature_map in FEATURE_MAPS:
        return q, k, v, feature_map
    return *alike(*mapped(feature_map, q, k), v), "identity"


def mapped(feature_map: str | FeatureMap, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """phi(q) and phi(k), ``[B, H, N, D]`` to ``[B, H, N, F]``.

    Raises:
        TypeError: the map is neither a name nor a callable, or returned no dense tensor.
        ValueError: an unknown name, or a map that returned another batch, number of heads or tokens, no
            features or two numbers of them, another device, or a dtype in which nothing is computed.
    """
    phi = get_feature_map(feature_map)
    phi_q, phi_k = phi(q), phi(k)
    if not isinstance(feature_map, str):
        check_features(q, k, phi_q, phi_k)
    return phi_q, phi_k


def get_feature_map(feature_map: str | FeatureMap) -> FeatureMap:
    """The feature map of this name, or the callable itself.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
        TypeError: neither a name nor a callable.
    """
    if isinstance(feature_map, str):
        if feature_map not in FEATURE_MAPS:
            known = ", ".join(FEATURE_MAPS)
            raise ValueError(
                f"feature map {feature_map!r} does not exist; choose one of {known}, or pass a callable"
            )
        return FEATURE_MAPS[feature_map]
    if not callable(feature_map):
        raise TypeError(f"feature_map must be a name or a callable, got {type(feature_map).__name__}")
    return feature_map
