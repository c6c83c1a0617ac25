"""What sequence-parallel attention takes, each thing else refused in a sentence of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh

from attention.inputs import describe
from attention.kernels.forms.masks import values_of


def chosen_group(mesh: object, group: object) -> ProcessGroup:
    """The ranks that share the sequence.

    Raises:
        TypeError: another kind of object.
        ValueError: both were given, a mesh of several dimensions, or a group without this rank.
        RuntimeError: there is no process group yet.
    """
    if mesh is not None and group is not None:
        raise ValueError("mesh and group were given, and either names the ranks; give one of them")
    if mesh is not None:
        if not isinstance(mesh, DeviceMesh):
            raise TypeError(f"mesh must be a DeviceMesh, got {type(mesh).__name__}")
        if mesh.ndim != 1:
            names = mesh.mesh_dim_names or ("cp",)
            raise ValueError(
                f"mesh must have one dimension, along which the sequence is cut, and has {mesh.ndim}; give a "
                f"slice of it, as mesh[{names[-1]!r}]"
            )
        return mesh.get_group()
    if group is None:
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError(
                "there is no process group; call torch.distributed.init_process_group() first, and start "
                "the ranks with torchrun"
            )
        return dist.group.WORLD  # type: ignore[return-value]
    if group is dist.GroupMember.NON_GROUP_MEMBER:
        raise ValueError("this rank is no member of the group; only members call")
    if not isinstance(group, ProcessGroup):
        raise TypeError(f"group must be a ProcessGroup, got {type(group).__name__}")
    return group


def check_lengths(q: Tensor, k: Tensor, causal: bool, parts: object) -> None:
    """Refuse what one sequence over all ranks cannot have.

    Raises:
        ValueError: ``parts`` without packed sequences, or causal queries without a key of their own.
    """
    if parts is not None:
        raise ValueError("parts are of packed sequences; without cu_seqlens ranks need not know them")
    if causal and q.shape[2] != k.shape[2]:
        raise ValueError(
            "where causal each rank holds a key for each of its queries; "
            f"got q {list(q.shape)}, k {list(k.shape)}"
        )


def check_packed(
    cu_seqlens: object, parts: Sequence[int] | None, q: Tensor, k: Tensor, group: ProcessGroup
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ends of the sequences and the tokens of each rank.

    Raises:
        TypeError: no tensor of integers, or parts that are none.
        ValueError: ends that do not ascend from 0 to the tokens of all ranks, or parts that are not those of
            as many ranks, or not of this one.
    """
    if not isinstance(cu_seqlens, Tensor) or cu_seqlens.dtype not in (torch.int32, torch.int64):
        found = cu_seqlens.dtype if isinstance(cu_seqlens, Tensor) else describe(cu_seqlens)
        raise TypeError(f"cu_seqlens must be a tensor of int32 or int64 [sequences + 1]; got {found}")
    if q.shape[0] != 1 or q.shape[2] != k.shape[2] or cu_seqlens.dim() != 1:
        raise ValueError(
            "packed sequences are [1, H, tokens, D], as many queries as keys, cu_seqlens is [sequences + 1]; "
            f"got q {list(q.shape)}, k {list(k.shape)}, cu_seqlens {list(cu_seqlens.shape)}"
        )
    here, ranks = q.shape[2], group.size()
    try:
        tokens = (here,) * ranks if parts is None else tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        raise TypeError(f"parts must be the tokens of each rank, got {parts!r:.60}") from None
    if len(tokens) != ranks or min(tokens) < 0 or tokens[group.rank()] != here:
        raise ValueError(
            f"parts must be the tokens of each of {ranks} ranks, of this one ({group.rank()}) {here}; "
            f"got {f'{list(tokens)}':.60}"
        )
    ends = tuple(values_of(cu_seqlens))
    if not ends or ends[0] != 0 or ends[-1] != sum(tokens) or any(a > b for a, b in pairwise(ends)):
        raise ValueError(
            f"cu_seqlens must ascend from 0 to the {sum(tokens)} tokens of all ranks, which is as many on "
            f"each as here unless parts say otherwise; got {f'{list(ends[:8])}':.60}"
        )
    return ends, tokens
