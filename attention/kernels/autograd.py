"""A kernel's operators as one function that torch differentiates and maps, in every mode and order.

The kernel computes the output and the gradients; tangents and second derivatives are those of
:mod:`attention.kernels.derivatives`. Under ``torch.vmap`` the mapped dimension joins the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from attention.kernels.derivatives import Function, NormalisedSums
from attention.kernels.layouts import unit_stride
from attention.torch_internals.transforms import (
    constant_when_compiled,
    fast_apply,
    functional,
    recording_tangents,
    traces_tangents,
    transformed,
)

Operator = Callable[..., tuple[Tensor, ...]]
NO_TANGENTS = (
    "{} carries no tangents inside of torch.compile; compile inside of torch.func.jvp or jacfwd, "
    "or use backend='explicit'"
)
Mapped = tuple[tuple[Tensor, ...], tuple[int, ...]]
"""Results of a rule of vmap, and their mapped dimensions."""


def normalised_sums(causal: bool, phi: str, eps: float, *_: Any) -> Function:
    """Linear attention by the options of an operator."""
    return NormalisedSums(causal, phi, eps)


def differentiable(
    operator: str,
    forward: Operator,
    backward: Operator,
    batch_dims: Sequence[int],
    inputs: int = 3,
    function: Callable[..., Function] = normalised_sums,
    outputs: int = 1,
) -> Operator:
    """``forward`` with derivatives.

    Args:
        operator: the name of the torch operator that stands in exported graphs, to get gradients too:
            ``(*inputs, *options)``, and perhaps whether to keep what a backward wants.
        forward: ``(*inputs, *options)`` to the outputs and what the backward wants of it; the inputs are q,
            k, v and perhaps gates or a state.
        backward: ``(*gradients of outputs, *inputs, *results of forward, *options)`` to the gradients of the
            inputs.
        batch_dims: the dimension of each result of ``forward`` that the batch leads; what is empty
            has the batch as well.
        inputs: how many.
        function: the options to the function whose tangents and second derivatives these are.
        outputs: how many results of ``forward`` are differentiated, the first ones.
    """
    results, count = len(batch_dims), inputs
    leads, ends = (0,) * count, (0,) * outputs
    given = outputs + count  # tensors of a backward before what the forward kept

    class Gradients(torch.autograd.Function):
        @staticmethod
        def forward(*arguments: Any) -> tuple[Tensor, ...]:
            return backward(*map(unit_stride, arguments[:outputs]), *arguments[outputs:])

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
            ctx.function = function(*inputs[given + results :])
            ctx.save_for_backward(*inputs[:given])
            ctx.save_for_forward(*inputs[:given])

        @staticmethod
        def backward(ctx: Any, *h: Tensor) -> tuple[Tensor | None, ...]:
            saved = tuple(ctx.saved_tensors)
            found = ctx.function.gradient_cotangents(saved[:outputs], saved[outputs:], h)
            return *found, *(None,) * (len(ctx.needs_input_grad) - given)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
            with recording_tangents():
                x, h = (tuple(each) for each in _innermost(ctx.saved_tensors, tangents))
                found: tuple[Tensor, ...] = ctx.function.gradient_tangents(
                    x[:outputs], x[outputs:], h[:outputs], h[outputs:]
                )
                return found

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Mapped:
            size, dims = info.batch_size, (*ends, *leads, *batch_dims)
            options = arguments[len(dims) :]
            tensors = _folded(arguments[:given], in_dims, dims, size)
            if in_dims[given] is None:  # what the forward kept is cut for another batch
                kept = list(output(*tensors[outputs:], *options))
            else:
                kept = _folded(arguments[given : len(dims)], in_dims[given:], batch_dims, size)
            own = _batch(arguments[0], in_dims[0])
            return _unfolded(gradients(*tensors, *kept, *options), leads, size, own)

    class Output(torch.autograd.Function):
        @staticmethod
        def forward(*arguments: Any) -> tuple[Tensor, ...]:
            return forward(*arguments)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
            ctx.options = inputs[count:]
            ctx.save_for_backward(*inputs[:count], *output)
            ctx.save_for_forward(*inputs[:count])
            ctx.mark_non_differentiable(*output[outputs:])
            ctx.set_materialize_grads(False)  # nobody differentiates those; zeros would be made for them

        @staticmethod
        def backward(ctx: Any, *g: Tensor | None) -> tuple[Tensor | None, ...]:
            rest = (None,) * len(ctx.options)
            if all(each is None for each in g[:outputs]):
                return *(None,) * count, *rest
            saved = ctx.saved_tensors
            return *gradients(*_filled(g[:outputs], saved[count:]), *saved, *ctx.options), *rest

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
            with recording_tangents():
                x, h = _innermost(ctx.saved_tensors, tangents)
                found = function(*ctx.options).tangent(tuple(x[:count]), tuple(h[:count]))
                return *found, *(None,) * (results - outputs)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Mapped:
            x = _folded(arguments[:count], in_dims, leads, info.batch_size)
            own = _batch(arguments[0], in_dims[0])
            return _unfolded(output(*x, *arguments[count:]), batch_dims, info.batch_size, own)

    applied, guarded = fast_apply(Output), fast_apply(Gradients)

    def output(*arguments: Any) -> tuple[Tensor, ...]:
        # A compiler sees the operator alone: it cannot trace a function with rules of its own.
        if not torch.compiler.is_compiling():
            result: tuple[Tensor, ...] = applied(*arguments)
            return result
        if functional() and traces_tangents():
            raise RuntimeError(NO_TANGENTS.format(operator))  # the compiler then leaves the call as it is
        refuse_traced_tangents(operator)
        return forward(*arguments)

    def gradients(*arguments: Any) -> tuple[Tensor, ...]:
        if not _recorded():
            return backward(*map(unit_stride, arguments[:outputs]), *arguments[outputs:])
        found: tuple[Tensor, ...] = guarded(*arguments)
        return found

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.options, ctx.given = inputs[count:], len(inputs)
        kept = ()
        if isinstance(output, tuple):
            *ctx.options, keep = ctx.options
            kept = output if keep else ()
        ctx.save_for_backward(*inputs[:count], *kept)
        ctx.set_materialize_grads(False)

    def differentiate(ctx: Any, *g: Tensor | None) -> tuple[Tensor | None, ...]:
        found: Sequence[Tensor | None] = (None,) * count
        if any(each is not None for each in g[:outputs]):
            saved = ctx.saved_tensors
            x, kept = saved[:count], saved[count:] or forward(*saved, *ctx.options)
            found = gradients(*_filled(g[:outputs], kept), *x, *kept, *ctx.options)
        return *found, *(None,) * (ctx.given - count)

    torch.library.register_autograd(operator, differentiate, setup_context=keep)
    output.gradients = gradients  # type: ignore[attr-defined]
    return output


def _filled(g: Sequence[Tensor | None], outputs: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of outputs, zeros in place of those that nobody differentiates."""
    return [torch.zeros_like(y) if each is None else each for each, y in zip(g, outputs, strict=False)]


