"""Attention by family and backend: the functions that a user calls."""

from __future__ import annotations

from math import inf
from typing import Any, Literal, overload

from torch import Tensor

from attention.choosing import select
from attention.fast_path import recalled, remember
from attention.inputs import WINDOW, check_number, check_window
from attention.kernels.feature_maps import FeatureMap
from attention.kernels.layouts import why_kept
from attention.kernels.tensors import dense
from attention.state import State


def standard_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    key_padding_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """softmax(scale QK') V, differentiable (Vaswani et al. 2017, eq. 1).

    Args:
        q: queries ``[B, Hq, Nq, D]``; float64, float32, bfloat16 or float16; CPU or CUDA; any strides.
        k: keys ``[B, Hkv, Nk, D]``; Hq is a multiple of Hkv, and each head of keys serves as many (Ainslie et
            al. 2023), head i of the queries that of the keys i // (Hq / Hkv).
        v: values ``[B, Hkv, Nk, Dv]``.
        causal: whether query i sees only the keys up to i + Nk - Nq: the last query sees all. Of unequal
            lengths torch's ``scaled_dot_product_attention`` means another thing by ``is_causal``: there the
            first query sees the first key alone.
        scale: 1/sqrt(D) unless given.
        key_padding_mask: ``[B, Nk]``, True where a key is ignored, as of ``torch.nn.MultiheadAttention``.
        cu_seqlens: ``[sequences + 1]`` integers, ascending from 0: where sequences packed into
            ``[1, H, total, D]`` begin, and the last ends. No sequence sees another.
        backend: a kernel's name without its family: ``explicit``, ``sdpa`` (torch picks),
            ``sdpa-math``, ``sdpa-flash``, ``sdpa-efficient``, ``sdpa-cudnn``; ``auto`` is ``sdpa``.

    Returns:
        ``[B, Hq, Nq, Dv]`` in the dtype of the inputs; 0 for a query that sees no key.

    Under autocast q, k and v are cast to its dtype, but for float64, as torch does.

    Raises:
        TypeError: q, k or v that is no strided tensor, or an option of another type.
        ValueError: shapes, dtypes or devices that do not fit together, an unknown backend, or one
            that cannot serve these inputs (it is never replaced in silence).
    """
    if scale is not None:
        scale = check_number("scale", scale)
    given = _given(scale=scale, key_padding_mask=key_padding_mask, cu_seqlens=cu_seqlens)
    q, k, v, function = select("standard", backend, q, k, v, causal, takes=tuple(given))
    out: Tensor = function(q, k, v, causal=causal, **given)
    return out


@overload
def linear_attention(
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
    backend: str = "auto",
) -> Tensor: ...


@overload
def linear_attention(
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
    backend: str = "auto",
) -> tuple[Tensor, State]: ...


