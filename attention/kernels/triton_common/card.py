"""The properties of the card at hand on which a plan depends."""

from __future__ import annotations

import importlib.metadata
import os
from functools import lru_cache

import torch

MULTIPROCESSORS = 132
"""Multiprocessors of an H200, for which a machine without a card plans."""
GLUON_VERSIONS = ("3.6.",)
"""Versions of Triton with which the Gluon passes ran on a card: that language is still being changed."""


def interpreted() -> bool:
    """Whether Triton's interpreter runs the passes, on a CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@lru_cache(maxsize=64)
def has_gluon(device: torch.device) -> bool:
    """Whether the Gluon passes run there: a Hopper card, and a Triton with which they ran."""
    if device.type != "cuda" or interpreted():
        return False
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return False
    return version.startswith(GLUON_VERSIONS) and _capability(device)[0] == 9


@lru_cache(maxsize=64)
def has_descriptors(device: torch.device) -> bool:
    """Whether the card has a copy engine for tiles; Triton's interpreter plays one on a CPU."""
    return device.type != "cuda" or _capability(device) >= (9, 0)


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device) if torch.cuda.is_available() else (9, 0)


@lru_cache(maxsize=64)
def multiprocessors(device: torch.device) -> int:
    """How many multiprocessors the card has."""
    if device.type == "cuda" and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    return MULTIPROCESSORS
