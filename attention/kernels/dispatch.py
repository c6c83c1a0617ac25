"""Operators of torch's, called directly where nobody watches operators.

torch's dispatcher takes as long to call an operator written in Python as a launch on a card takes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce, wraps
from operator import or_
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

Given = ParamSpec("Given")
Result = TypeVar("Result")
Keys, Key = torch._C.DispatchKeySet, torch._C.DispatchKey
PLAIN = (
    Key.BackendSelect, Key.ADInplaceOrView,
    Key.CPU, Key.AutogradCPU, Key.AutocastCPU, Key.CUDA, Key.AutogradCUDA, Key.AutocastCUDA,
)  # fmt: skip
"""Keys of plain tensors and threads; but for the two of a device these operators let a call fall through."""
WATCHERS = ~reduce(or_, map(Keys, PLAIN)).raw_repr()


def watched(*tensors: Tensor) -> bool:
    """Whether a call on these is for the dispatcher: a compiler, a mode, a transform or a profiler watches.

    Or one of them is not plain (a subclass, a negated view, a zero tensor), or they are of several devices.
    Not noticed: a profiler started in another thread, and an execution trace.
    """
    if torch.compiler.is_compiling() or torch._C._is_torch_function_mode_enabled():
        return True
    device, keys = tensors[0].device, torch._C._dispatch_tls_local_include_set()
    for x in tensors:
        if type(x) is not Tensor or x.device != device:
            return True
        keys = keys | torch._C._dispatch_keys(x)
    return keys.raw_repr() & WATCHERS != 0 or torch._C._autograd._profiler_enabled()


def implements(
    name: str, devices: str | tuple[str, ...]
) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """The decorated function serves ``attention::<name>`` on these devices; what comes of it calls either."""

    def register(function: Callable[Given, Result]) -> Callable[Given, Result]:
        torch.library.impl(f"attention::{name}", devices, function)
        operator = getattr(torch.ops.attention, name).default

        @wraps(function)
        def call(*given: Given.args, **named: Given.kwargs) -> Result:
            to_dispatch = watched(*[x for x in given if isinstance(x, Tensor)])
            result: Result = (operator if to_dispatch else function)(*given, **named)
            return result

        return call

    return register
