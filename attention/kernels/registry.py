"""The kernels by name: what each computes, what it supports, what it costs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from attention.case import DTYPES, Case

FAMILIES = ("standard", "linear")
PRECISIONS = (*DTYPES, "tf32")
"""What a kernel may compute in: tf32 has the range of float32 and ten bits after the leading one."""


@dataclass(frozen=True)
class Costs:
    """The costs of one call of a kernel, in closed form.

    ``terms`` are the multiply-adds of its matrix products by name, as executed; elementwise work
    (feature maps, exponentials, sums) is left out, as in torch's ``FlopCounterMode``. That counter
    misses the ``uncounted`` and adds the ``overcounted``. ``min_bytes`` reads each input once and
    writes each output once. ``peak_bytes`` is the most memory held above the inputs, results included.
    ``masked_macs`` of the executed ones fall on masked scores.

    Raises:
        TypeError: an amount that is no ``int``, or terms that are no mapping.
        ValueError: an amount that is negative or beyond every float, or more masked MACs than executed ones.
    """

    terms: Mapping[str, int]
    min_bytes: int
    peak_bytes: int
    uncounted: Mapping[str, int] = field(default_factory=dict)
    overcounted: Mapping[str, int] = field(default_factory=dict)
    masked_macs: int = 0

    def __post_init__(self) -> None:
        amounts: dict[str, Any] = {
            name: getattr(self, name) for name in ("min_bytes", "peak_bytes", "masked_macs")
        }
        for part in ("terms", "uncounted", "overcounted"):
            terms = getattr(self, part)
            if not isinstance(terms, Mapping):
                raise TypeError(f"{part} of costs must map names to amounts, got {_shown(terms)}")
            amounts |= {f"{part}[{name!r}]": amount for name, amount in terms.items()}
        for name, amount in amounts.items():
            if not isinstance(amount, int) or isinstance(amount, bool):
                raise TypeError(f"{name} of costs must be an int, got {_shown(amount)}")
        derived = {name: getattr(self, name) for name in ("flops", "useful_flops", "countable_flops")}
        for name, amount in (amounts | derived).items():
            if not 0 <= amount <= sys.float_info.max:
                raise ValueError(
                    f"{name} of costs must be at least 0 and a finite float, got {_shown(amount)}"
                )

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return sum(self.terms.values())

    @property
    def flops(self) -> int:
        """FLOPs: two for each multiply-add."""
        return 2 * self.macs

    @property
    def useful_flops(self) -> int:
        """FLOPs without the products of masked scores, which a causal kernel executes and throws away."""
        return 2 * (self.macs - self.masked_macs)

    @property
    def countable_flops(self) -> int:
        """FLOPs that torch's counter finds."""
        return 2 * (self.macs - sum(self.uncounted.values()) + sum(self.overcounted.values()))


def _shown(value: object) -> str:
    """A value in a message: numbers as they are, unless they are long, and the type of anything else."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    return repr(value) if value is None or isinstance(value, int | float) else type(value).__name__


@dataclass(frozen=True)
class Kernel:
    """One measured implementation.

    ``function(q, k, v, *, causal)`` takes ``[B, H, N, D]`` tensors and returns ``[B, H, N, Dv]``;
    kernels of the standard family also take ``scale``, those of the linear family ``feature_map``
    and ``eps``. ``supports(case)`` is None, or the reason why the kernel cannot serve the case.
    ``precision`` names what the kernel computes a dtype in, by the names of both, where that is coarser than
    the dtype: ``{"float32": "tf32"}``.
    """

    name: str
    function: Callable[..., Tensor]
    supports: Callable[[Case], str | None]
    costs: Callable[[Case], Costs]
    precision: Mapping[str, str] = field(default_factory=dict, hash=False)

    def precision_of(self, dtype: str) -> str:
        """What the kernel computes in where its inputs are of this dtype."""
        return self.precision.get(dtype, dtype)

    @property
    def family(self) -> str:
        """``standard`` or ``linear``."""
        return self.name.partition("-")[0]

    @property
    def backend(self) -> str:
        """The name without its family: what ``backend=`` takes."""
        return self.name.partition("-")[2]

    def __reduce__(self) -> tuple[Callable[..., Kernel], tuple[Any, ...]]:
        """A registered kernel is pickled as its name, as its functions may have none."""
        if _KERNELS.get(self.name) is self:
            return get_kernel, (self.name,)
        return Kernel, (self.name, self.function, self.supports, self.costs, self.precision)


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
        raise TypeError(f"{what}, got {_shown(found)}")
    return found


def register_kernel(
    name: str,
    function: Callable[..., Tensor],
    *,
    costs: Callable[[Case], Costs],
    supports: Callable[[Case], str | None] = supports_everything,
    precision: Mapping[str, str] | None = None,
) -> Kernel:
    """Add a kernel under ``<family>-<backend>``; the suite then measures it like its own.

    It is held to the precision that it states, which reports tell.

    Raises:
        ValueError: a name that is taken, or without a known family and a backend; a dtype or a precision that
            does not exist.
    """
    kernel = Kernel(
        name=name,
        function=function,
        supports=partial(
            _returning,
            (str, type(None)),
            f"supports of {name} must return None or a reason as text",
            supports,
        ),
        precision=dict(precision or {}),
        costs=partial(_returning, Costs, f"costs of {name} must return attention.Costs", costs),
    )
    if kernel.family not in FAMILIES or not kernel.backend:
        raise ValueError(
            f"kernel name {name!r} must be a family ({' or '.join(FAMILIES)}), a dash and a backend"
        )
    for known, given in ((DTYPES, kernel.precision), (PRECISIONS, kernel.precision.values())):
        if wrong := [one for one in given if one not in known]:
            raise ValueError(
                f"precision of {name} maps dtypes to what it computes in, and {wrong[0]!r} is none of "
                f"{', '.join(known)}"
            )
    if name in _KERNELS:
        raise ValueError(f"kernel {name!r} is registered already; choose another name")
    _KERNELS[name] = kernel
    return kernel


def list_kernels(family: str | None = None) -> list[str]:
    """The names of all kernels, or of one family: standard before linear, then as registered."""
    names = [name for name, kernel in _KERNELS.items() if family in (None, kernel.family)]
    return sorted(names, key=lambda name: FAMILIES.index(_KERNELS[name].family))


def get_kernel(name: str) -> Kernel:
    """The kernel of this name.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if name not in _KERNELS:
        raise ValueError(f"kernel {name!r} does not exist; choose one of {', '.join(list_kernels())}")
    return _KERNELS[name]