@constant_when_compiled
def refuse_traced_tangents(operator: str) -> None:
    """Refuse forward mode in a graph that torch's compiler makes: it would take the tangents for zero.

    Raises:
        RuntimeError: tangents are being traced.
    """
    if traces_tangents():
        raise RuntimeError(NO_TANGENTS.format(operator))


def _innermost(x: Sequence[Tensor], tangents: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors without the tangents that a rule is about, and these; both may have others, of outer levels."""
    h = [torch.zeros_like(each) if h is None else h for each, h in zip(x, tangents, strict=False)]
    if not functional():  # there are no outer levels
        return list(x), h
    return [_unpacked(each) for each in x], [_unpacked(each) for each in h]


def _unpacked(x: Tensor) -> Tensor:
    primal: Tensor = unpack_dual(x).primal  # type: ignore[no-untyped-call]
    return primal


def _folded(
    tensors: Sequence[Tensor], in_dims: Sequence[int | None], batch_dims: Sequence[int], size: int
) -> list[Tensor]:
    """The tensors with their mapped dimension as the first part of the batch."""
    folded = []
    for x, mapped, batch in zip(tensors, in_dims, batch_dims, strict=False):
        if mapped is None:
            x = x.unsqueeze(batch).expand(*x.shape[:batch], size, *x.shape[batch:])
        else:
            x = x.movedim(mapped, batch)
        folded.append(unit_stride(x.flatten(batch, batch + 1)))
    return folded


def _batch(x: Tensor, mapped: int | None) -> int:
    """The batch of a tensor ``[B, H, N, W]`` that has a mapped dimension besides, or none."""
    return x.shape[1 if mapped == 0 else 0]


def _unfolded(tensors: Sequence[Tensor], batch_dims: Sequence[int], size: int, own: int) -> Mapped:
    """The tensors with the mapped dimension of this size before their ``own`` batch again."""
    found = []
    for x, batch in zip(tensors, batch_dims, strict=True):
        # What is kept of states may count B H instead of B; of no maps nothing of it is read.
        rest = x.shape[batch] // size if size else own
        found.append(x.reshape(*x.shape[:batch], size, rest, *x.shape[batch + 1 :]))
    return tuple(found), tuple(batch_dims)


def refuse(name: str) -> Any:
    """A rule of a ``torch.autograd.Function`` that says what the function cannot do.

    Raises:
        RuntimeError: at each call.
    """

    def rule(*_: Any) -> None:
        raise RuntimeError(
            f"{name} is differentiated once, in reverse mode, and not mapped by torch.vmap; "
            "use linear_attention() for tangents, second derivatives and maps"
        )

    return staticmethod(rule)


def once_differentiable(backward: Operator, name: str) -> Operator:
    """The backward, which refuses to be differentiated: torch alone would take its gradients for zero."""

    class Gradients(torch.autograd.Function):
        @staticmethod
        def forward(*arguments: Any) -> tuple[Tensor, ...]:
            return backward(*arguments)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
            pass

        backward = jvp = vmap = refuse(name)

    guarded = fast_apply(Gradients)

    def gradients(*arguments: Any) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = (guarded if _recorded() else backward)(*arguments)
        return found

    return gradients


def _recorded() -> bool:
    """Whether gradients are differentiated in turn; a compiler cannot trace one Function within another."""
    return not torch.compiler.is_compiling() and (torch.is_grad_enabled() or transformed())
