"""The oracle of linear attention, written like the recurrence."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, overload

import torch
from torch import Tensor

from attention.kernels.feature_maps import FeatureMap, get_feature_map
from attention.state import State


@overload
def linear_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-6,
    key_padding_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: State | None = None,
    return_state: Literal[False] = False,
    dtype: torch.dtype = torch.float64,
) -> Tensor: ...


@overload
def linear_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-6,
    key_padding_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: State | None = None,
    return_state: Literal[True],
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, State]: ...


def linear_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-6,
    key_padding_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: State | None = None,
    return_state: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Tensor | tuple[Tensor, State]:
    """The recurrence, a key at a time: S += phi(k)v', z += phi(k), o = phi(q)S / (phi(q).z + eps).

    Causal, query i reads the state after key i + Nk - Nq, before the first key the initial one;
    bidirectional, every query reads the last state. A key that ``key_padding_mask [B, Nk]`` marks adds
    nothing. Each packed sequence (``cu_seqlens``) begins with a state of its own.

    ``[B, Hq, Nq, D]``, ``[B, Hkv, Nk, D]``, ``[B, Hkv, Nk, Dv]`` -> ``[B, Hq, Nq, Dv]`` in ``dtype``, with
    ``return_state`` and the state after the last key.
    """
    phi = get_feature_map(feature_map)
    kept = torch.ones(k.shape[0], 1, k.shape[2], 1, dtype=dtype, device=k.device)
    if key_padding_mask is not None:
        ignored = key_padding_mask[:, None, :, None]
        k, v, kept = k.masked_fill(ignored, 0), v.masked_fill(ignored, 0), kept.masked_fill(ignored, 0)
    q, k, v = phi(q.to(dtype)), phi(k.to(dtype)) * kept, v.to(dtype)
    ends = [0, k.shape[2]] if cu_seqlens is None else cu_seqlens.tolist()
    state = initial_state or State.empty(
        k.shape[0] if cu_seqlens is None else len(ends) - 1,
        *(k.shape[1], k.shape[3], v.shape[3]),
        dtype=dtype,
        device=k.device,
    )
    state = state.to(dtype)
    if cu_seqlens is None:
        out, last = _recurrence(q, k, v, state, causal, eps)
        return (out, last) if return_state else out
    outputs, states = [q[:, :, :0] @ q.new_zeros(q.shape[3], v.shape[3])], [state.S[:0], state.z[:0]]
    for i, (a, b) in enumerate(pairwise(ends)):
        begun = State(state.S[i : i + 1], state.z[i : i + 1])
        out, last = _recurrence(q[:, :, a:b], k[:, :, a:b], v[:, :, a:b], begun, causal, eps)
        outputs.append(out)
        states = [torch.cat(pair) for pair in zip(states, last, strict=True)]
    out = torch.cat(outputs, 2)
    return (out, State(*states)) if return_state else out


def _recurrence(
    q: Tensor, k: Tensor, v: Tensor, state: State, causal: bool, eps: float
) -> tuple[Tensor, State]:
    """The output and the last state of mapped queries and keys."""
    (S, z), group, ahead = state, q.shape[1] // k.shape[1], k.shape[2] - q.shape[2]

    def read(queries: Tensor) -> Tensor:
        num = torch.einsum("bhnd,bhde->bhne", queries, S.repeat_interleave(group, 1))
        den = torch.einsum("bhnd,bhd->bhn", queries, z.repeat_interleave(group, 1))[..., None] + eps
        return num / den.where(den != 0, 1)

    outputs = [read(q[:, :, : max(0, -ahead) if causal else 0])]
    # Taken apart at once: an index a token would have a gradient as large as all of them.
    queries = q.unbind(2)
    for place, (key, value) in enumerate(zip(k.unbind(2), v.unbind(2), strict=True)):
        S = S + key[..., :, None] * value[..., None, :]
        z = z + key
        if causal and place >= ahead:
            outputs.append(read(queries[place - ahead][:, :, None]))
    return (torch.cat(outputs, 2) if causal else read(q)), State(S, z)
