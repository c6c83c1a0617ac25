"""The closed forms of linear-decay-triton's costs, which follow from its plan."""

from __future__ import annotations

import torch

from attention.case import Case
from attention.costs import (
    Costs,
    add,
    chunk_scores,
    masked_chunk_scores,
    result_elements,
)
from attention.kernels.gates import decay_costs
from attention.kernels.linear_decay_triton.plan import GROUP, attend_tiles, decay_tiles, sums_dtype
from attention.kernels.triton_common.plan import Plan, make_plan, scanned


def triton_costs(case: Case) -> Costs:
    """Twice over the states, once to sum a segment and once to walk it: N (3 D Dv + C (D + Dv)) MACs.

    A backward sums from the end, and walks thrice, for dq, dk and dv; dq and dk multiply the diagonal of the
    scores apart. Where a width is cut into blocks, each computes the scores again.

    Peak: the results, the sums of gates, the states of the segments and, in a backward, those before each
    group of chunks and for each block two float32 a token, of which the gates' gradients are made.
    """
    plan = plan_of_case(case)
    tiles = decay_tiles(plan)
    n, d, dv = plan.tokens, plan.key_width, plan.value_width
    keys, values, walk = tiles.differentiate, tiles.attend, attend_tiles(plan)
    terms = forward_terms(plan)
    masked = masked_chunk_scores(n, walk.C) * (walk.blocks * d + dv)
    count = plan.segments - 1
    states = count * (d * dv + 1) + (scanned(count, tiles.held) and (count + 1) * d * dv)
    peak = 4 * states + n * sums_dtype(plan).itemsize + result_elements(case) * case.itemsize
    if case.backward:
        terms = add(terms, backward_terms(plan))
        masked *= 2
        masked += masked_chunk_scores(n, tiles.C) * 2 * (keys.blocks * dv + d)
        masked += chunk_scores(n, tiles.C) * 2 * d
        groups = -(-n // (GROUP * tiles.C))
        bounds = keys.held * keys.block * keys.blocks * (2 if plan.narrow else 4)
        peak += 4 * (states + n + 2 * keys.blocks * n) + groups * (bounds + 4 * values.block * values.blocks)
    return decay_costs(case, terms, peak, masked_macs=masked)


def plan_of_case(case: Case) -> Plan:
    """The plan of a case's inputs, which are contiguous."""
    heads, n = case.heads, case.seq_len
    layouts = tuple(
        (torch.device(case.device), case.torch_dtype, (heads * n * width, n * width, width, 1))
        for width in (case.head_dim, case.head_dim, case.value_dim)
    )
    return make_plan(
        (case.batch, heads, n, case.head_dim),
        (case.batch, heads, n, case.value_dim),
        layouts,
        aligned=True,
    )


def forward_terms(plan: Plan) -> dict[str, int]:
    """MACs of one head: S of each segment but the last, S of all once more, QK' and AV."""
    n, d, dv, walk = plan.tokens, plan.key_width, plan.value_width, attend_tiles(plan)
    before, scores = (plan.segments - 1) * plan.segment_tokens, chunk_scores(n, walk.C)
    return {
        "states": (before + n) * d * dv,
        "readout": n * d * dv,
        "scores": walk.blocks * scores * d,
        "weighted_values": scores * dv,
    }


def backward_terms(plan: Plan) -> dict[str, int]:
    """MACs of one head: the states behind segments; S once and U twice more; scores."""
    n, d, dv, tiles = plan.tokens, plan.key_width, plan.value_width, decay_tiles(plan)
    walk, first = attend_tiles(plan), min(n, plan.segment_tokens)
    of_values, of_keys = chunk_scores(n, walk.C), 2 * chunk_scores(n, tiles.C)
    return {
        "states": (n - first + 3 * n) * d * dv,
        "readout": 3 * n * d * dv,
        "scores": of_values * walk.blocks * d + of_keys * tiles.differentiate.blocks * dv,
        "weighted_values": of_values * dv + of_keys * 2 * d,
    }
