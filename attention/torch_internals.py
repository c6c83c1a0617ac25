"""The one door to private names of torch and Triton; what each is replaced by where it is missing.

| private | used to | where it is missing |
|---|---|---|
| dispatch keys, function mode, profiler state | call an operator past the dispatcher | torch's dispatcher |
| state of functorch's transforms, C++'s ``apply`` | record a function of autograd fast | ``Function.apply`` |
| the device that new tensors are made on | tell whether one is set | ``torch.get_default_device`` |
| a switch of forward mode | differentiate tangents again | a refusal |
| a mark that torch's compiler reads | keep a check out of compiled graphs | the compiler breaks its graph |
| allocation events of the profiler | read peak memory exactly | unknown, with a warning |
| a block without dispatch modes | call compiled code, which no mode sees into | an error of torch's |
| an attribute that torch's encoder layer reads | keep it from softmax attention of its own | unread |
| Triton's launcher | launch without a look at each argument | ``kernel[grid]`` |
| the class of fake tensors | tell a tensor without numbers | an error of torch's |
| functional collectives | exchange states where compilers and dispatch modes see it | ``torch.distributed`` |
| options of context parallelism | measure it in all its forms | a refusal |
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial, reduce
from inspect import signature
from operator import or_
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Function = TypeVar("Function", bound=Callable[..., Any])
DirectLaunch = Callable[[int, Sequence[Any]], bool]

PLAIN_KEYS = (
    "BackendSelect", "ADInplaceOrView",
    "CPU", "AutogradCPU", "AutocastCPU", "CUDA", "AutogradCUDA", "AutocastCUDA",
)  # fmt: skip
"""Dispatch keys of ordinary tensors and threads. Of these only CPU and CUDA do anything for our operators."""
READ_BY_FAST_PATH = "_qkv_same_embed_dim"
"""What torch's encoder layer reads of its attention. False: it calls that, and computes no softmax attention
with its weights by itself, in evaluation."""
CHECKED_LAUNCHERS = ("3.6.",)
"""Versions of Triton whose launcher was called directly on a card."""
LAUNCHER_PARAMETERS = ["gridX", "gridY", "gridZ", "stream", "function"]
"""The first parameters of such a launcher."""


def private(path: str) -> Any | None:
    """The object at a dotted path below torch, or None where this torch has none there."""
    found: Any = torch
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


# --- the dispatcher ----------------------------------------------------------------------------------


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
_profiling = private("_C._autograd._profiler_enabled")
_CAN_TELL = None not in (FOREIGN_KEYS, _thread_keys, _tensor_keys, _function_mode, _profiling)


def needs_dispatcher(*tensors: Tensor) -> bool:
    """Whether a call on these tensors must go through torch's dispatcher.

    True while a compiler, a mode, a transform or a profiler observes operators, where a tensor is not plain
    (a subclass, a negated view, a zero tensor), where the tensors are of several devices, and where this
    torch lacks a name that tells. A profiler of another thread and an execution trace are not noticed.
    """
    if torch.compiler.is_compiling() or not _CAN_TELL or _function_mode():  # type: ignore[misc]
        return True
    device, keys = tensors[0].device, _thread_keys().raw_repr()  # type: ignore[misc]
    for x in tensors:
        if type(x) is not Tensor or x.device != device:
            return True
        keys |= _tensor_keys(x).raw_repr()  # type: ignore[misc]
    return bool(keys & FOREIGN_KEYS or _profiling())  # type: ignore[misc]


def default_device() -> torch.device | None:
    """The device that ``torch.set_default_device`` was given; None where it was not called.

    ``torch.get_default_device`` says cpu then, and setting that would slow every call down by a mode.
    """
    modes = private("_GLOBAL_DEVICE_CONTEXT")
    if modes is None:
        return torch.get_default_device()
    device: torch.device | None = getattr(getattr(modes, "device_context", None), "device", None)
    return device


# --- autograd and the compiler -----------------------------------------------------------------------

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


# --- the profiler ------------------------------------------------------------------------------------


_profiler_of_any_thread = "autograd.profiler._is_profiler_enabled"


def prepared_profiler() -> bool:
    """Whether a profiler of torch's is warming up: another one started beside it would end the process.

    torch tells of recording profilers alone, so that the objects of this process are looked through.
    """
    kind = torch.autograd.profiler.profile
    # An object refers to its class: these are found sooner than in the list of all objects.
    return any(type(each) is kind and _running(each) for each in gc.get_referrers(kind))


def _running(recorder: Any) -> bool:
    """Whether a profiler was entered, and has no results yet."""
    return getattr(recorder, "entered", False) and getattr(recorder, "kineto_results", True) is None


def profiling() -> bool:
    """Whether a profiler of torch's is active in any thread; not known, and false, without the names."""
    here = _profiling is not None and _profiling()
    return bool(here or private(_profiler_of_any_thread))


def allocation_events(recorder: Any) -> list[tuple[int, int]] | None:
    """Time in ns and bytes (negative when freed) of each allocation that a profiler recorded, in order.

    Args:
        recorder: ``torch.autograd.profiler.profile(profile_memory=True)`` after its end.

    Returns:
        The events, or None where this torch does not give them.
    """
    events = getattr(getattr(recorder, "kineto_results", None), "events", None)
    if events is None:
        return None
    try:
        found = [(event.start_ns(), event.nbytes()) for event in events() if event.name() == "[memory]"]
    except AttributeError:
        return None
    return sorted(found, key=lambda event: event[0])


