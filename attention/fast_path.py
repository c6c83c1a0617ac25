"""Calls of linear attention like an earlier one, which go straight to their launches.

A short sequence waits for the host: to check a call and to choose its kernel takes longer than the card needs
to compute it. What a call is checked for follows from a few properties of its arguments, so that a call which
has those of an earlier one needs no checks of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attention.kernels.tensors import differentiated
from attention.torch_internals.dispatcher import needs_dispatcher
from attention.torch_internals.transforms import transformed

Again = Callable[..., Any]
"""Makes a call again on tensors that are like those of the call which it was prepared for."""
Key = tuple[Any, ...]
DEVICES = ["cuda"]
"""Where a call may wait for the host; a CPU computes longer than it checks."""
PLAIN = frozenset((bool, float, str))
MOST_CALLS = 1024
_CALLS: dict[Key, Again] = {}


def key_of(backend: str, tensors: tuple[Tensor, ...], *options: object) -> Key | None:
    """What the checks and the kernel of a call follow from; None of a call that needs a look at more.

    That is: one that a compiler traces, a mode or a profiler observes, or that autocast or a transform
    changes; tensors of a subclass, without strides, or not aligned; options that are not bool, float or str.
    """
    if torch.compiler.is_compiling() or {type(x) for x in tensors} != {Tensor}:
        return None
    device = tensors[0].device
    if device.type not in DEVICES or not PLAIN.issuperset(map(type, (backend, *options))):
        return None
    if torch.is_autocast_enabled(device.type) or transformed() or needs_dispatcher(*tensors):
        return None
    try:
        bits = 0
        for x in tensors:
            address = x.data_ptr()
            bits |= address or 1  # 0 is that of a tensor without memory
        if bits % 16:
            return None
        alike = tuple([(x.shape, x.stride(), x.dtype) for x in tensors])
    except RuntimeError:  # neither a sparse nor a nested tensor has an address and strides
        return None
    kinds = tuple(map(type, options))  # True equals 1.0
    return (backend, device, alike, differentiated(*tensors), kinds, *options)


def recalled(key: Key | None) -> Again | None:
    """How a call of this key is repeated, or None where there was none."""
    return None if key is None else _CALLS.get(key)


def remember(key: Key | None, function: Callable[..., Any], *arguments: Any) -> None:
    """Keep how a call of a kernel's function is repeated, if the kernel can tell.

    Its ``prepared(*arguments)`` returns an :data:`Again`, or None.
    """
    prepared = getattr(function, "prepared", None)
    if key is None or prepared is None:
        return
    again = prepared(*arguments)
    if again is not None:
        if len(_CALLS) >= MOST_CALLS:
            _CALLS.clear()
        _CALLS[key] = again


forget_calls = _CALLS.clear
