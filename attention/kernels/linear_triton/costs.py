"""The closed forms of linear-triton's costs, which follow from its plan."""

from __future__ import annotations

import torch

from attention.case import Case
from attention.costs import (
    Costs,
    Terms,
    add,
    chunk_scores,
    costs_of_heads,
    masked_chunk_scores,
    result_elements,
    times,
)
from attention.kernels.triton_common.plan import Plan, make_plan


def triton_costs(case: Case) -> Costs:
    """Twice over the states, once to sum a segment and once to walk it: N (3 D Dv + D + C (D + Dv)) MACs.

    Bidirectional N (2 D Dv + D), without the second walk. Of heads that share keys the sum is one: Nk D Dv a
    head of keys. Where one width is cut into blocks, each computes the scores again; Gluon passes cut none.
    The normaliser is counted as the D products a token that it is.

    Peak: the results, one or two float32 a token, and the states of the segments.
    """
    plan = plan_of_case(case)
    n, d, dv = plan.tokens, plan.key_width, plan.value_width
    terms, of_keys = forward_terms(plan)
    walk = plan.attend_tiles()
    masked = masked_chunk_scores(n, walk.C) * (walk.blocks * d + dv)
    if case.backward:
        back, back_of_keys = backward_terms(plan)
        terms, of_keys = add(terms, back), add(of_keys, back_of_keys)
        walk = plan.attend_tiles(reverse=True)
        masked += masked_chunk_scores(n, walk.C) * (walk.blocks * d + dv)
        for reverse in (False, True):
            walk = plan.differentiate_tiles(reverse=reverse)
            masked += masked_chunk_scores(n, walk.C) * (walk.blocks * dv + d)
    count = plan.summed(final=False)
    kept = plan.key_segments + (plan.slots(count) if plan.scanned(count) else 0) if count else 0
    sums = plan.segments + (plan.segments + 1 if plan.scanned(plan.segments) else 0)
    tokens, states = (2 * n, kept + sums) if case.backward else (0, kept)
    held = -(-4 * states * d * (dv + 1) * plan.kv_heads // plan.heads)
    peak = 4 * tokens + held + result_elements(case) * case.itemsize
    return costs_of_heads(case, terms, peak, of_keys=of_keys, masked_macs=masked if case.causal else 0)


def plan_of_case(case: Case) -> Plan:
    """The plan of a case's inputs, which are contiguous."""
    sizes = (
        (case.heads, case.queries, case.head_dim), (case.key_heads, case.seq_len, case.head_dim),
        (case.key_heads, case.seq_len, case.value_dim),
    )  # fmt: skip
    layouts = tuple(
        (torch.device(case.device), case.torch_dtype, (heads * n * width, n * width, width, 1))
        for heads, n, width in sizes
    )
    shape, _, of_values = ((case.batch, *size) for size in sizes)
    return make_plan(shape, of_values, layouts, aligned=True, causal=case.causal, half=True)


def of_all_heads(plan: Plan, found: tuple[Terms, Terms]) -> dict[str, int]:
    """The terms of one head of queries and of one of keys, of all heads."""
    return {**times(plan.all_heads, found[0]), **times(plan.all_key_heads, found[1])}


def forward_terms(plan: Plan, *, final: bool = False) -> tuple[dict[str, int], dict[str, int]]:
    """MACs of one head of queries, causal once more S, QK' and AV; of one of keys: S of each segment.

    ``final``: the state after the last token is wanted.
    """
    n, d, dv = plan.tokens, plan.key_width, plan.value_width
    before = (
        plan.keys if final or not plan.causal else max(0, plan.key_segments - 1) * plan.key_segment_tokens
    )
    terms = {"readout": n * d * dv, "normaliser": n * d}
    if plan.causal:
        walk = plan.attend_tiles()
        scores = chunk_scores(n, walk.C)
        terms |= {"states": n * d * dv, "scores": walk.blocks * scores * d, "weighted_values": scores * dv}
    return terms, {"sums": before * d * dv}


def backward_terms(plan: Plan, *, of_keys: bool = True) -> tuple[dict[str, int], dict[str, int]]:
    """MACs of one head of queries: U += q'do, do S'; causal S once, U twice more, and scores.

    Of one of keys: v U', computed once for each head that shares them where causal, and k U. Without
    ``of_keys`` those of dq alone.
    """
    n, d, dv = plan.tokens, plan.key_width, plan.value_width
    terms = {"gradient_sums": n * d * dv, "readout": n * d * dv}
    if plan.causal:
        ahead = plan.differentiate_tiles()
        values = chunk_scores(n, ahead.C)
        states = {"states": n * d * dv, "scores": ahead.blocks * values * dv, "weighted_values": values * d}
        terms |= states
    if not of_keys:
        return terms, {}
    if plan.causal:
        back, dv_walk = plan.differentiate_tiles(reverse=True), plan.attend_tiles(reverse=True)
        keys, values = chunk_scores(n, dv_walk.C), chunk_scores(n, back.C)
        terms["states"] += 2 * n * d * dv
        terms["scores"] += dv_walk.blocks * keys * d + back.blocks * values * dv
        terms["weighted_values"] += keys * dv + values * d
    return terms, {"key_readout": (1 + (plan.group if plan.causal else 1)) * plan.keys * d * dv}
