"""The closed forms of linear-triton's costs, which follow from its plan."""

from __future__ import annotations

import torch

from attention.case import Case
from attention.costs import Costs, add, chunk_scores, costs_of_heads, masked_chunk_scores, result_elements
from attention.kernels.triton_common.plan import Plan, make_plan, scanned


def triton_costs(case: Case) -> Costs:
    """Twice over the states, once to sum a segment and once to walk it: N (3 D Dv + D + C (D + Dv)) MACs.

    Bidirectional N (2 D Dv + D), without the second walk. Where one width is cut into blocks, each computes
    the scores again; Gluon passes cut none. The normaliser is counted as the D products a token that it is.

    Peak: the results, one or two float32 a token, and the states of the segments.
    """
    plan = plan_of_case(case)
    n, d, dv = plan.tokens, plan.key_width, plan.value_width
    terms = forward_terms(plan, case.causal)
    walk, walk_back = plan.attend_tiles, plan.differentiate_tiles
    masked = masked_chunk_scores(n, walk.C) * (walk.blocks * d + dv)
    if case.backward:
        terms = add(terms, backward_terms(plan, case.causal))
        masked *= 2
        masked += 2 * masked_chunk_scores(n, walk_back.C) * (walk_back.blocks * dv + d)
    sums = plan.segments + (plan.slots(plan.segments) if scanned(plan.segments) else 0)
    kept = sums if plan.summed(causal=case.causal, final=False) else 0
    tokens, states = (2 * n, kept + sums) if case.backward else (0, kept)
    peak = 4 * (tokens + states * d * (dv + 1)) + result_elements(case) * case.itemsize
    return costs_of_heads(case, terms, peak, masked_macs=masked if case.causal else 0)


def plan_of_case(case: Case) -> Plan:
    """The plan of a case's inputs, which are contiguous."""
    heads, n = case.heads, case.seq_len
    layouts = tuple(
        (torch.device(case.device), case.torch_dtype, (heads * n * width, n * width, width, 1))
        for width in (case.head_dim, case.head_dim, case.value_dim)
    )
    return make_plan((case.batch, heads, n, case.head_dim), case.value_dim, layouts, aligned=True)


def forward_terms(plan: Plan, causal: bool, *, final: bool = False) -> dict[str, int]:
    """MACs of one head: S of each segment, and where causal S once more, QK' and AV.

    ``final``: the state after the last token is wanted.
    """
    n, d, dv = plan.tokens, plan.key_width, plan.value_width
    before = n if final or not causal else (plan.segments - 1) * plan.segment_tokens
    terms = {"states": before * d * dv, "readout": n * d * dv, "normaliser": n * d}
    if causal:
        walk = plan.attend_tiles
        scores = chunk_scores(n, walk.C)
        terms["states"] += n * d * dv
        terms |= {"scores": walk.blocks * scores * d, "weighted_values": scores * dv}
    return terms


def backward_terms(plan: Plan, causal: bool) -> dict[str, int]:
    """MACs of one head: U += q'do, then do S', v U', k U; where causal S once, U twice more, and scores."""
    n, d, dv = plan.tokens, plan.key_width, plan.value_width
    terms = {"states": n * d * dv, "readout": 3 * n * d * dv, "normaliser": 0}
    if causal:
        walk, walk_back = plan.attend_tiles, plan.differentiate_tiles
        keys, values = chunk_scores(n, walk.C), chunk_scores(n, walk_back.C)
        terms["states"] += 3 * n * d * dv
        terms["scores"] = walk.blocks * keys * d + 2 * walk_back.blocks * values * dv
        terms["weighted_values"] = keys * dv + 2 * values * d
    return terms
