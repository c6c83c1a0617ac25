"""The terms that closed forms are made of; what each kernel makes of them stands in the kernel's room.

N, D, Dv are the lengths of the sequence, of a key and of a value; everything is multiplied by B x H. A term
is the MACs of one matrix product as the kernel executes it, forward and backward together. Where torch's
``FlopCounterMode`` sees more or less than that, the difference is a named entry of ``uncounted`` (less) or
``overcounted`` (more).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from attention.case import Case
from attention.kernels.registry import Costs

Terms = Mapping[str, int]
"""Multiply-adds by name."""


def min_bytes(case: Case) -> int:
    """Bytes of a call that reads each input once and writes each output once.

    Forward: q, k, v read and o written. Backward: q, k, v, o and do read, dq, dk and dv written.
    """
    d, dv = case.head_dim, case.value_dim
    per_token = 2 * d + 2 * dv + (case.backward and 4 * d + 4 * dv)
    return case.batch * case.heads * case.seq_len * per_token * case.itemsize


def result_elements(case: Case) -> int:
    """Elements of one head that a call leaves behind: o, and with a backward dq, dk, dv beside o and do."""
    d, dv = case.head_dim, case.value_dim
    return case.seq_len * (2 * d + 3 * dv if case.backward else dv)


def masked_scores(n: int) -> int:
    """Scores of an n x n block above its diagonal."""
    return n * (n - 1) // 2


def chunk_scores(n: int, chunk: int) -> int:
    """Scores of all chunks of a sequence, the masked ones too; the last chunk may be shorter."""
    complete, rest = divmod(n, chunk)
    return complete * chunk * chunk + rest * rest


def masked_chunk_scores(n: int, chunk: int) -> int:
    """Scores above the diagonals of all chunks of a sequence."""
    complete, rest = divmod(n, chunk)
    return complete * masked_scores(chunk) + masked_scores(rest)


def add(*several: Terms) -> dict[str, int]:
    """The sums of several sets of terms, by name."""
    names = dict.fromkeys(name for terms in several for name in terms)
    return {name: sum(terms.get(name, 0) for terms in several) for name in names}


def times(factor: int, terms: Terms) -> dict[str, int]:
    """Each term multiplied by a factor."""
    return {name: factor * macs for name, macs in terms.items()}


def costs_of_heads(
    case: Case,
    terms: Terms,
    peak_bytes: int,
    *,
    uncounted: Terms | None = None,
    overcounted: Terms | None = None,
    masked_macs: int = 0,
) -> Costs:
    """The costs of all heads of a case, from those of one head."""
    heads = case.batch * case.heads
    return Costs(
        terms=times(heads, terms),
        min_bytes=min_bytes(case),
        peak_bytes=heads * peak_bytes,
        uncounted=times(heads, uncounted or {}),
        overcounted=times(heads, overcounted or {}),
        masked_macs=heads * masked_macs,
    )


def unseen(costs: Costs) -> Costs:
    """The costs of a kernel of which torch's counter sees nothing."""
    return replace(costs, uncounted=costs.terms, overcounted={}, masked_macs=0)
