"""The kernels by name: what each computes, what it supports, what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from attention.case import Case

FAMILIES = ("standard", "linear")


@dataclass(frozen=True)
class Costs:
    """The costs of one call of a kernel, in closed form.

    ``terms`` are the multiply-adds of its matrix products by name, as executed; elementwise work
    (feature maps, exponentials, sums) is left out, as in torch's ``FlopCounterMode``. That counter
    misses the ``uncounted`` and adds the ``overcounted``. ``min_bytes`` reads each input once and
    writes each output once. ``peak_bytes`` is the most memory held above the inputs, results included.
    ``masked_macs`` of the executed ones fall on masked scores.
    """

    terms: Mapping[str, int]
    min_bytes: int
    peak_bytes: int
    uncounted: Mapping[str, int] = field(default_factory=dict)
    overcounted: Mapping[str, int] = field(default_factory=dict)
    masked_macs: int = 0

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


@dataclass(frozen=True)
class Kernel:
    """One measured implementation.

    ``function(q, k, v, *, causal)`` takes ``[B, H, N, D]`` tensors and returns ``[B, H, N, Dv]``;
    kernels of the standard family also take ``scale``, those of the linear family ``feature_map``
    and ``eps``. ``supports(case)`` is None, or the reason why the kernel cannot serve the case.
    """

    name: str
    function: Callable[..., Tensor]
    supports: Callable[[Case], str | None]
    costs: Callable[[Case], Costs]

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
        return Kernel, (self.name, self.function, self.supports, self.costs)


_KERNELS: dict[str, Kernel] = {}


def supports_everything(case: Case) -> str | None:
    """No reason to refuse: the kernel serves every case."""
    return None


def register_kernel(
    name: str,
    function: Callable[..., Tensor],
    *,
    costs: Callable[[Case], Costs],
    supports: Callable[[Case], str | None] = supports_everything,
) -> Kernel:
    """Add a kernel under ``<family>-<backend>``; the suite then measures it like its own.

    Raises:
        ValueError: a name that is taken, or without a known family and a backend.
    """
    kernel = Kernel(name=name, function=function, supports=supports, costs=costs)
    if kernel.family not in FAMILIES or not kernel.backend:
        raise ValueError(
            f"kernel name {name!r} must be a family ({' or '.join(FAMILIES)}), a dash and a backend"
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
