"""Transforms, forward mode and torch's compiler: what is active, and how a function is kept out of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from attention.torch_internals.names import private

Function = TypeVar("Function", bound=Callable[..., Any])

_transforming = private("_C._are_functorch_transforms_active")
_forward_mode = private("autograd.forward_ad")
_recording_tangents = private("autograd.forward_ad._set_fwd_grad_enabled")
_tangents_enabled = private("_C._is_fwd_grad_enabled")
_fake = private("_subclasses.fake_tensor.FakeTensor")


def functional() -> bool:
    """Whether a transform of ``torch.func`` is active; true where this torch does not tell."""
    return _transforming is None or _transforming()


def transformed() -> bool:
    """Whether a transform of ``torch.func`` or forward-mode differentiation is active.

    Tensors then have derivatives that ``requires_grad`` does not tell. True where this torch does not tell.
    """
    return functional() or in_forward_mode()


def without_numbers(x: Tensor) -> bool:
    """Whether a tensor is a shape alone: on ``meta``, or of torch's ``FakeTensorMode``."""
    return x.is_meta or (_fake is not None and isinstance(x, _fake))


def in_forward_mode() -> bool:
    """Whether forward-mode differentiation is active; true where this torch does not tell."""
    return bool(getattr(_forward_mode, "_current_level", 0) >= 0)


def fast_apply(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """``function.apply`` without the work that it does for transforms, where nothing transforms it.

    ``Function.apply`` binds the arguments to the signature at each call, which takes as long as two launches.
    """
    full: Callable[..., Any] = function.apply
    bare = getattr(super(torch.autograd.Function, function), "apply", None)
    if bare is None or _transforming is None:
        return full

    def apply(*arguments: Any) -> Any:
        transformed = torch.compiler.is_compiling() or _transforming()
        return (full if transformed else bare)(*arguments)

    return apply


def records_tangents() -> bool:
    """Whether operators are to compute tangents; not known, and false, where this torch does not tell."""
    level = getattr(_forward_mode, "_current_level", -1)
    return level >= 0 and _tangents_enabled is not None and _tangents_enabled()


def recording_tangents() -> AbstractContextManager[Any]:
    """A block within a rule of forward mode whose tangents may have tangents; torch else takes them for 0.

    Only those of ``torch.func`` may.

    Raises:
        RuntimeError: this torch has no such block.
    """
    if not functional():
        return nullcontext()
    if _recording_tangents is None:
        raise RuntimeError("this version of torch cannot nest forward mode; install torch 2.13")
    block: AbstractContextManager[Any] = _recording_tangents(True)
    return block


def without_modes() -> AbstractContextManager[Any]:
    """A block in which no dispatch mode is active, as a counter of FLOPs is: compiled code is called in it.

    Without it torch interprets the code instead, fails at operators of higher order, and leaves the compiler
    unable to compile them.
    """
    disable = private("utils._python_dispatch._disable_current_modes")
    block: AbstractContextManager[Any] = nullcontext() if disable is None else disable()
    return block


def constant_when_compiled(function: Function) -> Function:
    """The function, whose result torch's compiler takes as a constant instead of tracing into it.

    ``torch.compiler.assume_constant_result`` sets the same mark, and imports the whole compiler first, for
    two seconds.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant_when_compiled
def traces_tangents() -> bool:
    """Whether forward mode is active where torch's compiler traces; not known, and true, without the names.

    The compiler enters a level of ``torch.func.jvp`` while it traces, past the number that Python keeps.
    """
    if not functional():
        return in_forward_mode()
    stack, jvp = private("_C._functorch.get_interpreter_stack"), private("_C._functorch.TransformType.Jvp")
    return stack is None or jvp is None or any(level.key() == jvp for level in stack() or ())
