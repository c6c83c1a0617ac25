"""Kernels of flash-linear-attention, all of them causal only.

- ``linear-fla-chunk``, ``linear-fla-fused``: linear attention, feature maps applied before; their step is
  ``fused_recurrent_linear_attn``
- ``linear-decay-fla``: linear attention with decay, as simple gated linear attention of mapped inputs
- ``gla-fla``: gated linear attention
- ``delta-fla``, ``kda-fla``: the gated delta rule and Kimi delta attention, of normalised queries and keys

Signatures are those of version 0.6: layout ``[B, N, H, D]``, gates as logarithms, a tuple that begins with
the output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from attention.case import Case
from attention.costs import Costs, unseen
from attention.kernels.external.fla_costs import decay_costs, delta_costs, gla_costs, kda_costs
from attention.kernels.external.fla_refusals import (
    decay_refusal,
    delta_refusal,
    kda_refusal,
    linear_refusal,
    refusal,
)
from attention.kernels.external.gates import (
    head_gates_and_rates,
    key_gates,
    key_gates_and_rates,
)
from attention.kernels.external.packages import empty_result, quietly
from attention.kernels.feature_maps import FeatureMap, get_feature_map, identity
from attention.kernels.forms.linear import check_step
from attention.kernels.gates import make_gates
from attention.kernels.references import GATED_DELTA, GLA, KDA
from attention.kernels.registry import get_kernel, register_kernel
from attention.state import State


def fla(function: str) -> Callable[..., Tensor]:
    """A function of ``fla.ops.linear_attn`` as a kernel; eps fixed at 1e-10.

    With ``normalize`` its states are (S, z), z ``[B, 1, H, D]``, and queries are not scaled: those of
    `linear_attention` and theirs are the same numbers.
    """

    def attend(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        causal: bool = True,
        feature_map: str | FeatureMap = "elu",
        eps: float = 1e-10,
        initial_state: State | None = None,
        return_state: bool = False,
    ) -> Any:
        phi = get_feature_map(feature_map)
        if initial_state is None and not return_state:
            return _call("linear_attn", function, q, k, v, causal, phi=phi, scale=1.0, normalize=True)
        if not causal:
            raise ValueError(f"{function} of flash-linear-attention is causal only; pass causal=True")
        out, state = _behind(function, q, k, v, initial_state, phi)
        return (out, state) if return_state else out

    return attend


def linear_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: State,
    *,
    feature_map: str | FeatureMap = "elu",
    eps: float = 1e-10,
    in_place: bool = False,
) -> tuple[Tensor, State]:
    """``fused_recurrent_linear_attn`` of new tokens; it makes a new state, which ``in_place`` copies back."""
    check_step(q, k, v, state, in_place)
    out, last = _behind("fused_recurrent_linear_attn", q, k, v, state, get_feature_map(feature_map))
    if not in_place:
        return out, last
    for old, new in zip(state, last, strict=True):
        old.copy_(new)
    return out, state


def _behind(
    function: str, q: Tensor, k: Tensor, v: Tensor, state: State | None, phi: FeatureMap
) -> tuple[Tensor, State]:
    """The output of tokens behind a state, and the state behind them."""
    if v.numel() == 0:
        batch, heads, _, width = k.shape
        return empty_result(q, k, v), state or State.empty(batch, heads, width, v.shape[3], device=k.device)
    before = None if state is None else (state.S, state.z[:, None])
    options = {"scale": 1.0, "initial_state": before, "output_final_state": True, "normalize": True}
    attention = getattr(quietly("fla.ops.linear_attn"), function)
    out, last = attention(_turned(phi(q)), _turned(phi(k)), _turned(v), **options)
    if not isinstance(last, tuple):
        raise ValueError(
            f"{function} keeps no sum of keys to normalise by; take flash-linear-attention 0.6 or later"
        )
    S, z = last
    # The sum of keys is in float32, and so is what was divided by it.
    return out.transpose(1, 2).to(v.dtype), State(S, z[:, 0].to(S.dtype))


def decay(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    causal: bool = True,
    feature_map: str | FeatureMap = "elu",
) -> Tensor:
    """S = exp(g) S + phi(k) v', o = phi(q) S; g ``[B, H, N]``."""
    phi = get_feature_map(feature_map)
    return _call("simple_gla", "chunk_simple_gla", q, k, v, causal, {"g": g}, phi=phi, scale=1.0)


