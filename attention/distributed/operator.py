"""Linear attention over a sequence that several ranks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh

from attention import functional
from attention.choosing import select
from attention.distributed.checks import check_lengths, check_packed, chosen_group
from attention.distributed.exchange import (
    StateExchange,
    Tied,
    as_state,
    read_rows,
    total_state,
)
from attention.distributed.routes import Piece, cut, of_packed, of_prefixes, read, sent
from attention.distributed.tensors import distributed_kind, gathered_layout, local_parts
from attention.fast_path import recalled, remember
from attention.inputs import check_number
from attention.kernels.feature_maps import FeatureMap, mapped_before
from attention.state import State

Pass = Callable[..., Any]
"""A kernel's function with its feature map and eps."""


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mesh: DeviceMesh | None = None,
    group: ProcessGroup | None = None,
    causal: bool = False,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-6,
    cu_seqlens: Tensor | None = None,
    parts: Sequence[int] | None = None,
    backend: str = "auto",
) -> Tensor:
    """`attention.linear_attention` of a sequence that ranks share, each a contiguous part, in their order.

    Ranks exchange states: forward one all-gather, bidirectional one all-reduce, and in a backward one more
    of the gradients of these. What a rank receives in each does not depend on N: causal (P - 1) B Hkv D
    (Dv + 1) numbers of float32 for P ranks, bidirectional 2 (P - 1) / P of B Hkv D (Dv + 1) at least; of
    packed sequences (P - 1), bidirectional 2 (P - 1), of Hkv D (Dv + 1).

    All ranks of the group call it, with and without gradients alike, and all of them run the backward, or
    the others wait for the one that does not.

    Args:
        q: queries of this rank, ``[B, Hq, Nq, D]``; of plain tensors or of DTensors, as k and v. Ranks may
            hold unequal numbers of tokens, or none.
        k: keys ``[B, Hkv, Nk, D]``, where causal as many as queries.
        v: values ``[B, Hkv, Nk, Dv]``.
        mesh: of one dimension, along which the sequence is cut: a slice ``mesh["cp"]`` of a larger one, whose
            other dimensions cut batch or heads. DTensors bring their own.
        group: the ranks in its place; unless either is given, all of them.
        causal: whether a query sees only the keys up to its own.
        feature_map: phi, as of `attention.linear_attention`.
        eps: added to the normaliser; finite, at least 0.
        cu_seqlens: ``[sequences + 1]`` integers, ascending from 0 to the tokens of all ranks: where
            sequences packed into ``[1, H, total, D]`` begin, and the last ends. Ranks may be cut anywhere. On
            a card its values are waited for.
        parts: the tokens of each rank, of packed sequences; as many as here on all unless given.
        backend: a kernel's name without its family, or ``auto``, as of `attention.linear_attention`.

    Returns:
        This rank's part of the output, ``[B, Hq, Nq, Dv]`` in the dtype of the inputs; of DTensors a DTensor
        that is cut as q is.

    A single rank computes what `attention.linear_attention` does, bit for bit. Sums over ranks are in their
    order: two calls give the same bits. Differentiated once, in reverse mode.

    Raises:
        TypeError: tensors or options of another kind.
        ValueError: shapes that do not fit together, a mesh of several dimensions, DTensors that are not cut
            along the sequence, or a backend that cannot serve these inputs.
        RuntimeError: torch has no distributed, or its process group was not made.
    """
    if distributed_kind(q, k, v):
        layout = gathered_layout(q, k, v, mesh, group)
        return layout.joined(
            linear_attention(
                *local_parts(q, k, v),
                group=layout.group,
                causal=causal,
                feature_map=feature_map,
                eps=eps,
                cu_seqlens=cu_seqlens,
                parts=parts,
                backend=backend,
            )
        )
    group = chosen_group(mesh, group)
    options = backend, causal, feature_map, eps, "of ranks"
    plain = cu_seqlens is None and parts is None and group.size() > 1
    if plain and (again := recalled((q, k, v), *options)) is not None:
        repeated: Tensor = again(q, k, v, StateExchange(group, causal))
        return repeated
    if type(eps) is not float or not 0 <= eps < inf:
        eps = check_number("eps", eps, least=0)
    if group.size() == 1:
        return functional.linear_attention(
            q, k, v, causal=causal, feature_map=feature_map, eps=eps, cu_seqlens=cu_seqlens, backend=backend
        )
    q, k, v, function = select("linear", backend, q, k, v, causal, takes=("initial_state", "return_state"))
    dtype = v.dtype
    q, k, v, phi = mapped_before(feature_map, q, k, v)
    attend = partial(function, feature_map=phi, eps=eps)
    if cu_seqlens is not None:
        out = _packed(attend, q, k, v, causal, group, *check_packed(cu_seqlens, parts, q, k, group))
    else:
        check_lengths(q, k, causal, parts)
        shared = getattr(function, "shared", None)  # a kernel's own form, which no compiler sees into
        if shared and q.numel() and v.numel() and not torch.compiler.is_compiling():
            out = shared(q, k, v, StateExchange(group, causal), causal=causal, phi=phi, eps=eps)
            if plain and phi == feature_map:
                remember(shared, (q, k, v), options, q, k, v, causal, phi, eps)
        else:
            out = (_causal if causal else _bidirectional)(attend, q, k, v, group)
    return out if out.dtype is dtype else out.to(dtype)


