"""Private names of torch: how one is looked up, and one that torch itself reads of ours."""

from __future__ import annotations

from typing import Any

import torch

READ_BY_FAST_PATH = "_qkv_same_embed_dim"
"""What torch's encoder layer reads of its attention. False: it calls that, and computes no softmax attention
with its weights by itself, in evaluation."""


def private(path: str) -> Any | None:
    """The object at a dotted path below torch, or None where this torch has none there."""
    found: Any = torch
    for name in path.split("."):
        found = getattr(found, name, None)
    return found