def gla(
    q: Tensor, k: Tensor, v: Tensor, gk: Tensor, *, causal: bool = True, scale: float | None = None
) -> Tensor:
    """What `references.gla_reference` computes; gk ``[B, H, N, D]``."""
    return _call("gla", "chunk_gla", q, k, v, causal, {"g": gk}, scale=_scale(q, scale))


def gated_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    *,
    causal: bool = True,
    scale: float | None = None,
) -> Tensor:
    """What `references.gated_delta_reference` computes; g and beta ``[B, H, N]``."""
    options: dict[str, Any] = {"scale": _scale(q, scale), "use_qk_l2norm_in_kernel": True}
    gates = {"g": g, "beta": beta}
    return _call("gated_delta_rule", "chunk_gated_delta_rule", q, k, v, causal, gates, **options)


def kda(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gk: Tensor,
    beta: Tensor,
    *,
    causal: bool = True,
    scale: float | None = None,
) -> Tensor:
    """What `references.kda_reference` computes; gk ``[B, H, N, D]``, beta ``[B, H, N]``."""
    options: dict[str, Any] = {"scale": _scale(q, scale), "use_qk_l2norm_in_kernel": True}
    return _call("kda", "chunk_kda", q, k, v, causal, {"g": gk, "beta": beta}, **options)


def _scale(q: Tensor, scale: float | None) -> float:
    return float(q.shape[-1]) ** -0.5 if scale is None else scale


def _call(
    module: str,
    function: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool,
    gates: dict[str, Tensor] | None = None,
    phi: FeatureMap = identity,
    **options: Any,
) -> Tensor:
    """The output of a function of ``fla.ops`` in our layout, from queries and keys mapped by phi."""
    if not causal:
        raise ValueError(f"{function} of flash-linear-attention is causal only; pass causal=True")
    gates = gates or {}
    if v.numel() == 0:
        return empty_result(q, k, v, *gates.values())
    attention = getattr(quietly(f"fla.ops.{module}"), function)
    # Mapped one after another, so that nothing is held in both layouts.
    turned = _turned(phi(q)), _turned(phi(k)), _turned(v)
    out: Tensor = attention(*turned, **{name: _turned(x) for name, x in gates.items()}, **options)[0]
    return out.transpose(1, 2)


def _turned(x: Tensor) -> Tensor:
    """From ``[B, H, N, ...]`` to ``[B, N, H, ...]``."""
    return x.transpose(1, 2).contiguous()


def _linear_costs(case: Case) -> Costs:
    """The costs of our kernel of the same algorithm, of which torch's counter sees nothing here."""
    return unseen(get_kernel("linear-chunked").costs(case))


# Triton's products of float32 are in tf32 unless they are told otherwise.
PRECISION = {"float32": "tf32"}


def register_fla() -> None:
    """Register the kernels of flash-linear-attention."""
    linear: dict[str, Any] = {
        "costs": _linear_costs, "supports": linear_refusal, "precision": PRECISION, "step": linear_step,
    }  # fmt: skip
    register_kernel("linear-fla-chunk", fla("chunk_linear_attn"), **linear)
    register_kernel("linear-fla-fused", fla("fused_chunk_linear_attn"), **linear)
    for name, function, reference, costs, supports, make_inputs in (
        ("linear-decay-fla", decay, "decay", decay_costs, decay_refusal, make_gates),
        ("gla-fla", gla, GLA, gla_costs, refusal, key_gates),
        ("delta-fla", gated_delta, GATED_DELTA, delta_costs, delta_refusal, head_gates_and_rates),
        ("kda-fla", kda, KDA, kda_costs, kda_refusal, key_gates_and_rates),
    ):
        register_kernel(
            name,
            function,
            reference=reference,
            costs=costs,
            supports=supports,
            make_inputs=make_inputs,
            precision=PRECISION,
        )