# --- Triton's launcher -------------------------------------------------------------------------------


class Described:
    """A tensor that a descriptor moves, as the launcher reads it: its address, shape and strides.

    Triton's own descriptor is checked each time that it is made, which takes the host longer than a launch.
    """

    __slots__ = ("address", "shape", "strides")
    padding = "zero"

    def __init__(self, address: int, shape: list[int], strides: list[int]) -> None:
        self.address, self.shape, self.strides = address, shape, strides

    @property
    def base(self) -> Described:
        return self

    def data_ptr(self) -> int:
        return self.address


def direct_launch(compiled: Any, programs: int, values: tuple[Any, ...]) -> DirectLaunch | None:
    """A launch of what Triton compiled, on the current stream of a device; None where it is not known.

    ``kernel[grid](*arguments)`` looks at each of fifty arguments, asks for the device, describes the launch,
    calls chains of hooks that are empty, and asks each tensor and then the driver for the tensor's address:
    that takes the host longer than a short sequence takes the card. The launcher below it is called directly,
    as torch's compiler does, in versions of Triton whose launcher was checked.

    Args:
        compiled: what ``kernel[grid](...)`` returned.
        programs: size of the one-dimensional grid.
        values: the arguments after the tensors.

    Returns:
        A function of the device's index and the tensors' addresses (or their descriptors). It returns whether
        it launched: not while somebody listens to launches, who must hear of this one from Triton.
    """
    import triton

    if not triton.__version__.startswith(CHECKED_LAUNCHERS):
        return None
    try:
        from triton import knobs
        from triton.runtime import driver

        hooks, stream_of = knobs.runtime, driver.active.get_current_stream
        launch, switches = _innermost(compiled.run)
        kernel = compiled.function, *switches, compiled.packed_metadata, None, None, None  # no hooks
        known = list(signature(compiled.run).parameters)[: len(LAUNCHER_PARAMETERS)] == LAUNCHER_PARAMETERS
        known = known and hasattr(hooks, "launch_enter_hook") and hasattr(hooks, "launch_exit_hook")
    except (ImportError, AttributeError):
        return None
    if not known:
        return None

    def direct(device: int, pointers: Sequence[Any]) -> bool:
        enter, leave = hooks.launch_enter_hook, hooks.launch_exit_hook
        # A hook is a function or None, or a chain of functions that may be empty.
        if getattr(enter, "calls", enter) or getattr(leave, "calls", leave):
            return False
        launch(programs, 1, 1, stream_of(device), *kernel, *pointers, *values)
        return True

    return direct


def _innermost(run: Any) -> tuple[Any, tuple[Any, ...]]:
    """What a launcher calls for a kernel without scratch memory, and what it adds; else itself."""
    names = ("launch_cooperative_grid", "launch_pdl", "global_scratch_size", "profile_scratch_size")
    cooperative, early, *scratch = (getattr(run, name, None) for name in names)
    if not hasattr(run, "launch") or scratch != [0, 0]:
        return run, ()
    return run.launch, (cooperative, early, None, None)


# --- collectives -------------------------------------------------------------------------------------


_gather = private("ops._c10d_functional.all_gather_into_tensor")
_all_reduce = private("ops._c10d_functional.all_reduce")
_wait = private("ops._c10d_functional.wait_tensor")


def gathered(x: Tensor, group: ProcessGroup) -> Callable[[], Tensor]:
    """Begin to gather tensors ``[rows, ...]`` of all ranks, alike in shape.

    The functional collectives are what torch's compiler and its dispatch modes see as operators.

    Returns:
        A function that waits for them, ``[ranks * rows, ...]`` in the order of ranks; work enqueued before it
        is called goes on meanwhile.
    """
    if _gather is not None and _wait is not None:
        return partial(_wait, _gather(x, group.size(), group.group_name))
    found = x.new_empty(group.size() * x.shape[0], *x.shape[1:])
    work = torch.distributed.all_gather_into_tensor(found, x, group=group, async_op=True)
    return partial(_waited, work, found)


def summed_over(x: Tensor, group: ProcessGroup) -> Callable[[], Tensor]:
    """Begin to sum tensors of all ranks; returns a function that waits for the sum: see `gathered`."""
    if _all_reduce is not None and _wait is not None:
        return partial(_wait, _all_reduce(x, "sum", group.group_name))
    found = x.clone()
    work = torch.distributed.all_reduce(found, group=group, async_op=True)
    return partial(_waited, work, found)


def _waited(work: Any, found: Tensor) -> Tensor:
    work.wait()
    return found


@contextmanager
def context_parallelism(*, balanced: bool, rotation: str) -> Iterator[None]:
    """A block in which torch's context parallelism cuts sequences and sends keys and values so.

    Args:
        balanced: Whether a rank has two blocks, one from either end, instead of one; only where causal.
        rotation: ``allgather`` or ``alltoall``, which goes round a ring.

    Raises:
        RuntimeError: this torch does not let it be told.
    """
    importlib.import_module("torch.distributed.tensor.experimental")
    options = private("distributed.tensor.experimental._attention._cp_options")
    rotate = private("distributed.tensor.experimental._attention.set_rotate_method")
    if options is None or rotate is None or not hasattr(options, "enable_load_balance"):
        raise RuntimeError("this version of torch has no options of context parallelism; install torch 2.11")
    before = {name: getattr(options, name, None) for name in ("enable_load_balance", "rotate_method")}
    options.enable_load_balance = balanced
    rotate(rotation)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(options, name, value)
