"""A function of attention as its author wrote it, called as all kernels are: function(q, k, v, *, causal)."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache, wraps
from typing import Any

import torch
from torch import Tensor, nn

from attention.case import Case, make_inputs
from attention.kernels.extra_inputs import MakeInputs
from attention.torch_internals.transforms import constant_when_compiled

CAUSAL = ("causal", "is_causal")
"""Names of the argument that chooses the mode."""
FORM = "function(q, k, v, *, causal)"
LOUD, LEAST_EFFECT = 1000.0, 1e-3
"""The last value that is put in, and the share of its effect on its own output that shows in others."""
PROBED = 512
"""The most tokens on which it is found out whether a function looks ahead."""

Attend = Callable[..., Tensor]


def adapt(name: str, function: Any, given: Collection[str] | None) -> tuple[Attend, bool]:
    """A function that takes ``(q, k, v, *, causal, **inputs)``, and whether it has an argument for the mode.

    Args:
        name: The kernel's, for messages.
        function: Any callable that takes q, k and v first, or an `nn.Module`, of which each device and dtype
            gets a copy with fixed parameters. The mode is its argument ``causal`` or ``is_causal``, by
            position or by name, if it has one.
        given: Names of its inputs beside q, k and v; None where nobody knows them before they are made.

    Raises:
        TypeError: It cannot be called so.
    """
    if not callable(function):
        raise TypeError(f"{name} must be a function, {FORM}, got {type(function).__name__}")
    parameters = _parameters(function)
    if parameters is None:
        return _without_signature(function), True
    _check(name, parameters, given)
    attend = _on_its_device(function) if isinstance(function, nn.Module) else function
    causal = _causal(parameters, getattr(function, "keywords", ()))
    if causal == "causal":
        return attend, True

    def call(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, **inputs: Any) -> Tensor:
        return attend(q, k, v, **inputs)

    def call_named(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, **inputs: Any) -> Tensor:
        return attend(q, k, v, is_causal=causal, **inputs)

    def call_in_place(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, **inputs: Any) -> Tensor:
        return attend(q, k, v, causal, **inputs)

    chosen = {None: call, "is_causal": call_named, "position": call_in_place}[causal]
    if inspect.isroutine(function):
        chosen.__module__, chosen.__qualname__ = function.__module__, function.__qualname__
    return chosen, causal is not None


@constant_when_compiled  # torch's compiler mistakes a default that was read before the call for a tensor
def takes(function: Attend, option: str) -> bool:
    """Whether a function has an argument of this name, or passes on whatever it gets."""
    parameters = _parameters(function) or []
    return any(one.name == option or one.kind is one.VAR_KEYWORD for one in parameters)


def _without_signature(function: Any) -> Attend:
    """A compiled function does not tell its arguments: the mode is tried by its names."""

    def call(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, **inputs: Any) -> Tensor:
        for name in CAUSAL:
            try:
                out: Tensor = function(q, k, v, **{name: causal}, **inputs)
                return out
            except TypeError as error:
                if name not in str(error) and "keyword" not in str(error):
                    raise
        raise TypeError(f"it takes neither {CAUSAL[0]} nor {CAUSAL[1]}; wrap it in a function, {FORM}")

    return call


def _parameters(function: Any) -> list[inspect.Parameter] | None:
    """The parameters of a callable, None where it tells none."""
    try:
        called = function.forward if isinstance(function, nn.Module) else function
        return list(inspect.signature(called).parameters.values())
    except (TypeError, ValueError):
        return None


def _check(name: str, parameters: list[inspect.Parameter], given: Collection[str] | None) -> None:
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    variable = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    shown = ", ".join(map(str, parameters))
    if len(positional) < 3 and not variable:
        raise TypeError(f"{name} must take q, k and v first, {FORM}; it takes ({shown:.100})")
    if given is None:
        return
    named = any(one.kind is one.VAR_KEYWORD for one in parameters)
    unknown = set() if named else set(given) - {one.name for one in parameters}
    if unknown:
        raise TypeError(
            f"{name} takes no {min(unknown)}, for which inputs were given; it takes ({shown:.100})"
        )
    missing = [
        one.name
        for one in parameters
        if one.default is one.empty
        and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        and one not in positional[:3]
        and one.name not in (*CAUSAL, *given)
    ]
    if missing:
        raise TypeError(
            f"{name} takes {missing[0]} beside q, k and v, and nothing gives it; give its shape, "
            f"inputs={{{missing[0]!r}: '[B, H, N]'}}, or make_inputs(case), which makes it"
        )


def _causal(parameters: list[inspect.Parameter], bound: Collection[str]) -> str | None:
    """How the mode is given: by either name, by "position", or not at all, as where it is bound already."""
    for one in parameters:
        if one.name in CAUSAL and one.name not in bound:
            return "position" if one.kind is one.POSITIONAL_ONLY else one.name
    # A function that passes on whatever it gets.
    return "causal" if any(one.kind is one.VAR_KEYWORD for one in parameters) else None


def _on_its_device(module: nn.Module) -> Attend:
    @lru_cache
    def placed(device: torch.device, dtype: torch.dtype) -> nn.Module:
        return deepcopy(module).to(device=device, dtype=dtype).requires_grad_(False)

    @wraps(type(module).forward)
    def attend(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **named: Any) -> Tensor:
        out: Tensor = placed(q.device, q.dtype)(q, k, v, *rest, **named)
        return out

    return attend


def only_mode(name: str, function: Attend, make: MakeInputs | None) -> Callable[[Case], str | None]:
    """The refusal of the mode that a function without an argument for it does not have.

    Whether it looks ahead is found out by changing the last token: only a bidirectional function lets the
    earlier outputs know.
    """

    @lru_cache
    def looks_ahead(probe: Case) -> bool | None:
        q, k, v = make_inputs(probe)
        last = torch.tensor([probe.seq_len - 1], device=q.device)
        changed = [x.index_fill(2, last, size) for x, size in ((q, 3), (k, 3), (v, LOUD))]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                inputs = dict(make(probe)) if make else {}
                before, after = (function(*x, causal=False, **inputs) for x in ((q, k, v), changed))
            effects = (before - after).abs().float()
            # What rounding does to the earlier outputs, as where all share a largest score, is no look ahead.
            return bool(effects[..., :-1, :].max() > LEAST_EFFECT * effects[..., -1:, :].max())
        except Exception:  # the case itself will tell
            return None

    def refusal(case: Case) -> str | None:
        tokens = min(case.seq_len, PROBED)
        if tokens < 2 or (case.phase == "decode" and case.queries == 1):  # one query sees every key
            return None
        ahead = looks_ahead(
            replace(case, mode="bidirectional", phase="forward", seq_len=tokens, query_len=None)
        )
        if ahead is None or ahead != case.causal:
            return None
        has, sees = ("bidirectional", "every token") if ahead else ("causal", "no later token")
        return f"{name} has no argument causal; it is {has}, as each of its outputs sees {sees}"

    return refusal
