"""Collectives that compilers and dispatch modes see, and the options of torch's context parallelism."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attention.torch_internals.dispatcher import needs_dispatcher
from attention.torch_internals.names import private

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_gather = private("ops._c10d_functional.all_gather_into_tensor")
_all_reduce = private("ops._c10d_functional.all_reduce")
_wait = private("ops._c10d_functional.wait_tensor")
_GatherOptions = private("_C._distributed_c10d.AllgatherOptions")
_SumOptions = private("_C._distributed_c10d.AllreduceOptions")
_group_of_name = private("_C._distributed_c10d._resolve_process_group")


def gathered(x: Tensor, group: ProcessGroup, *, beside: bool = False) -> Callable[[], Tensor]:
    """Begin to gather tensors ``[rows, ...]`` of all ranks, alike in shape.

    Where something observes operators it is a functional collective, which torch's compiler and its dispatch
    modes see as one. Elsewhere it is the process group's own, which takes the host less.

    Args:
        x: this rank's.
        group: the ranks, all of which call this.
        beside: whether work that is enqueued before the result is waited for goes on meanwhile; on a card
            two streams then wait for one another, which takes longer than a short collective.

    Returns:
        A function that waits for them, ``[ranks * rows, ...]`` in the order of ranks.

    Raises:
        RuntimeError: the group was destroyed.
    """
    if _gather is not None and _wait is not None and needs_dispatcher(x):
        return partial(_wait, _gather(x, group.size(), group.group_name))
    _refuse_destroyed(group)
    found = x.new_empty((group.size() * x.shape[0], *x.shape[1:]))
    gather = getattr(group, "_allgather_base", None)
    if gather is None or _GatherOptions is None:
        work = torch.distributed.all_gather_into_tensor(found, x, group=group, async_op=beside)
    else:
        work = gather(found, x, _told(_GatherOptions, beside))
    return partial(_waited, work, found)


def summed_over(x: Tensor, group: ProcessGroup, *, beside: bool = False) -> Callable[[], Tensor]:
    """Begin to sum tensors of all ranks; returns a function that waits for the sum: see `gathered`."""
    if _all_reduce is not None and _wait is not None and needs_dispatcher(x):
        return partial(_wait, _all_reduce(x, "sum", group.group_name))
    _refuse_destroyed(group)
    found = x.clone()
    if _SumOptions is None:
        work = torch.distributed.all_reduce(found, group=group, async_op=beside)
    else:
        work = group.allreduce([found], _told(_SumOptions, beside))
    return partial(_waited, work, found)


def _refuse_destroyed(group: ProcessGroup) -> None:
    """Refuse a group that torch knows no more: its own collectives would work on for a while."""
    if _group_of_name is not None:
        _group_of_name(group.group_name)


def _told(options: Any, beside: bool) -> Any:
    """The options of a collective: not ``beside`` other work it is a launch in the stream of the caller."""
    made = options()
    made.asyncOp = beside
    return made


def _waited(work: Any, found: Tensor) -> Tensor:
    if work is not None:
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