def linear_attention(
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
    backend: str = "auto",
) -> Tensor | tuple[Tensor, State]:
    """phi(q)S / (phi(q).z + eps) with S = sum phi(k)v', z = sum phi(k) (Katharopoulos et al. 2020).

    Args:
        q: queries ``[B, Hq, Nq, D]``; float64, float32, bfloat16 or float16; CPU or CUDA; any strides.
        k: keys ``[B, Hkv, Nk, D]``; Hq is a multiple of Hkv, and each head of keys serves as many, head i of
            the queries that of the keys i // (Hq / Hkv), with one state.
        v: values ``[B, Hkv, Nk, Dv]``.
        causal: whether the sums of query i run over the keys up to i + Nk - Nq: the last query sees all.
        feature_map: phi: ``elu`` (elu + 1), ``relu``, ``identity``, or a callable ``[..., D] -> [..., F]``.
        eps: added to the normaliser; finite, at least 0.
        key_padding_mask: ``[B, Nk]``, True where a key is ignored, as of ``torch.nn.MultiheadAttention``.
        cu_seqlens: ``[sequences + 1]`` integers, ascending from 0: where sequences packed into
            ``[1, H, total, D]`` begin, and the last ends. No sequence sees another.
        initial_state: the `State` of tokens that came before, which every query sees; of packed sequences one
            of each, ``[sequences, Hkv, D, Dv]``. Gradients flow through it.
        return_state: whether to return the state after the last token beside the output.
        backend: a kernel's name without its family: ``explicit``, ``chunked``, ``native`` or ``triton``;
            ``auto`` is the first of ``AUTO`` that serves the inputs, which :func:`explain` names.

    Returns:
        ``[B, Hq, Nq, Dv]`` in the dtype of the inputs, 0 for a query that sees no key; sums are accumulated
        in float32 at least. With ``return_state`` a tuple of that and a `State`.

    Under autocast q, k and v are cast to its dtype, but for float64, as torch casts those of SDPA.
    Derivatives of any order and mode and ``torch.vmap`` are true: a kernel computes outputs and gradients
    itself, and torch the tangents and second derivatives.

    Raises:
        TypeError: q, k or v that is no strided tensor, or an option of another type.
        ValueError: shapes, dtypes or devices that do not fit together, an unknown backend or feature
            map, or a backend that cannot serve these inputs (it is never replaced in silence).
    """
    alone = key_padding_mask is None and cu_seqlens is None and initial_state is None
    plain = alone and return_state is False
    if plain and (again := recalled((q, k, v), backend, causal, feature_map, eps)) is not None:
        out: Tensor = again(q, k, v)
        return out
    if type(eps) is not float or not 0 <= eps < inf:
        eps = check_number("eps", eps, least=0)
    given = _given(key_padding_mask=key_padding_mask, cu_seqlens=cu_seqlens, initial_state=initial_state)
    if type(return_state) is not bool:
        raise TypeError(f"return_state must be True or False, got {return_state!r:.60}")
    if return_state:
        given["return_state"] = True
    others: tuple[Tensor, ...] = initial_state if isinstance(initial_state, tuple) else ()
    q, k, v, function = select("linear", backend, q, k, v, causal, *others, takes=tuple(given))
    found: Tensor | tuple[Tensor, State]
    found = function(q, k, v, causal=causal, feature_map=feature_map, eps=eps, **given)
    if plain:
        options = backend, causal, feature_map, eps
        remember(function, (q, k, v), options, q, k, v, causal, feature_map, eps)
    return found


def linear_attention_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: State,
    *,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-6,
    in_place: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, State]:
    """Causal linear attention of one or a few new tokens behind a state: what a model does for each token.

    The same as :func:`linear_attention` with ``causal``, ``initial_state`` and ``return_state``, at the cost
    of reading and writing the state once.

    Args:
        q: queries ``[B, Hq, T, D]`` of T new tokens; Hq is a multiple of Hkv.
        k: keys ``[B, Hkv, T, D]``.
        v: values ``[B, Hkv, T, Dv]``.
        state: of the tokens before; of none :meth:`State.empty`.
        feature_map: phi, as of :func:`linear_attention`.
        eps: added to the normaliser.
        in_place: whether to write the new state into the tensors of the old one. Nothing is differentiated
            then, and no memory is taken but for the output, so that a CUDA graph can repeat the call.
        backend: a kernel's name without its family, or ``auto``.

    Returns:
        The output ``[B, Hq, T, Dv]``, and the state after these tokens.

    Raises:
        TypeError: tensors or a state of another kind.
        ValueError: shapes, dtypes or devices that do not fit together, an unknown backend or one that cannot
            serve these inputs, or ``in_place`` where gradients would be wanted or where the state cannot be
            written, as one that is expanded, or of inference mode outside of it.
    """
    options = backend, feature_map, eps, in_place
    if type(state) is State and (again := recalled((q, k, v, *state), *options)) is not None:
        repeated: tuple[Tensor, State] | None = again(q, k, v, state)
        if repeated is not None:
            return repeated
    if type(eps) is not float or not 0 <= eps < inf:
        eps = check_number("eps", eps, least=0)
    if type(in_place) is not bool:
        raise TypeError(f"in_place must be True or False, got {in_place!r:.60}")
    others: tuple[Tensor, ...] = state if isinstance(state, tuple) else ()
    takes = ("initial_state", "return_state")
    q, k, v, function = select("linear", backend, q, k, v, True, *others, takes=takes, step=True)
    if in_place and all(map(dense, others)) and (reason := why_kept(*others)):
        raise ValueError(f"in_place cannot write the state, as {reason}; clone() it, or use in_place=False")
    new: tuple[Tensor, State] = function(q, k, v, state, feature_map=feature_map, eps=eps, in_place=in_place)
    if type(state) is State:
        remember(function, (q, k, v, *state), options, q, k, v, state, feature_map, eps, in_place)
    return new


