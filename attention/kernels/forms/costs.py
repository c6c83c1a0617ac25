"""Costs of all forms of linear attention, out of those of a kernel's core."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from attention.case import Case
from attention.costs import Costs, Sizes, add, cache_bytes, min_bytes

CostsOf = Callable[[Case], Costs]


def of_forms(costs: CostsOf, *, steps: bool = False) -> CostsOf:
    """The costs of a kernel on ``forms.linear`` in every phase and of any lengths.

    Args:
        costs: of a forward, perhaps with its backward, that is bidirectional or of as many queries as keys.
        steps: whether the kernel has a step of its own; else a step is a causal forward of its tokens.
    """

    def of_case(case: Case) -> Costs:
        if case.phase == "decode":
            tokens = replace(case, phase="forward", seq_len=case.queries, query_len=None)
            return decode_costs(case, None if steps else costs(tokens))
        if case.phase == "prefill":
            found, kept = of_case(replace(case, phase="forward")), cache_bytes(case, state=True)
            return replace(found, min_bytes=found.min_bytes + kept, peak_bytes=found.peak_bytes + kept)
        if case.causal and case.queries != case.seq_len:
            return _unequal(costs, case)
        return costs(case)

    return of_case


def decode_costs(case: Case, forward: Costs | None = None) -> Costs:
    """The costs of ``case.queries`` new tokens behind a state, which is read and written once.

    Its products are those of the recurrence: a token adds phi(k)v', D Dv MACs for each head of keys, and
    reads phi(q)S and phi(q).z, D Dv + D for each of queries.

    Args:
        case: a case of the phase ``decode``.
        forward: of a causal forward of these tokens, where a kernel computes a step by that; its products are
            then those, and the new state is made beside the old one.
    """
    tokens, state = replace(case, phase="forward", seq_len=case.queries), cache_bytes(case, state=True)
    least = 2 * state + min_bytes(tokens)
    if forward is not None:
        return replace(forward, min_bytes=least, peak_bytes=forward.peak_bytes + state)
    sizes = Sizes.of_case(tokens)
    return Costs(step_terms(sizes), least, sizes.query_rows * sizes.value_width * case.itemsize)


def step_terms(sizes: Sizes) -> dict[str, int]:
    """MACs of the recurrence, as :func:`decode_costs` has them."""
    d, dv, rows = sizes.width, sizes.value_width, sizes.query_rows
    return {"states": sizes.key_rows * d * dv, "readout": rows * d * dv, "normaliser": rows * d}


def _unequal(costs: CostsOf, case: Case) -> Costs:
    """Causal, aligned at the end: the state of the first keys, and the rest behind it.

    Of fewer keys than queries, the first queries see none, and both outputs are joined to one. A backward
    holds both parts at once.
    """
    few, ahead = min(case.seq_len, case.queries), case.seq_len - case.queries
    square = costs(replace(case, seq_len=few, query_len=None))
    first = costs(replace(case, mode="bidirectional", seq_len=max(0, ahead), query_len=max(0, -ahead)))
    peaks = first.peak_bytes, square.peak_bytes + cache_bytes(case, state=True)
    peak = sum(peaks) if case.backward or ahead < 0 else max(peaks)
    if ahead < 0:
        output = case.batch * case.heads * case.queries * case.value_dim * case.itemsize
        peak = peak + output if case.backward else max(peak, 2 * output)
    return Costs(
        add(first.terms, square.terms),
        min_bytes(case),
        peak,
        add(first.uncounted, square.uncounted),
        add(first.overcounted, square.overcounted),
        square.masked_macs,
    )
