"""The masks that torch's layers pass on, as attention here takes them."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from attention.inputs import describe


def ignored_keys(mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """A mask as kernels take it, of bool, and whether a mask of floats holds what is no mask.

    Torch's encoder passes every mask on as floats to be added to the scores: -inf hides a key, 0 does not.
    What else there may be has no counterpart in linear attention. On a CPU it is refused; of a card, and
    within a compiled graph, the answer is a tensor that nobody needs to wait for.

    Raises:
        ValueError: other numbers, where they can be looked at.
    """
    if not isinstance(mask, Tensor) or not mask.is_floating_point():
        return mask, None
    ignored = mask == -inf
    unknown = (~ignored & (mask != 0)).any()
    if mask.device.type != "cpu" or torch.compiler.is_compiling():
        return ignored, unknown
    if unknown:
        raise ValueError(
            "key_padding_mask must be of bool, or hold -inf where a key is ignored and 0 elsewhere; other "
            "numbers, added to scores, have no counterpart here"
        )
    return ignored, None


def check_causal_mask(mask: object, query: Tensor, key: Tensor, batch_first: bool) -> None:
    """Refuse what cannot be the causal mask of one length; of two, torch's would be aligned at the start."""
    place = 1 if batch_first and query.dim() == 3 else 0
    queries, keys = query.shape[place], key.shape[place]
    if not isinstance(mask, Tensor) or queries != keys or mask.shape[-2:] != (queries, keys):
        found = list(mask.shape) if isinstance(mask, Tensor) else describe(mask)
        raise ValueError(
            "attn_mask beside is_causal must be the causal mask [N, N] of as many queries as keys; "
            f"got {found} for {queries} queries and {keys} keys: leave it out, is_causal says all"
        )
