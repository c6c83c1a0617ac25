"""DTensors whose sequence is cut along one dimension of their mesh, and their local parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from attention.inputs import describe

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

SEQUENCE = 2
"""The dimension of the sequence in ``[B, H, N, D]``."""


def distributed_kind(q: object, k: object, v: object) -> bool:
    """Whether q, k and v are DTensors.

    Raises:
        TypeError: some of them are.
    """
    # The class is asked by its name first: importing DTensor takes a second.
    found = [type(x).__name__ == "DTensor" for x in (q, k, v)]
    if any(found) and not all(found):
        kinds = ", ".join(
            f"{name} {'a DTensor' if one else describe(x)}"
            for name, one, x in zip("qkv", found, (q, k, v), strict=True)
        )
        raise TypeError(f"q, k and v must all be DTensors, or none of them; got {kinds}")
    return all(found)


class Layout(NamedTuple):
    """How the output lies over a mesh, and the ranks that share a sequence."""

    mesh: Any
    placements: tuple[Any, ...]
    shape: torch.Size
    group: ProcessGroup

    def joined(self, out: Tensor) -> Tensor:
        """The DTensor of which ``out`` is this rank's part."""
        from torch.distributed.tensor import DTensor

        _, heads, tokens, width = self.shape
        stride = heads * tokens * width, tokens * width, width, 1
        return DTensor.from_local(
            out.contiguous(), self.mesh, self.placements, run_check=False, shape=self.shape, stride=stride
        )


def gathered_layout(q: Any, k: Any, v: Any, mesh: DeviceMesh | None, group: object) -> Layout:
    """The layout of the output, which is that of q with the width of v.

    Raises:
        ValueError: a mesh or group beside that of the DTensors, DTensors of several meshes or cut
            differently, or not cut along the sequence by exactly one dimension of the mesh.
    """
    from torch.distributed.tensor import Shard

    if mesh is not None or group is not None:
        raise ValueError("DTensors bring their mesh; leave mesh and group out")
    if not (q.device_mesh == k.device_mesh == v.device_mesh and q.placements == k.placements == v.placements):
        found = "; ".join(f"{name} {x.placements}" for name, x in (("q", q), ("k", k), ("v", v)))
        raise ValueError(f"q, k and v must lie alike over one mesh; got {found}")
    along = [at for at, one in enumerate(q.placements) if one == Shard(SEQUENCE)]
    fine = all(one.is_replicate() or one in map(Shard, range(SEQUENCE + 1)) for one in q.placements)
    if len(along) != 1 or not fine:
        raise ValueError(
            "q, k and v must be cut along the sequence, Shard(2), by one dimension of the mesh, and by the "
            f"others along batch or heads or not at all; got {q.placements}"
        )
    shape = torch.Size((*q.shape[:3], v.shape[3]))
    return Layout(q.device_mesh, q.placements, shape, q.device_mesh.get_group(along[0]))


def local_parts(q: Any, k: Any, v: Any) -> tuple[Tensor, Tensor, Tensor]:
    """This rank's parts; their gradients are parts of DTensors again."""
    return q.to_local(), k.to_local(), v.to_local()
