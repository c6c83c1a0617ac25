"""What ranks exchange: states forward, and the other way round the gradients of what was read of them.

One collective each way. Its bytes follow from the shape of the state, and not from the tokens behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from attention.distributed.routes import Routes, of_prefixes
from attention.state import State
from attention.torch_internals.collectives import gathered, summed_over


def as_rows(states: Sequence[State]) -> Tensor:
    """States ``[B, Hkv, D, Dv]``, ``[B, Hkv, D]`` as one buffer, a row each."""
    parts = [x.flatten() for state in states for x in state]
    return torch.cat(parts).view(len(states), -1)


def as_state(row: Tensor, like: State) -> State:
    """A row of `as_rows` as a state of the shape of another one."""
    S, z = row.split_with_sizes([like.S.numel(), like.z.numel()])
    return State(S.view(like.S.shape), z.view(like.z.shape))


def _sums(rows: Tensor, wanted: Sequence[Sequence[int]]) -> Tensor:
    """The sum of the wanted rows, in the order of ranks, for each that is wanted; zeros of none."""
    return torch.stack([_sum(rows, one) for one in wanted])


def _sum(rows: Tensor, wanted: Sequence[int]) -> Tensor:
    if not wanted:
        return torch.zeros_like(rows[0])
    if len(wanted) == 1:
        return rows[wanted[0]]
    first, last = wanted[0], wanted[-1] + 1
    # A list of places would be sent to the card, which the host waits for.
    neighbours = last - first == len(wanted)
    return (rows[first:last] if neighbours else torch.stack([rows[one] for one in wanted])).sum(0)


class Gathered(torch.autograd.Function):
    """Rows of this rank to sums over rows of all ranks; its gradient goes the other way round."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: ProcessGroup, routes: Routes) -> Tensor:
        ctx.group, ctx.routes = group, routes
        return _sums(gathered(rows, group)(), routes.sources)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _sums(gathered(grad.contiguous(), ctx.group)(), ctx.routes.readers), None, None


class Summed(torch.autograd.Function):
    """The sum over all ranks; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return summed_over(rows, group)()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return summed_over(grad.contiguous(), ctx.group)(), None


class Tied(torch.autograd.Function):
    """A tensor as it is, whose backward runs that of others as well, with gradients of 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.rows = rows
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, torch.zeros_like(ctx.rows)


def read_rows(own: Sequence[State], group: ProcessGroup, routes: Routes) -> Tensor:
    """The states that this rank reads, a row each, out of those that all ranks send; one all-gather.

    Args:
        own: Those that it sends, ``[B, Hkv, D, Dv]`` and ``[B, Hkv, D]``, alike on all ranks.
        group: The ranks, all of which call this.
        routes: Who reads which.
    """
    rows: Tensor = Gathered.apply(as_rows(own), group, routes)  # type: ignore[no-untyped-call]
    return rows


def total_state(own: State, group: ProcessGroup) -> State:
    """The state of the tokens of all ranks; one all-reduce."""
    return as_state(Summed.apply(as_rows([own]), group)[0], own)  # type: ignore[no-untyped-call]


class StateExchange:
    """The exchange of a call, for a kernel that has work to do while states fly.

    Its collectives are those of `read_rows` where causal and of `total_state` else, so that ranks with and
    without such a kernel, or without tokens, understand one another.
    """

    def __init__(self, group: ProcessGroup, causal: bool) -> None:
        """Nothing is exchanged yet."""
        self._group = group
        self._routes = of_prefixes(group.rank(), group.size()) if causal else None
        self.first = self._routes is not None and not self._routes.sources[0]

    def __call__(self, row: Tensor, *, backward: bool) -> Callable[[], Tensor | None]:
        """Begin to exchange a row of `as_rows`, or in a ``backward`` its gradient, beside other work.

        The function that it returns waits for the sum of the rows that this rank reads, None of none.
        """
        waiting = (gathered if self._routes else summed_over)(row, self._group, beside=backward)

        def read() -> Tensor | None:
            found = waiting()
            if self._routes is None:
                return found[0]
            (wanted,) = self._routes.readers if backward else self._routes.sources
            return _sum(found, wanted) if wanted else None

        return read
