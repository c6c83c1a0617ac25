"""The kernels by name: what each computes, what it supports, what it costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from torch import Tensor

from attention.case import DTYPES, Case
from attention.costs import Costs, shown
from attention.kernels.adapting import adapt, only_mode, takes
from attention.kernels.extra_inputs import MakeInputs, checked_inputs, from_shapes

FAMILIES = ("standard", "linear")
"""The families that `standard_attention` and `linear_attention` choose from; any other name is one too."""
FUNCTIONS = {"linear-decay": "decay"}
"""What kernels of a family within another compute, where it is not what they are called."""
CLAIMS = ("standard", "linear", "window", "decay")
"""The functions that have an oracle here, by the name under which a kernel claims to compute one."""
SOUGHT, NONE = "sought", "none"
"""Instead of a claim: the function is looked for among those with an oracle; it is none of them."""
NAME = r"[A-Za-z][\w.-]{0,59}"
PRECISIONS = (*DTYPES, "tf32")
"""What a kernel may compute in: tf32 has the range of float32 and ten bits after the leading one."""


@dataclass(frozen=True)
class Reference:
    """A function of attention: its name, as records and reports tell it, and the oracle that computes it.

    ``function(q, k, v, *, causal, **inputs)`` is written like the equation, in float64; ``inputs`` are the
    names of the extra ones that it takes, None where it takes any. ``causal_only`` says that it has no
    bidirectional form. The other three give single rows of its output and of its gradients, which are exact
    at any length: see `references.rows`.
    """

    name: str
    function: Callable[..., Tensor]
    inputs: tuple[str, ...] | None = None
    causal_only: bool = False
    output_rows: Callable[..., Any] | None = None
    query_gradient_rows: Callable[..., Any] | None = None
    key_gradient_rows: Callable[..., Any] | None = None

    def takes(self, name: str) -> bool:
        """Whether the oracle takes an extra input."""
        return self.inputs is None or name in self.inputs

    def __call__(self, *args: Any, **options: Any) -> Tensor:
        """What the oracle computes."""
        return self.function(*args, **options)


@dataclass(frozen=True)
class Kernel:
    """One measured implementation.

    ``function(q, k, v, *, causal)`` takes ``[B, H, N, D]`` tensors and returns ``[B, H, N, Dv]``;
    kernels of standard attention also take ``scale``, those of linear attention ``feature_map`` and ``eps``.
    ``supports(case)`` is None, or the reason why the kernel cannot serve the case. ``costs(case)`` are its
    closed forms, unless it ``has_costs`` not. ``precision`` names what the kernel computes a
    dtype in, by the names of both, where that is coarser than the dtype: ``{"float32": "tf32"}``.
    ``reference`` is what it computes: a `Reference`, a name out of `CLAIMS`, `SOUGHT` or `NONE`.
    ``make_inputs(case)`` makes its inputs beside q, k and v, by the names of the function's arguments.
    ``step(q, k, v, state, *, feature_map, eps, in_place)`` computes new tokens behind a state; where it is
    None, a function that takes ``initial_state`` does so.
    """

    name: str
    function: Callable[..., Tensor]
    supports: Callable[[Case], str | None]
    costs: Callable[[Case], Costs]
    precision: Mapping[str, str] = field(default_factory=dict, hash=False)
    reference: Reference | str = NONE
    make_inputs: MakeInputs | None = None
    has_costs: bool = True
    step: Callable[..., Any] | None = None

    def takes(self, option: str) -> bool:
        """Whether the function has an argument of this name, or passes on whatever it gets."""
        return takes(self.function, option)

    def precision_of(self, dtype: str) -> str:
        """What the kernel computes in where its inputs are of this dtype."""
        return self.precision.get(dtype, dtype)

    def known_costs(self, case: Case) -> Costs | None:
        """The costs of a case; None where the kernel was registered without any."""
        return self.costs(case) if self.has_costs else None

    def extra_inputs(self, case: Case) -> dict[str, Any]:
        """The inputs of a case beside q, k and v."""
        return dict(self.make_inputs(case)) if self.make_inputs else {}

    @property
    def family(self) -> str:
        """The name up to its first dash."""
        return self.name.partition("-")[0]

    @property
    def backend(self) -> str:
        """The name without its family: what ``backend=`` takes."""
        return self.name.partition("-")[2]

    def __reduce__(self) -> tuple[Callable[..., Kernel], tuple[Any, ...]]:
        """A registered kernel is pickled as its name, as its functions may have none."""
        if _KERNELS.get(self.name) is self:
            return get_kernel, (self.name,)
        return Kernel, tuple(getattr(self, one.name) for one in fields(self))


_KERNELS: dict[str, Kernel] = {}


def supports_everything(case: Case) -> str | None:
    """No reason to refuse: the kernel serves every case."""
    return None


def _returning(
    wanted: type | tuple[type, ...], what: str, function: Callable[[Case], Any], case: Case
) -> Any:
    """What the function says of the case.

    Raises:
        TypeError: it is not what is wanted.
    """
    found = function(case)
    if not isinstance(found, wanted):
        raise TypeError(f"{what}, got {shown(found)}")
    return found


def register_kernel(
    name: str,
    function: Callable[..., Tensor],
    *,
    reference: Reference | Callable[..., Tensor] | str | None = None,
    costs: Callable[[Case], Costs] | None = None,
    supports: Callable[[Case], str | None] | None = None,
    make_inputs: MakeInputs | None = None,
    inputs: Mapping[str, str] | None = None,
    precision: Mapping[str, str] | None = None,
    step: Callable[..., Any] | None = None,
) -> Kernel:
    """Add a kernel; the suite then measures it like its own.

    Args:
        name: Its name. What stands before the first dash is its family.
        function: ``function(q, k, v, *, causal)`` from q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]`` to
            ``[B, H, N, Dv]``; ``causal`` may be called ``is_causal``, or be missing where it has one mode.
            An `nn.Module` is one as well.
        reference: The oracle to which it is held: a function of the same arguments, which gets float64
            tensors; one out of ``standard``, ``linear``, ``window`` and ``decay``, which it then claims to
            compute; ``sought``, to find out which of these it computes; or ``none``, to leave it unchecked.
            Kernels of families of these names claim theirs unless something else is said; what others
            compute is sought.
        costs: Its costs in closed form; without them, FLOPs are counted and bytes read.
        supports: Returns None, or the reason why a case cannot be served.
        make_inputs: Makes the inputs beside q, k and v, by the names of their arguments.
        inputs: In its place the shapes of such inputs, ``{"g": "[B, H, N]"}``; they are standard normal.
        precision: What it computes a dtype in where that is coarser: it is held to that, and reports tell it.
        step: Of linear attention, ``step(q, k, v, state, *, feature_map, eps, in_place)``, which returns the
            output of one or a few new tokens, and the state behind them.

    Raises:
        TypeError: an argument that is of no use, or a function that cannot be called so.
        ValueError: a name that is taken or cannot be one; a reference, dtype, precision or size that does
            not exist.
    """
    _check_name(name)
    _check_callables(name, costs=costs, supports=supports, make_inputs=make_inputs, step=step)
    if make_inputs and inputs:
        raise TypeError(f"{name} was given make_inputs and inputs; one of them says all")
    attend, chooses = adapt(name, function, None if make_inputs else inputs or ())
    make = checked_inputs(name, make_inputs) if make_inputs else from_shapes(name, inputs) if inputs else None
    refusals = [] if supports is None else [_checked_supports(name, supports)]
    refusals += [] if chooses else [only_mode(name, attend, make)]
    kernel = Kernel(
        name=name,
        function=attend,
        supports=partial(_first_refusal, refusals) if refusals else supports_everything,
        costs=partial(_returning, Costs, f"costs of {name} must return attention.Costs", costs)
        if costs
        else partial(_without_costs, name),
        precision=dict(precision or {}),
        reference=_reference(name, reference),
        make_inputs=make,
        has_costs=costs is not None,
        step=step,
    )
    _check_precision(kernel)
    _KERNELS[name] = kernel
    return kernel


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise ValueError(
            f"kernel name {name!r:.60} must be up to 60 letters, digits, dots, underscores and dashes, "
            "and begin with a letter"
        )
    if name in _KERNELS:
        raise ValueError(f"kernel {name!r} is registered already; choose another name")


def _check_callables(name: str, **given: object) -> None:
    for what, one in given.items():
        if one is not None and not callable(one):
            raise TypeError(f"{what} of {name} must be a function of a Case, got {type(one).__name__}")


def _checked_supports(name: str, supports: Callable[[Case], str | None]) -> Callable[[Case], str | None]:
    wanted = f"supports of {name} must return None or a reason as text"
    return partial(_returning, (str, type(None)), wanted, supports)


def _first_refusal(refusals: Sequence[Callable[[Case], str | None]], case: Case) -> str | None:
    return next((reason for refuse in refusals if (reason := refuse(case))), None)


def _without_costs(name: str, case: Case) -> Costs:
    raise ValueError(f"{name} was registered without costs")


def _reference(name: str, given: object) -> Reference | str:
    """What a kernel is held to."""
    if given is None:
        family = name.partition("-")[0]
        return family if family in CLAIMS else SOUGHT
    if isinstance(given, Reference) or (isinstance(given, str) and given in (*CLAIMS, SOUGHT, NONE)):
        return given
    if callable(given):
        return Reference(name=getattr(given, "__qualname__", type(given).__name__), function=given)
    raise ValueError(
        f"reference of {name} must be a function or one of {', '.join((*CLAIMS, SOUGHT, NONE))}, "
        f"got {given!r:.60}"
    )


def _check_precision(kernel: Kernel) -> None:
    for known, given in ((DTYPES, kernel.precision), (PRECISIONS, kernel.precision.values())):
        if wrong := [one for one in given if one not in known]:
            raise ValueError(
                f"precision of {kernel.name} maps dtypes to what it computes in, and {wrong[0]!r} is none of "
                f"{', '.join(known)}"
            )


def list_kernels(family: str | None = None) -> list[str]:
    """The names of all kernels, or of one family: standard, then linear, then others; each as registered."""
    names = [name for name, kernel in _KERNELS.items() if family in (None, kernel.family)]
    order = {known: place for place, known in enumerate(FAMILIES)}
    return sorted(names, key=lambda name: order.get(_KERNELS[name].family, len(FAMILIES)))


def backends(family: str) -> list[str]:
    """The backends that compute the function of a family: from q, k and v, with decay from gates as well."""
    begin, claim = f"{family}-", FUNCTIONS.get(family, family)
    return [
        name.removeprefix(begin)
        for name, one in _KERNELS.items()
        if name.startswith(begin) and one.reference == claim and bool(one.make_inputs) == (claim == "decay")
    ]


def get_kernel(name: str) -> Kernel:
    """The kernel of this name.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if name not in _KERNELS:
        raise ValueError(f"kernel {name!r} does not exist; choose one of {', '.join(list_kernels())}")
    return _KERNELS[name]
