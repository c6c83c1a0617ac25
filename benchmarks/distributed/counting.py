"""The bytes of collectives that were issued, and calls from which they are left out.

Both look at operators as torch dispatches them, in a backward as well, so that they see what any function
exchanges: ours, or torch's own context parallelism.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch import distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

FUNCTIONAL = ("_c10d_functional", "_c10d_functional_autograd")
NAMESPACES = (*FUNCTIONAL, "c10d")
WAITS = ("wait_tensor", "barrier", "monitored_barrier_")


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()


def _gathered(x: Tensor, ranks: int, *_: Any) -> int:
    return (ranks - 1) * _bytes(x)


def _all_reduced(x: Tensor, *_: Any) -> int:
    """The least bytes that a rank receives in an all-reduce: what its share lacks, and the other shares."""
    ranks = dist.get_world_size()
    return 2 * (ranks - 1) * _bytes(x) // ranks


def _scattered(x: Tensor, operation: str, ranks: int, *_: Any) -> int:
    return (ranks - 1) * _bytes(x) // ranks


def _swapped(x: Tensor, received: Sequence[int], *_: Any) -> int:
    """The bytes that come from other ranks in an all-to-all."""
    own = received[dist.get_rank()]
    return (sum(received) - own) * _bytes(x) // max(1, x.shape[0])


RECEIVED: Mapping[str, Callable[..., int]] = {
    "all_gather_into_tensor": _gathered,
    "all_reduce": _all_reduced,
    "reduce_scatter_tensor": _scattered,
    "all_to_all_single": _swapped,
}
"""What a rank receives of each collective of all ranks, by its arguments."""


def _made_up(name: str, arguments: Sequence[Any]) -> Tensor:
    """A result of the shape of a collective's, of numbers that are at hand."""
    x: Tensor = arguments[0]
    if name == "all_gather_into_tensor":
        return x.repeat(arguments[1], *(1,) * (x.dim() - 1))
    if name == "reduce_scatter_tensor":
        return x[: x.shape[0] // arguments[2]].clone()
    if name == "all_to_all_single":
        return x[: sum(arguments[1])].clone()
    return x.clone()


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A block in which the bytes that this rank receives by collectives of all ranks are counted.

    Attributes:
        bytes: What it received; of an all-reduce the least that any algorithm takes.
        calls: How many collectives were issued.
        unknown: Names of collectives whose bytes are not known; ``bytes`` are then too few.
    """

    def __init__(self, *, leave_out: bool = False) -> None:
        """Nothing is counted yet; ``leave_out`` whether results are made up, and nothing is exchanged."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.calls = 0
        self.unknown: set[str] = set()
        self._leave_out = leave_out

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        from torch.distributed.tensor import DTensor

        if any(issubclass(one, DTensor) for one in types):  # it dispatches its parts again
            return NotImplemented
        namespace, _, name = func._schema.name.partition("::")
        if namespace not in NAMESPACES:
            return func(*args, **(kwargs or {}))
        if name == "wait_tensor" and self._leave_out:
            return args[0]
        wraps = namespace in FUNCTIONAL and name.startswith("_")  # a tensor, and sends nothing
        if name not in WAITS and not wraps:
            self._count(name, args)
            if self._leave_out and name in RECEIVED:
                return _made_up(name, args)
        return func(*args, **(kwargs or {}))

    def _count(self, name: str, arguments: Sequence[Any]) -> None:
        self.calls += 1
        if name in RECEIVED:
            self.bytes += RECEIVED[name](*arguments)
        else:
            self.unknown.add(name)
