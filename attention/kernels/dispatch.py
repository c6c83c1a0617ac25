"""Operators of torch's, called directly where nothing observes operators.

torch's dispatcher takes as long to call an operator written in Python as a launch on a card takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry, register_flop_formula

from attention.torch_internals.dispatcher import needs_dispatcher
from attention.torch_internals.transforms import records_tangents

Given = ParamSpec("Given")
Result = TypeVar("Result")


def implements(
    name: str, devices: str | tuple[str, ...]
) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Decorate the function that serves ``attention::<name>`` on these devices.

    The decorated function calls the operator where something observes operators, and itself elsewhere.
    """

    def register(function: Callable[Given, Result]) -> Callable[Given, Result]:
        @wraps(function)
        def dispatched(*given: Given.args, **named: Given.kwargs) -> Result:
            refuse_tangents(name)
            return function(*given, **named)

        torch.library.impl(f"attention::{name}", devices, dispatched)
        operator = getattr(torch.ops.attention, name).default

        @wraps(function)
        def call(*given: Given.args, **named: Given.kwargs) -> Result:
            observed = needs_dispatcher(*[x for x in given if isinstance(x, Tensor)])
            result: Result = (operator if observed else function)(*given, **named)
            return result

        return call

    return register


def refuse_tangents(name: str) -> None:
    """Refuse forward mode through an operator itself, as in an exported graph: torch would drop the tangents.

    Raises:
        RuntimeError: tangents are being recorded.
    """
    if records_tangents():
        raise RuntimeError(
            f"the operator {name} of a compiled or exported graph carries no tangents of forward mode; "
            "differentiate the function that the graph was made of"
        )


def announces_macs(
    name: str, arguments: str, formula: Callable[..., Mapping[str, int]]
) -> Callable[..., None]:
    """A function that tells torch's ``FlopCounterMode`` of work that is done outside of any operator.

    It calls an operator that computes nothing, where something observes operators, and else does nothing.

    Args:
        name: of that operator, ``attention::<name>``.
        arguments: its arguments in torch's schema language, tensors first.
        formula: as of `counts_macs`, from these arguments.
    """
    torch.library.define(f"attention::{name}", f"({arguments}) -> ()")
    torch.library.impl(f"attention::{name}", ("cpu", "cuda"), lambda *_: None)
    counts_macs(name, formula)
    operator = getattr(torch.ops.attention, name).default

    def announce(*given: Any) -> None:
        if needs_dispatcher(*[x for x in given if isinstance(x, Tensor)]):
            operator(*given)

    return announce


def counts_macs(name: str, formula: Callable[..., Mapping[str, int]]) -> None:
    """Tell torch's ``FlopCounterMode`` what ``attention::<name>`` computes.

    Args:
        name: of the operator.
        formula: from the operator's arguments (the tensors themselves, as a plan depends on their devices) to
            multiply-adds by term, of all heads together.
    """
    operator = getattr(torch.ops.attention, name)

    def flops(*given: Any, out_val: Any = None, **named: Any) -> int:
        return 2 * sum(formula(*given, **named).values())

    if operator not in flop_registry:
        register_flop_formula(operator, get_raw=True)(flops)
