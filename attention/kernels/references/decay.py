"""The oracle of linear attention with decay, written like the recurrence, and its rows by their weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from attention.kernels.feature_maps import FeatureMap, get_feature_map
from attention.kernels.references.rows import Head, Rows, blocks_of, mapped_back, weighted_sums, with_norms


def decay_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    causal: bool = True,
    feature_map: str | FeatureMap = "elu",
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """The recurrence, a token at a time: S = exp(g) S + phi(k)v', o = phi(q)S.

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]``, g ``[B, H, N]`` -> ``[B, H, N, Dv]`` in ``dtype``.

    Raises:
        ValueError: not causal.
    """
    if not causal:
        raise ValueError("linear attention with decay is causal only; pass causal=True")
    phi = get_feature_map(feature_map)
    q, k, v, kept = phi(q.to(dtype)), phi(k.to(dtype)), v.to(dtype), g.to(dtype).exp()
    S = q.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1])
    outputs = [v.new_zeros(*v.shape[:2], 0, v.shape[-1])]
    # Taken apart at once: an index a token would have a gradient as large as all of them.
    for query, key, value, keep in zip(*(x.unbind(2) for x in (q, k, v, kept)), strict=True):
        S = keep[..., None, None] * S + key[..., :, None] * value[..., None, :]
        outputs.append(query[:, :, None] @ S)
    return torch.cat(outputs, dim=2)


def decay_output_rows(head: Head, rows: Tensor) -> Rows:
    """The output in these query rows, sum_j D_ij (phi(q_i) . phi(k_j)) v_j."""
    weights = _since(head, rows).mul_(_products(head.mapped(head.q[rows]), head.k, head))
    return with_norms(weighted_sums(weights, head.v), weighted_sums(weights.square(), head.v, power=2))


def decay_query_gradient_rows(head: Head, rows: Tensor, grad_out: Tensor) -> Rows:
    """The rows of dq that belong to these queries, from the gradient ``[N, Dv]`` of the output."""
    weights = _since(head, rows).mul_(_products(grad_out[rows].double(), head.v))
    values = weights.new_zeros(len(rows), head.q.shape[-1])
    squares = torch.zeros_like(values)
    for place, block in blocks_of(head.k):
        keys = head.mapped(block)
        values += weights[:, place] @ keys
        squares += weights[:, place].square() @ keys.square()
    return mapped_back(head, head.q[rows], values, squares)


def decay_key_gradient_rows(head: Head, rows: Tensor, grad_out: Tensor, out: Tensor) -> tuple[Rows, Rows]:
    """The rows of dk and dv that belong to these keys; the output is not needed."""
    decays = _until(head, rows)
    of_keys = decays * _products(head.v[rows].double(), grad_out)
    of_values = decays.mul_(_products(head.mapped(head.k[rows]), head.q, head))
    values = of_keys.new_zeros(len(rows), head.k.shape[-1])
    squares = torch.zeros_like(values)
    for place, block in blocks_of(head.q):
        queries = head.mapped(block)
        values += of_keys[:, place] @ queries
        squares += of_keys[:, place].square() @ queries.square()
    of_values_squared = weighted_sums(of_values.square(), grad_out, power=2)
    return (
        mapped_back(head, head.k[rows], values, squares),
        with_norms(weighted_sums(of_values, grad_out), of_values_squared),
    )


def _products(x: Tensor, tokens: Tensor, mapped: Head | None = None) -> Tensor:
    """Products ``[R, N]`` of rows in float64 with all tokens, which are mapped first if a head is given."""
    return torch.cat(
        [x @ (mapped.mapped(y) if mapped else y.double()).mT for _, y in blocks_of(tokens)], dim=1
    )


def _since(head: Head, rows: Tensor) -> Tensor:
    """D_ij ``[R, N]`` of these queries i: the gates behind j are summed from i on back."""
    g, places = head.extra["g"].double(), torch.arange(len(head.k), device=rows.device)
    hidden = places > rows[:, None]
    sums = g.expand(len(rows), -1).masked_fill(hidden, 0).flip(-1).cumsum(-1).flip(-1)
    return pad(sums[:, 1:], (0, 1)).exp_().masked_fill_(hidden, 0)


def _until(head: Head, rows: Tensor) -> Tensor:
    """D_ij ``[R, N]`` of these keys j, by i."""
    g, places = head.extra["g"].double(), torch.arange(len(head.k), device=rows.device)
    sums = g.expand(len(rows), -1).masked_fill(places <= rows[:, None], 0).cumsum(-1)
    return sums.exp_().masked_fill_(places < rows[:, None], 0)