def window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int = WINDOW,
    scale: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """softmax(scale QK') V over a causal sliding window: query i sees the keys i - window + 1 to i.

    Time is that of N w scores (Beltagy et al. 2020, section 3.1; Jiang et al. 2023, section 2).

    Args:
        q: queries ``[B, H, N, D]``; float64, float32, bfloat16 or float16; CPU or CUDA; any strides.
        k: keys ``[B, H, N, D]``.
        v: values ``[B, H, N, Dv]``.
        window: w, the keys that a query sees, its own among them; at least 1.
        scale: 1/sqrt(D) unless given.
        backend: a kernel's name without its family: ``sdpa`` (``scaled_dot_product_attention`` by blocks) or
            ``flex`` (``flex_attention``, which compiles for some seconds in its first call); ``auto`` is the
            first of ``AUTO`` that serves the inputs, which :func:`explain` names.

    Returns:
        ``[B, H, N, Dv]`` in the dtype of the inputs.

    Under autocast q, k and v are cast to its dtype, but for float64, as torch casts those of SDPA.

    Raises:
        TypeError: q, k or v that is no strided tensor, or an option of another type.
        ValueError: shapes, dtypes or devices that do not fit together, a window without keys, an unknown
            backend, or one that cannot serve these inputs (it is never replaced in silence).
    """
    check_window(window)
    if scale is not None:
        scale = check_number("scale", scale)
    q, k, v, function = select("window", backend, q, k, v, True)
    out: Tensor = function(q, k, v, causal=True, window=window, scale=scale)
    return out


def decay_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    feature_map: str | FeatureMap = "elu",
    backend: str = "auto",
) -> Tensor:
    """o_t = phi(q_t)S_t with S_t = exp(g_t)S_{t-1} + phi(k_t)v_t': causal linear attention that forgets.

    It is not normalised. One gate for all tokens of a head makes it retention (Sun et al. 2023, eq. 6) or
    Lightning Attention; gates made of the inputs, Mamba-2 (Dao and Gu 2024) or simple gated linear attention
    (Yang et al. 2024).

    Args:
        q: queries ``[B, H, N, D]``; float64, float32, bfloat16 or float16; CPU or CUDA; any strides.
        k: keys ``[B, H, N, D]``.
        v: values ``[B, H, N, Dv]``.
        g: gates ``[B, H, N]`` in float32 or the dtype of q: the natural logarithm of what a token keeps of
            the state before it, usually at most 0; -inf keeps nothing.
        feature_map: phi: ``elu`` (elu + 1), ``relu``, ``identity``, or a callable ``[..., D] -> [..., F]``.
        backend: ``explicit``, ``chunked``, ``native`` or ``triton``; ``auto`` is the first of ``AUTO`` that
            serves the inputs, which :func:`explain` names:
            ``explain(Case("linear-decay-auto", "causal", 4096))``.

    Returns:
        ``[B, H, N, Dv]`` in the dtype of v; sums are accumulated in float32 at least.

    Under autocast q, k and v are cast to its dtype, but for float64, and g is not. Derivatives and
    ``torch.vmap`` as in :func:`linear_attention`, those of g included.

    Raises:
        TypeError: q, k, v or g that is no strided tensor, or an option of another type.
        ValueError: shapes, dtypes or devices that do not fit together, an unknown backend or feature
            map, or a backend that cannot serve these inputs (it is never replaced in silence).
    """
    others = (g,) if isinstance(g, Tensor) else ()  # the kernel says what else it is
    q, k, v, function = select("linear-decay", backend, q, k, v, True, *others)
    out: Tensor = function(q, k, v, g=g, causal=True, feature_map=feature_map)
    return out


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given: a registered kernel may not take the others."""
    return {name: value for name, value in options.items() if value is not None}