def _state(attend: Pass, k: Tensor, v: Tensor, q: Tensor) -> State:
    """The state of keys and values alone: no query reads it."""
    state: State = attend(q[:, :, :0], k, v, causal=False, return_state=True)[1]
    return state


def _causal(attend: Pass, q: Tensor, k: Tensor, v: Tensor, group: ProcessGroup) -> Tensor:
    routes = of_prefixes(group.rank(), group.size())
    own = _state(attend, k, v, q)
    (before,) = read_rows([own], group, routes)
    out: Tensor = attend(q, k, v, causal=True, initial_state=as_state(before, own))
    return out


def _bidirectional(attend: Pass, q: Tensor, k: Tensor, v: Tensor, group: ProcessGroup) -> Tensor:
    """Every query sees the state of all tokens, so that no key is read twice."""
    total = total_state(_state(attend, k, v, q), group)
    out: Tensor = attend(q, k[:, :, :0], v[:, :, :0], causal=False, initial_state=total)
    return out


def _packed(
    attend: Pass, q: Tensor, k: Tensor, v: Tensor, causal: bool, group: ProcessGroup,
    ends: tuple[int, ...], parts: tuple[int, ...],
) -> Tensor:  # fmt: skip
    """Pieces of sequences that other ranks share one by one, with a state; what lies between them at once."""
    rank = group.rank()
    pieces = cut(ends, parts)[rank]

    def of(piece: Piece | None) -> tuple[Tensor, Tensor, Tensor]:
        place = slice(piece.start, piece.stop) if piece else slice(0)
        return q[:, :, place], k[:, :, place], v[:, :, place]

    own = [_state(attend, *of(piece)[1:], q) for piece in sent(pieces, causal=causal)]
    rows = read_rows(own, group, of_packed(ends, parts, rank, causal=causal))
    before = {
        piece: as_state(row, own[0])
        for piece, row in zip(read(pieces, causal=causal), rows, strict=True)
        if piece is not None
    }
    outputs = [q[:, :, :0, :1].expand(-1, -1, -1, v.shape[-1])]
    inner: list[Piece] = []
    for piece in pieces:
        if piece in before:
            outputs += _at_once(attend, inner, q, k, v, causal)
            outputs.append(attend(*of(piece), causal=causal, initial_state=before[piece]))
            inner = []
        else:
            inner.append(piece)
    out = torch.cat([*outputs, *_at_once(attend, inner, q, k, v, causal)], 2)
    # A rank that reads no state still takes part in the backward, where others wait for it.
    return Tied.apply(out, rows)  # type: ignore[no-any-return, no-untyped-call]


def _at_once(
    attend: Pass, pieces: Sequence[Piece], q: Tensor, k: Tensor, v: Tensor, causal: bool
) -> list[Tensor]:
    """The output of neighbouring pieces that need nothing of other ranks."""
    if not pieces:
        return []
    first, last = pieces[0].start, pieces[-1].stop
    ends = torch.tensor([first, *(piece.stop for piece in pieces)], dtype=torch.int32) - first
    cut = (x[:, :, first:last] for x in (q, k, v))
    return [attend(*cut, causal=causal, cu_seqlens=ends)]
