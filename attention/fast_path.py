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

from attention.torch_internals.dispatcher import needs_dispatcher, observed
from attention.torch_internals.likeness import like
from attention.torch_internals.transforms import in_forward_mode, transformed

Again = Callable[..., Any]
"""Makes a call again on tensors that are like those of the call which it was prepared for."""
Key = tuple[Any, ...]
DEVICES = ["cuda"]
"""Where a call may wait for the host; a CPU computes longer than it checks."""
PLAIN = frozenset((bool, float, str))
MOST_KEYS, MOST_ALIKE = 1024, 16
_CALLS: dict[Key, tuple[tuple[Callable[..., bool], Again], ...]] = {}
"""By what `_key` tells: whether tensors are like those of a call, and how it is repeated."""


def recalled(tensors: tuple[Tensor, ...], *options: object) -> Again | None:
    """How a call of these options is repeated on tensors like these, or None where there was none.

    None as well of a call that a compiler traces, or that a mode, a profiler or a transform observes, and
    where a tensor is not aligned.
    """
    if torch.compiler.is_compiling() or observed() or in_forward_mode():  # guards know other transforms
        return None
    try:
        calls = _CALLS.get(_key(tensors, options), ())
    except (AttributeError, RuntimeError, TypeError):
        return None  # no tensor, one without a shape, or an option without a hash
    for alike, again in calls:
        if alike(*tensors):
            return again if _aligned(tensors) else None
    return None


def remember(
    function: Callable[..., Any], tensors: tuple[Tensor, ...], options: tuple[object, ...], *arguments: Any
) -> None:
    """Keep how a call of a kernel's function is repeated, if the kernel can tell.

    Its ``prepared(*arguments)`` returns an :data:`Again`, or None. A call that depends on more than its
    tensors and options is not kept: under autocast, on tensors of a subclass, with other options than bool,
    float or str, and all those that :func:`recalled` does not look for. An :data:`Again` asks by itself
    whether tensors share memory.
    """
    prepared = getattr(function, "prepared", None)
    if prepared is None or not _follows(tensors, options):
        return
    again, alike = prepared(*arguments), like(*tensors)
    if again is None or alike is None:
        return
    if len(_CALLS) >= MOST_KEYS:
        _CALLS.clear()
    key = _key(tensors, options)
    _CALLS[key] = ((alike, again), *_CALLS.get(key, ())[: MOST_ALIKE - 1])


forget_calls = _CALLS.clear


def _key(tensors: tuple[Tensor, ...], options: tuple[object, ...]) -> Key:
    """The shape of the queries, the options and their types, as True equals 1.0, and the mode of gradients.

    Versions of torch differ in whether likeness knows that mode.
    """
    return (tensors[0].shape, torch.is_grad_enabled(), *options, *map(type, options))


def _follows(tensors: tuple[Tensor, ...], options: tuple[object, ...]) -> bool:
    """Whether the checks and the kernel of a call follow from what is kept of it."""
    if torch.compiler.is_compiling() or {type(x) for x in tensors} != {Tensor}:
        return False
    device = tensors[0].device.type
    if device not in DEVICES or not PLAIN.issuperset(map(type, options)):
        return False
    if torch.is_autocast_enabled(device) or transformed() or needs_dispatcher(*tensors):
        return False
    return _aligned(tensors)


def _aligned(tensors: tuple[Tensor, ...]) -> bool:
    """Whether all begin at multiples of 16 bytes and have memory."""
    bits = 0
    for x in tensors:
        bits |= x.data_ptr() or 1
    return bits % 16 == 0
