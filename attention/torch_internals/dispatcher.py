"""What torch's dispatcher observes: whether a call may go past it, and the device of new tensors."""

from __future__ import annotations

from functools import reduce
from operator import or_

import torch
from torch import Tensor

from attention.torch_internals.names import private

PLAIN_KEYS = (
    "BackendSelect", "ADInplaceOrView",
    "CPU", "AutogradCPU", "AutocastCPU", "CUDA", "AutogradCUDA", "AutocastCUDA",
)  # fmt: skip
"""Dispatch keys of ordinary tensors and threads. Of these only CPU and CUDA do anything for our operators."""


def _foreign_keys() -> int | None:
    """The bits of all dispatch keys but the plain ones; None where torch does not tell its keys."""
    key_set, keys = private("_C.DispatchKeySet"), private("_C.DispatchKey")
    try:
        plain = [getattr(keys, name) for name in PLAIN_KEYS]
        return int(~reduce(or_, map(key_set, plain)).raw_repr())  # type: ignore[arg-type]
    except (AttributeError, TypeError):
        return None


FOREIGN_KEYS = _foreign_keys()
_thread_keys = private("_C._dispatch_tls_local_include_set")
_tensor_keys = private("_C._dispatch_keys")
_function_mode = private("_C._is_torch_function_mode_enabled")
profiler_enabled = private("_C._autograd._profiler_enabled")
_CAN_TELL = None not in (FOREIGN_KEYS, _thread_keys, _tensor_keys, _function_mode, profiler_enabled)


def needs_dispatcher(*tensors: Tensor) -> bool:
    """Whether a call on these tensors must go through torch's dispatcher.

    True while a compiler, a mode, a transform or a profiler observes operators, where a tensor is not plain
    (a subclass, a negated view, a zero tensor), where the tensors are of several devices, and where this
    torch lacks a name that tells. A profiler of another thread and an execution trace are not noticed.
    """
    if torch.compiler.is_compiling() or observed():
        return True
    device, keys = tensors[0].device, _thread_keys().raw_repr()  # type: ignore[misc]
    for x in tensors:
        if type(x) is not Tensor or x.device != device:
            return True
        keys |= _tensor_keys(x).raw_repr()  # type: ignore[misc]
    return bool(keys & FOREIGN_KEYS)


def observed() -> bool:
    """Whether a mode of functions or a profiler observes calls; true where this torch does not tell."""
    return bool(not _CAN_TELL or _function_mode() or profiler_enabled())  # type: ignore[misc]


def default_device() -> torch.device | None:
    """The device that ``torch.set_default_device`` was given; None where it was not called.

    ``torch.get_default_device`` says cpu then, and setting that would slow every call down by a mode.
    """
    modes = private("_GLOBAL_DEVICE_CONTEXT")
    if modes is None:
        return torch.get_default_device()
    device: torch.device | None = getattr(getattr(modes, "device_context", None), "device", None)
    return device
