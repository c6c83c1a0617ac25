"""Operators of torch's, called directly where nobody watches operators.

torch's dispatcher takes as long to call an operator written in Python as a launch on a card takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
Keys, Key = torch._C.DispatchKeySet, torch._C.DispatchKey
WATCHERS = ~(Keys(Key.BackendSelect) | Keys(Key.ADInplaceOrView)).raw_repr()
"""All that may take part in a thread's calls, but what does without anybody's doing."""


def watched(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether a call on these is anybody's business: a compiler's, a mode's, a transform's, a profiler's.

    Or that of the tensors, of a kind of their own or with a sign still to be taken.
    """
    return (
        torch.compiler.is_compiling()
        or not type(q) is type(k) is type(v) is Tensor
        or (q.is_neg() or k.is_neg() or v.is_neg())
        or torch._C._autograd._profiler_enabled()
        or torch._C._dispatch_tls_local_include_set().raw_repr() & WATCHERS != 0
    )


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
