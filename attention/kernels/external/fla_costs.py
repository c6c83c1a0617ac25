"""The closed forms of flash-linear-attention's gated kernels, in chunks of 64 tokens.

FLOPs are those of the chunked forms in the literature: whole chunks of scores, the masked half included, and
nothing that a choice of Triton's blocks repeats. Products with gates are elementwise and left out. The peak
is what version 0.6 allocates where it holds most: inputs in its layout, results and the state of each chunk,
in the case's dtype or, by name, in float32. Its backward computes the states once more.
"""

from __future__ import annotations

from dataclasses import replace

from attention.case import Case
from attention.costs import Costs, Terms, chunk_scores, costs_of_heads, unseen

CHUNK = 64
FLOAT = 4
"""Bytes of a gate, a sum of gates or a rate."""


def decay_costs(case: Case) -> Costs:
    """Linear attention with a gate a head: QK' is multiplied again for the gradients of v and of gates."""
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    if case.backward:
        peak = _peak(case, n * (8 * d + 4 * dv), floats=2 * n + 2 * _states(case))
    else:
        mapping, attending = 4 * n * d, n * (2 * d + 2 * dv) + _states(case)
        peak = _peak(case, max(mapping, attending), floats=2 * n)
    return _costs(case, _gated_terms(case, scores_again=2), peak, gates=1)


def gla_costs(case: Case) -> Costs:
    """Gated linear attention, which keeps the scores of its chunks in float32 for the backward."""
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    if case.backward:
        floats = n * (6 * d + 2 * CHUNK) + 2 * _states(case)
        peak = _peak(case, n * (2 * d + 4 * dv), floats)
    else:
        peak = _peak(case, n * (2 * d + 2 * dv) + _states(case), floats=n * (2 * d + CHUNK))
    return _costs(case, _gated_terms(case, scores_again=0), peak, gates=d)


def delta_costs(case: Case) -> Costs:
    """The gated delta rule: QK' is multiplied again for the gradients of v and gates, and KK' for these."""
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    if case.backward:
        peak = _peak(case, n * (7 * d + 7 * dv + CHUNK) + 2 * _states(case), floats=7 * n)
    else:
        peak = _peak(case, n * (5 * d + 4 * dv + CHUNK) + _states(case), floats=5 * n)
    return _costs(case, _delta_terms(case, scores_again=3), peak, gates=2)


def kda_costs(case: Case) -> Costs:
    """Kimi delta attention, which keeps the scores of its forward."""
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    if case.backward:
        rates = 5 + 2 * -(-d // CHUNK)
        elements = n * (5 * d + 6 * dv + 2 * CHUNK) + 2 * _states(case)
        peak = _peak(case, elements, floats=n * (8 * d + 2 * CHUNK + rates))
    else:
        peak = _peak(case, n * (6 * d + 4 * dv + 2 * CHUNK) + _states(case), floats=n * (2 * d + 3))
    return _costs(case, _delta_terms(case, scores_again=0), peak, gates=d + 1)


def _gated_terms(case: Case, *, scores_again: int) -> Terms:
    """MACs of one head: S += k'v and qS, QK' and AV.

    Backward S again and its gradient, three readouts, A'g, g V', dA K and dA'Q.
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    scores, state = chunk_scores(n, CHUNK), n * d * dv
    states, readouts, of_keys, of_values = 1, 1, 1, 1
    if case.backward:
        states, readouts = states + 2, readouts + 3
        of_keys, of_values = of_keys + 2 + scores_again, of_values + 2
    return {
        "states": states * state,
        "readout": readouts * state,
        "scores": of_keys * scores * d,
        "weighted_values": of_values * scores * dv,
    }


def _delta_terms(case: Case, *, scores_again: int) -> Terms:
    """MACs of one head, in the WY form of the delta rule (Yang et al. 2024, arXiv 2406.06484).

    Forward KK' and QK', the inverse T of a unit triangle of each chunk, W = TK and U = TV, V - WS, S += K'V,
    QS and AV. Backward W, U, the states and what they were written with again; five products with the
    gradients of the states, three of which read them; and those of scores: dT from W and U, T'dT T', T'dW and
    T'dU, g V', A'g, and four of the gradients of QK' and KK' with Q and K.
    """
    n, d, dv = case.seq_len, case.head_dim, case.value_dim
    scores, state = chunk_scores(n, CHUNK), n * d * dv
    states, readouts, of_keys, of_values, squares = 1, 2, 3, 2, 0
    if case.backward:
        states, readouts = states + 3, readouts + 5
        of_keys, of_values, squares = of_keys + 7 + scores_again, of_values + 5, 2
    return {
        "states": states * state,
        "readout": readouts * state,
        "scores": of_keys * scores * d,
        "weighted_values": of_values * scores * dv,
        "inverse": _inverses(n) + squares * CHUNK * scores,
    }


def _inverses(n: int) -> int:
    """MACs of inverting a unit triangle in each chunk by substitution."""
    complete, rest = divmod(n, CHUNK)
    return complete * ((CHUNK**3 - CHUNK) // 6) + (rest**3 - rest) // 6


def _states(case: Case) -> int:
    """Elements of the states of all chunks of one head."""
    return -(-case.seq_len // CHUNK) * case.head_dim * case.value_dim


def _peak(case: Case, elements: int, floats: int) -> int:
    return case.itemsize * elements + FLOAT * floats


def _costs(case: Case, terms: Terms, peak: int, *, gates: int) -> Costs:
    """The costs of all heads, with so many gates and rates a token, of which a backward writes gradients."""
    costs = costs_of_heads(case, terms, peak)
    size = FLOAT * gates * case.batch * case.heads * case.seq_len
    return replace(unseen(costs), min_bytes=costs.min_bytes + size * (3 if case.backward else 1))
