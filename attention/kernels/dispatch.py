"""Operators of torch's, called directly where nobody watches operators.

torch's dispatcher takes as long to call an operator written in Python as a launch on a card takes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
Keys, Key = torch._C.DispatchKeySet, torch._C.DispatchKey
PLAIN = (
    Key.BackendSelect, Key.ADInplaceOrView,
    Key.CPU, Key.AutogradCPU, Key.AutocastCPU, Key.CUDA, Key.AutogradCUDA, Key.AutocastCUDA,
)  # fmt: skip
"""What takes part in a call on plain tensors, and does nothing to operators whose gradients are apart."""
WATCHERS = ~reduce(or_, map(Keys, PLAIN)).raw_repr()


def watched(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether a call on these is somebody's business: a compiler's, a mode's, a transform's, a profiler's.

    Or that of the tensors: of a kind of their own, with a sign still to be taken, or not there at all.
    """
    if torch.compiler.is_compiling() or not type(q) is type(k) is type(v) is Tensor:
        return True
    keys, of_thread = torch._C._dispatch_keys, torch._C._dispatch_tls_local_include_set()
    taking_part = (keys(q) | keys(k) | keys(v) | of_thread).raw_repr()
    return taking_part & WATCHERS != 0 or torch._C._autograd._profiler_enabled()


def implements(
    name: str, devices: str | tuple[str, ...]
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """The decorated function serves ``attention::<name>`` on these devices; what comes of it calls either."""

    def register(function: Callable[..., Result]) -> Callable[..., Result]:
        torch.library.impl(f"attention::{name}", devices, function)
        operator = getattr(torch.ops.attention, name).default

        def call(*arguments: Any) -> Result:
            return (operator if watched(*arguments[:3]) else function)(*arguments)

        return call

    return register
