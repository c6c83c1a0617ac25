"""Scales that torch's fused kernels do not serve: they multiply the -inf of hidden scores by them."""

from __future__ import annotations

from torch import Tensor


def with_positive_scale(q: Tensor, scale: float | None) -> tuple[Tensor, float | None]:
    """Queries and a scale above 0 of the same scores, exactly; as given where there is nothing to change.

    -inf times a scale of 0 is NaN, and times one below 0 a score that outweighs all others.
    """
    if scale is None or scale > 0:
        return q, scale
    return (-q, -scale) if scale < 0 else (q * 0.0, 1.0)
